"""Every bad file ends in a status with its reason: never an exception, a hang or a guess."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mepr_shared.contract.statuses import STATUSES
from mepr_shared.media.frames import sample_frames
from mepr_shared.media.probe import probe
from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.waveform import RATE, read_waveform, stream_waveform

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)).astype(np.float32)


def checked(status: str, reason: str, path: Path) -> tuple[str, str]:
    """A status of the contract and a reason for people, without the path."""
    assert status in STATUSES
    assert reason
    assert reason == " ".join(reason.split())
    assert path.name not in reason
    return status, reason


def sound(path: Path, **options: float) -> tuple[str, str]:
    read = read_waveform(path, **options)
    assert (read.samples is None) == (read.status not in ("ok", "partial"))
    return checked(read.status, read.reason, path)


def pictures(path: Path, **options: float) -> tuple[str, str]:
    frames = sample_frames(path, 3, **options)
    assert (len(frames.images) == 0) == (frames.status not in ("ok", "partial"))
    assert len(frames.time_s) == len(frames.images)
    return checked(frames.status, frames.reason, path)


def looked_at(path: Path) -> tuple[str, str]:
    with pytest.raises(MediaProblem) as caught:
        probe(path)
    return checked(caught.value.status, caught.value.reason, path)


def streamed(path: Path) -> tuple[str, str]:
    with pytest.raises(MediaProblem) as caught:
        stream_waveform(path)
    return checked(caught.value.status, caught.value.reason, path)


def missing(path: Path) -> str:
    return "No such file"


def folder(path: Path) -> str:
    path.mkdir()
    return "folder"


def loop(path: Path) -> str:
    path.symlink_to(path)
    return "symbolic links"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "no regular file"


def device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "no regular file"


ALL = [sound, pictures, looked_at, streamed]


@pytest.mark.parametrize("make", [missing, folder, loop, pipe, device])
@pytest.mark.parametrize("use", ALL)
def test_what_is_no_readable_file_is_no_media(tmp_path: Path, make, use) -> None:
    path = tmp_path / "clip.mp4"
    words = make(path)
    status, reason = use(path)
    assert status == "no_media"
    assert words in reason


@pytest.mark.parametrize("use", ALL)
def test_a_file_that_may_not_be_read_is_no_media(tmp_path: Path, use, monkeypatch) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, TONE, RATE)
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root
        real = os.open

        def refuse(name, *arguments, **options):
            if name == path:
                raise PermissionError(13, os.strerror(13), str(name))
            return real(name, *arguments, **options)

        monkeypatch.setattr(os, "open", refuse)
    status, reason = use(path)
    assert (status, "Permission denied" in reason) == ("no_media", True)


@pytest.mark.parametrize("name", ["a\0b.wav", "x" * 5000 + ".wav"])
def test_impossible_names_are_no_media(name: str) -> None:
    assert read_waveform(name).status == "no_media"


@pytest.mark.parametrize(
    "name",
    ["http://127.0.0.1:9/a.wav", "concat:a.wav|b.wav", "file:clip.wav", "pipe:0", "fd:0", "-"],
)
def test_a_name_is_never_an_address(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", TONE, RATE)
    assert read_waveform(name).status == "no_media"
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    os.replace("clip.wav", name)
    assert read_waveform(name).status == "ok"


@pytest.mark.parametrize(
    "name", ["two words.wav", "zażółć 声.wav", "two\nlines.wav", "-i.wav", "%d"]
)
def test_any_name_can_be_read(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write(name, TONE, RATE, format="WAV")
    for path in (name, tmp_path / name):
        assert read_waveform(path).status == "ok"
        assert probe(path).duration_s == 4.0


def test_a_name_that_is_not_unicode_can_be_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
    soundfile.write(tmp_path / "clip.wav", TONE, RATE)
    os.rename(tmp_path / "clip.wav", path)
    assert read_waveform(path).status == "ok"


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{secret}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {secret}\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{secret}</BaseURL><SegmentBase/>"
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("target", ["clip.wav", "file:clip.wav", "http://127.0.0.1:9/clip.wav"])
@pytest.mark.parametrize("suffix", ["", ".wav", ".mp4"])
def test_a_playlist_is_refused_and_what_it_names_not_opened(
    tmp_path: Path, name: str, target: str, suffix: str, monkeypatch
) -> None:
    """FFmpeg left to itself reads the file that such a list names, or waits for the network."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", TONE, RATE)
    path = tmp_path / f"{name}{suffix}"
    path.write_text(PLAYLISTS[name].format(secret=target))
    assert sound(path)[0] == "decode_error"
    assert pictures(path)[0] == "decode_error"


@pytest.mark.parametrize("use", ALL)
@pytest.mark.parametrize("content", [b"", b"Hello, this is text.\n" * 50, bytes(5000), b"RIFF"])
def test_what_holds_no_media_is_a_decode_error(tmp_path: Path, use, content: bytes) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    status, reason = use(path)
    assert status == "decode_error"
    assert ("empty" in reason) == (not content)


def test_video_without_sound_has_no_audio(tmp_path: Path, write_video, numbered) -> None:
    path = write_video(tmp_path / "mute.mp4", numbered(5))
    assert sound(path)[0] == streamed(path)[0] == "no_audio"


def test_sound_without_video_has_no_video(tmp_path: Path, write_audio) -> None:
    path = write_audio(tmp_path / "clip.m4a", TONE, RATE, "aac")
    assert pictures(path)[0] == "no_video"
    assert probe(path).video is None


def test_a_picture_has_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(png(30, 20))
    assert sound(path)[0] == "no_audio"


def test_silence_is_no_audio(tmp_path: Path, write_audio) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    status, reason = sound(path)
    assert status == "no_audio"
    assert "the audio is silent" in reason
    assert sound(write_audio(tmp_path / "silent.m4a", np.zeros(RATE), RATE, "aac"))[0] == "no_audio"
    soundfile.write(path, np.full(RATE, 1 / 32768), RATE, subtype="PCM_16")
    assert read_waveform(path).status == "ok"


def test_a_clip_below_the_shortest_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, TONE[:800], RATE)
    assert read_waveform(path).status == "ok"
    assert sound(path, shortest_s=0.4) == ("too_short", "0.050 s of audio, 0.400 s are needed")
    assert read_waveform(path, shortest_s=0.05).status == "ok"


@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_next_to_nothing_is_too_short(tmp_path: Path, samples: int, rate: int) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, TONE[100 : 100 + samples], rate)
    assert sound(path, shortest_s=0.01)[0] == "too_short"


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "m4a"])
@pytest.mark.parametrize("start_s", [4.5, 30.0, 1e9])
def test_a_start_beyond_the_end_is_too_short(
    tmp_path: Path, write_audio, suffix: str, start_s: float
) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "m4a": "aac"}[suffix]
    path = write_audio(tmp_path / f"clip.{suffix}", TONE, RATE, codec)
    status, reason = sound(path, start_s=start_s)
    assert status == "too_short"
    assert f"{start_s:.3f} s" in reason
    assert "ends at 4.0" in reason


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(1.0, 1.0), (2.0, 1.0), (None, 0.0), (-3.0, -1.0), (1.0, 1.00001), (float("nan"), None)],
)
def test_a_segment_without_length_is_too_short(tmp_path: Path, start_s, end_s) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, TONE, RATE)
    assert sound(path, start_s=start_s, end_s=end_s)[0] == "too_short"


def test_a_segment_that_outlasts_the_sound_is_partial(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, TONE, RATE)
    status, reason = sound(path, start_s=3.0, end_s=6.0)
    assert (status, reason) == (
        "partial",
        "the audio ends at 4.00 s, before the segment's end at 6.00 s",
    )
    assert len(read_waveform(path, start_s=3.0, end_s=6.0).samples) == RATE
    # Labels are often some milliseconds longer than the file.
    assert read_waveform(path, end_s=4.05).status == "ok"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_become_zero(
    tmp_path: Path, bad: float, rate: int, subtype: str
) -> None:
    path = tmp_path / "clip.wav"
    clean = np.tile(TONE, 3)[: 2 * rate].astype(np.float64)
    clean[rate : rate + 3] = 0
    soundfile.write(path, clean, rate, subtype=subtype)
    expected = read_waveform(path).samples
    spoiled = clean.copy()
    spoiled[rate : rate + 3] = bad
    soundfile.write(path, spoiled, rate, subtype=subtype)
    status, reason = sound(path)
    assert (status, reason) == ("partial", "3 samples were not finite and are set to 0")
    np.testing.assert_array_equal(read_waveform(path).samples, expected)
    stream = stream_waveform(path, chunk_s=0.3)
    assert all(np.isfinite(chunk).all() for chunk in stream)
    assert "3 samples" in stream.problem
    # Far from the segment they are not its problem.
    assert read_waveform(path, end_s=0.4).status == "ok"


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_nothing_but_such_samples_is_a_decode_error(tmp_path: Path, value: float) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.full(RATE, value), RATE, subtype="DOUBLE")
    assert sound(path)[0] == "decode_error"


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_an_mp4_without_its_index_is_a_decode_error(tmp_path: Path, write_audio) -> None:
    path = cut(write_audio(tmp_path / "clip.m4a", TONE, RATE, "aac"), 0.7)
    for use in ALL:
        assert use(path)[0] == "decode_error"


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.flac", "flac"), ("a.wav", "pcm_s16le"), ("a.mka", "aac")],
)
def test_a_cut_file_gives_what_it_has_and_says_where_it_stops(
    tmp_path: Path, write_audio, name: str, codec: str
) -> None:
    options = {"movflags": "faststart"} if name.endswith("m4a") else {}
    path = write_audio(tmp_path / name, TONE, RATE, codec, block=1024, options=options)
    whole = read_waveform(path).samples
    status, reason = sound(cut(path, 0.6))
    assert status == "partial"
    part = read_waveform(path).samples
    seconds = len(part) / RATE
    assert 1.0 < seconds < 3.5
    assert f"the audio stops at {seconds:.2f} s, the file declares 4.0" in reason
    assert np.abs(part - whole[: len(part)])[: -RATE // 10].max() < 1e-6
    # What lies before the cut is whole, and behind it there is nothing.
    assert read_waveform(path, end_s=seconds - 0.2).status == "ok"
    assert sound(path, start_s=3.6)[0] == "decode_error"


def test_damage_in_the_middle_is_silence_and_the_rest_keeps_its_time(
    tmp_path: Path, write_audio, voice
) -> None:
    path = write_audio(tmp_path / "clip.flac", voice(4, RATE), RATE, "flac")
    whole = read_waveform(path).samples
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    status, reason = sound(path)
    assert status == "partial"
    assert reason.startswith(("damaged ", "nothing is stored from "))
    part = read_waveform(path).samples
    assert len(part) == len(whole)
    np.testing.assert_array_equal(part[:RATE], whole[:RATE])
    np.testing.assert_array_equal(part[3 * RATE :], whole[3 * RATE :])


def test_tags_in_an_old_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, TONE, RATE)
    data = path.read_bytes()
    text = b"IART" + struct.pack("<I", 4) + b"\xe9\xff\xfe\0"
    data += b"LIST" + struct.pack("<I", 4 + len(text)) + b"INFO" + text
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert read_waveform(path).status == "ok"


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel: 150 MB are 50 kB here."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    rows = io.BytesIO()
    for _ in range(height):
        rows.write(packer.compress(bytes(1 + (width + 7) // 8)))
    rows.write(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows.getvalue()), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(12_000, 10_000))
    for use in (pictures, looked_at):
        # Unreadable: FFmpeg has not even looked for its colours.
        assert use(path) == ("decode_error", "the picture is unreadable, or above 100 megapixels")
    path.write_bytes(png(3_000, 2_000))
    assert sample_frames(path, 1, size=30).images[0].shape == (20, 30, 3)


def test_ffmpeg_says_nothing_on_stderr(tmp_path: Path, write_audio) -> None:
    path = write_audio(tmp_path / "a.m4a", TONE, RATE, "aac", options={"movflags": "faststart"})
    cut(path, 0.6)
    code = (
        "import sys; from mepr_shared.media.waveform import read_waveform as read;"
        "from mepr_shared.media.frames import sample_frames;"
        "print(read(sys.argv[1]).status, sample_frames(sys.argv[1], 3).status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout.split(), done.stderr) == (["partial", "no_video"], "")
