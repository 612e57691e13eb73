"""Real clips give what their manifest says; RAVDESS is read exactly."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mepr_shared.media.frames import sample_frames
from mepr_shared.media.probe import probe
from mepr_shared.media.waveform import RATE, read_waveform

NAMES = [
    "carphone_pristine.mp4",
    "face_noface.mov",
    "liveportrait_s13.mp4",
    "liveportrait_s18.mp4",
    "no_face.mp4",
    "obama_speech.mp4",
    "single_face.mp4",
]


def facts(clips: Path, name: str) -> dict[str, str]:
    with (clips / "manifest.csv").open(newline="") as file:
        return next(row for row in csv.DictReader(file) if row["file"] == name)


@pytest.mark.parametrize("name", NAMES)
def test_probe_agrees_with_the_manifest(clips: Path, name: str) -> None:
    expected, info = facts(clips, name), probe(clips / name)
    video = info.video
    assert (video.codec, video.rotation) == (expected["vcodec"], 0)
    assert (video.width, video.height) == (int(expected["width"]), int(expected["height"]))
    assert video.frame_rate == pytest.approx(float(expected["fps"]), abs=0.01)
    assert bool(info.audio) == (expected["has_audio"] == "True")
    if info.audio:
        assert info.audio[0].rate == int(expected["audio_rate"])
        assert info.audio[0].channels == int(expected["audio_channels"])
        longest = max(float(expected["video_duration_s"]), float(expected["audio_duration_s"]))
        assert info.duration_s == pytest.approx(longest, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_sound_agrees_with_the_manifest(clips: Path, name: str) -> None:
    expected, read = facts(clips, name), read_waveform(clips / name)
    if expected["has_audio"] != "True":
        assert (read.status, read.samples) == ("no_audio", None)
        return
    assert (read.status, read.reason) == ("ok", "")
    begin = round(probe(clips / name).audio[0].start_s * RATE)
    assert not read.samples[: max(0, begin - 1)].any()
    sound = read.samples[begin:]
    assert len(sound) / RATE == pytest.approx(float(expected["audio_duration_s"]), abs=0.01)
    level = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))
    assert level == pytest.approx(float(expected["audio_rms"]), rel=0.05, abs=1e-4)


def test_sound_that_begins_after_the_video_keeps_its_time(clips: Path) -> None:
    """The sound of this clip begins 2.43 s after its pictures."""
    path = clips / "face_noface.mov"
    assert probe(path).audio[0].start_s == pytest.approx(2.43, abs=0.001)
    whole = read_waveform(path).samples
    segment = read_waveform(path, start_s=2.0, end_s=5.0)
    assert segment.status == "ok"
    np.testing.assert_allclose(segment.samples, whole[2 * RATE : 5 * RATE], atol=1e-4)
    assert not segment.samples[: round(0.42 * RATE)].any()
    assert segment.samples[round(0.5 * RATE) :].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start_s", [0.0, 1.7])
def test_frames_are_those_of_a_plain_decode(clips: Path, name: str, start_s: float) -> None:
    taken = sample_frames(clips / name, 30, start_s=start_s)
    assert (taken.status, taken.reason) == ("ok", "")
    numbers, times_s = [], []
    with av.open(str(clips / name)) as container:
        origin = (container.start_time or 0) / 1e6
        for number, frame in enumerate(container.decode(video=0)):
            times_s.append(frame.time - origin)
            for match in np.flatnonzero(np.abs(taken.time_s - times_s[-1]) < 1e-4):
                np.testing.assert_array_equal(taken.images[match], frame.to_ndarray(format="rgb24"))
                numbers.append(number)
    assert len(times_s) == int(facts(clips, name)["n_frames_decoded"])
    first = int(np.flatnonzero(np.array(times_s) <= start_s)[-1])
    assert numbers[0] == first
    assert len(set(numbers)) == len(taken.images) == min(30, len(times_s) - first)


def test_a_photo_is_one_frame(clips: Path) -> None:
    taken = sample_frames(clips / "multi_face.jpg", 30, size=500)
    assert (taken.status, taken.time_s.tolist()) == ("ok", [0.0])
    info = probe(clips / "multi_face.jpg")
    assert taken.images[0].shape[1::-1] == (500, round(500 * info.video.height / info.video.width))


def test_ravdess_is_read_exactly(clips: Path) -> None:
    paths = sorted((clips.parent / "ravdess" / "flac").glob("*.flac"))[::100]
    assert paths
    for path in paths:
        expected, rate = soundfile.read(path, dtype="float32")
        read = read_waveform(path)
        assert (read.status, rate) == ("ok", RATE)
        np.testing.assert_array_equal(read.samples, expected)
