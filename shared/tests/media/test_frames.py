"""Frames: the right ones, at their true times, as shown, and no others decoded in vain."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from mepr_shared.media import frame_decode, frame_index, frames
from mepr_shared.media.frames import sample_frames
from mepr_shared.media.probe import probe

X264 = {"preset": "veryfast", "bf": "3", "b_strategy": "0"}
# Containers and codecs with and without reordering, a list of key frames, and time stamps.
KINDS = {
    "b-frames.mp4": ("libx264", X264),
    "open-groups.mp4": ("libx264", X264 | {"x264-params": "open-gop=1:scenecut=0"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "plain.mp4": ("mpeg4", {}),
    "plain.avi": ("mpeg4", {}),
    "b-frames.mkv": ("libx264", X264),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "broadcast.ts": ("libx264", X264),
    "moving.gif": ("gif", {}),
    "stampless.h264": ("libx264", X264),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video, numbered):
    """Two seconds of 25 numbered frames each, a key frame every 12."""
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            codec, options = KINDS[name]
            write_video(path, numbered(50), codec=codec, options=options)
        return path

    return make


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 7, 30, 50, 500])
def test_frames_are_uniform_in_time_and_true(videos, number_of, name: str, count: int) -> None:
    taken = sample_frames(videos(name), count)
    expected = [k * 50 // count for k in range(count)] if count < 50 else list(range(50))
    assert (taken.status, taken.reason) == ("ok", "")
    assert [number_of(image) for image in taken.images] == expected
    np.testing.assert_allclose(taken.time_s, np.array(expected) / 25, atol=2e-3)
    assert taken.time_s.dtype == np.float32
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in taken.images)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.4, 0.8, [10, 12, 15, 17]),
        (1.3, None, [32, 36, 41, 45]),
        (1.6, 1.68, [40, 41]),
        (0.81, 0.83, [20]),
        (-2.0, 0.1, [0, 1, 2]),
    ],
)
def test_a_segment_is_sampled_within_itself(
    videos, number_of, name: str, start_s: float, end_s: float | None, expected: list[int]
) -> None:
    taken = sample_frames(videos(name), 4, start_s=start_s, end_s=end_s)
    assert taken.status == "ok"
    assert [number_of(image) for image in taken.images] == expected
    np.testing.assert_allclose(taken.time_s, np.array(expected) / 25, atol=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_bit_for_bit_those_of_a_plain_decode(videos, name: str) -> None:
    """Leaving out what nobody needs changes nothing in what is taken."""
    with av.open(str(videos(name))) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    taken = sample_frames(videos(name), 9)
    for image, number in zip(taken.images, [k * 50 // 9 for k in range(9)], strict=True):
        np.testing.assert_array_equal(image, plain[number])


@pytest.mark.parametrize("name", ["b-frames.mp4", "open-groups.mp4", "stampless.h264", "plain.avi"])
def test_packets_too_many_to_keep_are_read_again(videos, monkeypatch, name: str) -> None:
    for options in ({}, {"start_s": 1.3}):
        expected = sample_frames(videos(name), 7, **options)
        with monkeypatch.context() as patched:
            patched.setattr(frame_index, "KEPT_BYTES", 100)
            again = sample_frames(videos(name), 7, **options)
        assert again.status == "ok"
        np.testing.assert_array_equal(again.time_s, expected.time_s)
        np.testing.assert_array_equal(again.images, expected.images)


def counted(monkeypatch) -> list[int]:
    """Grows with every packet that is decoded, by the number of frames that come of it."""
    decoded: list[int] = []
    real = frame_decode.VideoDecoder._decode

    def decode(self, packet):
        frames_of_it = real(self, packet)
        decoded.append(len(frames_of_it))
        return frames_of_it

    monkeypatch.setattr(frame_decode.VideoDecoder, "_decode", decode)
    return decoded


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_no_other_needs_are_left_out(
    tmp_path, write_video, numbered, number_of, codec: str, monkeypatch
) -> None:
    options = X264 if codec == "libx264" else {"x265-params": "log-level=none:bframes=3:b-adapt=0"}
    path = write_video(
        tmp_path / "clip.mp4", numbered(50), codec=codec, options=options, key_frames=1000
    )
    decoded = counted(monkeypatch)
    # Not by the second way, which decodes everything.
    monkeypatch.delattr(frame_decode.VideoDecoder, "walk")
    taken = sample_frames(path, 5)
    assert [number_of(image) for image in taken.images] == [0, 10, 20, 30, 40]
    assert len(decoded) > 40
    assert sum(decoded) < 0.8 * len(decoded)


def test_groups_of_pictures_without_a_wanted_frame_are_not_decoded(
    tmp_path, write_video, numbered, number_of, monkeypatch
) -> None:
    path = write_video(tmp_path / "clip.mp4", numbered(50), codec="libx264", key_frames=5)
    packets = counted(monkeypatch)
    taken = sample_frames(path, 2)
    assert [number_of(image) for image in taken.images] == [0, 25]
    assert len(packets) <= 6


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory, write_video, numbered):
    """Two minutes of one frame a second with few or many key frames."""

    def make(key_frames: int) -> Path:
        folder = tmp_path_factory.mktemp("long")
        images = [image for image in numbered(50) for _ in range(3)][:120]
        return write_video(folder / "long.mp4", images, rate=1, key_frames=key_frames)

    return make


def test_over_wide_gaps_frames_are_sought(long_video, number_of, monkeypatch) -> None:
    packets = counted(monkeypatch)
    taken = sample_frames(long_video(5), 4)
    assert (taken.status, taken.reason) == ("ok", "")
    assert taken.time_s.tolist() == [0.0, 30.0, 60.0, 90.0]
    assert [number_of(image) for image in taken.images] == [0, 10, 20, 30]
    assert len(packets) < 40
    packets.clear()
    inside = sample_frames(long_video(5), 3, start_s=33.0, end_s=110.5)
    np.testing.assert_allclose(inside.time_s, [33.0, 58.0, 84.0])
    assert len(packets) < 40


def test_seeking_ends_where_it_only_leads_back(long_video, number_of, monkeypatch) -> None:
    """With a single key frame every seek would decode all frames before once more."""
    packets = counted(monkeypatch)
    taken = sample_frames(long_video(1000), 6)
    assert taken.time_s.tolist() == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    assert [number_of(image) for image in taken.images] == [0, 6, 13, 20, 26, 33]
    assert len(packets) < 150


def test_seeking_and_one_pass_take_the_same_frames(long_video, monkeypatch) -> None:
    path = long_video(5)
    sought = sample_frames(path, 7, start_s=3.3)
    monkeypatch.setattr(frames, "SEEK_GAP_S", 1e9)
    at_once = sample_frames(path, 7, start_s=3.3)
    np.testing.assert_array_equal(sought.time_s, at_once.time_s)
    np.testing.assert_array_equal(sought.images, at_once.images)


def test_uneven_frames_are_sampled_by_time(tmp_path, write_video, numbered, number_of) -> None:
    stamps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30, 40, 49]
    path = write_video(tmp_path / "uneven.mkv", numbered(14), rate=10, stamps=stamps)
    taken = sample_frames(path, 5)
    np.testing.assert_allclose(taken.time_s, [0.0, 0.9, 2.0, 3.0, 4.0], atol=2e-3)
    assert [number_of(image) for image in taken.images] == [0, 9, 10, 11, 12]


def test_larger_frames_are_reduced_and_smaller_ones_left(videos) -> None:
    path = videos("plain.mp4")
    assert {i.shape for i in sample_frames(path, 3, size=32).images} == {(24, 32, 3)}
    assert {i.shape for i in sample_frames(path, 3, size=640).images} == {(48, 64, 3)}


def quarters() -> np.ndarray:
    """A picture that looks different however it is turned: `[48, 64, 3]`."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = 250, 120, 60
    return image


def levels(image: np.ndarray) -> list[int]:
    """Grey of the four quarters, in steps of 10."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    parts = image[:height, :width], image[:height, width:], image[height:, :width]
    return [round(float(part[4:-4, 4:-4].mean()) / 10) for part in (*parts, image[height:, width:])]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
def test_frames_are_turned_as_they_are_shown(
    tmp_path, write_video, degrees: int, mirrored: bool, flipped: bool
) -> None:
    """The container's matrix: counterclockwise degrees, then a mirror image."""
    path = write_video(
        tmp_path / "turned.mp4", [quarters()] * 3, turned=(degrees, mirrored, flipped)
    )
    expected = np.rot90(quarters(), degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    expected = expected[::-1] if flipped else expected
    image = sample_frames(path, 1).images[0]
    assert image.shape == expected.shape
    assert levels(image) == levels(expected)
    video = probe(path).video
    assert (video.height, video.width) == expected.shape[:2]
    if mirrored == flipped:
        assert video.rotation == (-degrees + (180 if mirrored else 0)) % 360


def photo(path: Path, image: np.ndarray, exif_orientation: int | None = None) -> Path:
    """A JPEG, with an orientation as cameras write it."""
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuvj444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    if exif_orientation:
        entry = struct.pack("<HHIHH", 0x0112, 3, 1, exif_orientation, 0)
        tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
        exif = b"Exif\0\0" + tiff
        data = path.read_bytes()
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        path.write_bytes(data[:2] + segment + data[2:])
    return path


@pytest.mark.parametrize(
    ("exif_orientation", "degrees"), [(None, 0), (1, 0), (3, 180), (6, -90), (8, 90)]
)
def test_a_photo_is_one_frame_as_shown(
    tmp_path, exif_orientation: int | None, degrees: int
) -> None:
    path = photo(tmp_path / "photo.jpg", quarters(), exif_orientation)
    taken = sample_frames(path, 30)
    expected = np.rot90(quarters(), degrees // 90)
    assert (taken.status, len(taken.images), taken.time_s.tolist()) == ("ok", 1, [0.0])
    assert levels(taken.images[0]) == levels(expected)
    info = probe(path)
    assert info.is_image
    assert (info.duration_s, info.audio, info.video.frames) == (None, (), 1)
    assert (info.video.width, info.video.height) == expected.shape[1::-1]


def test_cover_art_is_no_video(tmp_path, write_audio, voice) -> None:
    art = photo(tmp_path / "art.jpg", quarters()).read_bytes()
    path = write_audio(tmp_path / "song.flac", voice(1, 16_000), 16_000, "flac")
    data = path.read_bytes()
    fields = (3, 10, b"image/jpeg", 0, b"", 64, 48, 24, 0, len(art))
    block = struct.pack(">II10sI0sIIIII", *fields) + art
    header = bytes([6]) + struct.pack(">I", len(block))[1:]
    end_of_first = 4 + 4 + 34
    path.write_bytes(data[:end_of_first] + header + block + data[end_of_first:])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert probe(path).video is None
    assert sample_frames(path, 3).status == "no_video"


def test_a_segment_beyond_the_end_is_too_short(videos) -> None:
    taken = sample_frames(videos("plain.mp4"), 3, start_s=5.0)
    assert (taken.status, taken.images) == ("too_short", [])
    assert taken.reason == "the segment starts at 5.000 s, the video ends at 2.000 s"
    assert sample_frames(videos("plain.mp4"), 3, start_s=1.0, end_s=1.0).status == "too_short"


def test_a_segment_that_outlasts_the_video_is_partial(videos) -> None:
    taken = sample_frames(videos("plain.mp4"), 3, start_s=1.0, end_s=4.0)
    assert (taken.status, len(taken.images)) == ("partial", 3)
    assert "the video ends at 2.00 s" in taken.reason


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_cut_video_gives_what_it_has(tmp_path, write_video, number_of, numbered, codec) -> None:
    path = write_video(
        tmp_path / "cut.mp4",
        numbered(50),
        codec=codec,
        key_frames=5,
        container_options={"movflags": "faststart"},
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    taken = sample_frames(path, 5)
    assert taken.status == "partial"
    assert "the file declares 2.00 s" in taken.reason
    numbers = [number_of(image) for image in taken.images]
    assert numbers == sorted(set(numbers))
    assert 4 <= len(numbers) <= 5
    np.testing.assert_allclose(taken.time_s, np.array(numbers) / 25, atol=2e-3)


@pytest.mark.parametrize(("count", "size"), [(0, None), (-1, None), (3, 0)])
def test_impossible_wishes_are_the_callers_mistake(videos, count: int, size: int | None) -> None:
    with pytest.raises(ValueError, match="cannot be taken"):
        sample_frames(videos("plain.mp4"), count, size=size)
