"""What a file is said to hold is what was put into it."""

from __future__ import annotations

import av
import numpy as np
import pytest

from mepr_shared.media.probe import probe


@pytest.fixture
def clip(tmp_path):
    """Video of 2 s and, from 0.5 s on, sound in two channels of 1 s."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8_000, layout="stereo")
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.full((1, 2 * 8_000), 1000, np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        sound.sample_rate, sound.pts = 8_000, 4_000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def test_streams_and_times(clip) -> None:
    info = probe(clip)
    assert info.duration_s == pytest.approx(2.0, abs=0.01)
    assert not info.is_image
    (audio,) = info.audio
    assert (audio.index, audio.codec, audio.rate, audio.channels) == (1, "pcm_s16le", 8_000, 2)
    assert audio.start_s == pytest.approx(0.5)
    video = info.video
    assert (video.codec, video.width, video.height) == ("mpeg4", 64, 32)
    assert (video.rotation, video.frame_rate, video.start_s) == (0, 10.0, 0.0)


def test_sound_alone(tmp_path, write_audio, voice) -> None:
    info = probe(write_audio(tmp_path / "voice.flac", voice(1.5, 22_050), 22_050, "flac"))
    assert (info.duration_s, info.video) == (1.5, None)
    (audio,) = info.audio
    assert (audio.codec, audio.rate, audio.start_s, audio.duration_s) == ("flac", 22_050, 0.0, 1.5)


def test_video_alone_counts_its_frames(tmp_path, write_video, numbered) -> None:
    info = probe(write_video(tmp_path / "mute.mp4", numbered(20)))
    assert info.audio == ()
    assert (info.video.frames, info.video.duration_s, info.duration_s) == (20, 0.8, 0.8)
