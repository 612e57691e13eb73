"""Sound comes out as it went in: whole, in segments and in chunks."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io.wavfile
import soundfile

from mepr_shared.media.waveform import RATE, read_waveform, stream_waveform


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_wav_of_our_rate_is_exactly_what_soundfile_reads(tmp_path, voice, subtype: str) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(1.3, RATE), RATE, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32")
    read = read_waveform(path)
    assert (read.status, read.reason, read.rate) == ("ok", "", RATE)
    assert read.samples.dtype == np.float32
    np.testing.assert_array_equal(read.samples, expected)


def test_a_wav_of_scipy_is_read_exactly(tmp_path, voice) -> None:
    path = tmp_path / "voice.wav"
    samples = np.round(voice(1, RATE) * 32767).astype(np.int16)
    scipy.io.wavfile.write(path, RATE, samples)
    np.testing.assert_array_equal(read_waveform(path).samples, samples / np.float32(32768))


def test_the_given_samples_are_the_callers_own(tmp_path, voice) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(1, RATE), RATE, subtype="FLOAT")
    samples = read_waveform(path).samples
    before = samples.copy()
    samples += 1
    np.testing.assert_array_equal(read_waveform(path).samples, before)


SEGMENTS = [(0.0, 0.5), (0.25, None), (1.0, 2.0), (3.7123, 4.4), (5.5, None), (2.0, 2.001)]


@pytest.mark.parametrize(("start_s", "end_s"), SEGMENTS)
@pytest.mark.parametrize("source_rate", [16_000, 8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_segment_is_that_slice_of_the_whole(
    tmp_path, voice, suffix: str, source_rate: int, start_s: float, end_s: float | None
) -> None:
    path = tmp_path / f"voice.{suffix}"
    soundfile.write(path, voice(6, source_rate), source_rate, subtype="PCM_16")
    whole = read_waveform(path).samples
    assert len(whole) == 6 * RATE
    segment = read_waveform(path, start_s=start_s, end_s=end_s)
    assert (segment.status, segment.reason) == ("ok", "")
    end = None if end_s is None else round(end_s * RATE)
    np.testing.assert_array_equal(segment.samples, whole[round(start_s * RATE) : end])


def lag(sound: np.ndarray, reference: np.ndarray) -> int:
    """By how many samples a sound is later than a reference of the same length."""
    size = 2 * len(sound)
    spectrum = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(reference, size))
    best = int(np.argmax(np.fft.irfft(spectrum)))
    return best if best < len(sound) else best - size


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [
        ("voice.m4a", "aac", 0),
        ("voice.mp3", "libmp3lame", 0),
        ("voice.ogg", "libopus", 0),
        ("voice.ts", "aac", 0),
        ("voice.aac", "aac", 0),
        # Matroska rounds every time stamp to a millisecond.
        ("voice.mka", "aac", 16),
        ("voice.webm", "libopus", 16),
    ],
)
def test_a_segment_of_a_lossy_file_is_that_slice_of_the_whole(
    tmp_path, voice, write_audio, name: str, codec: str, tolerance: int
) -> None:
    rate = 48_000 if codec == "libopus" else 44_100
    path = write_audio(tmp_path / name, voice(8, rate), rate, codec, bit_rate=64_000)
    whole = read_waveform(path).samples
    segment = read_waveform(path, start_s=5.3, end_s=6.8)
    assert (segment.status, segment.reason) == ("ok", "")
    expected = whole[round(5.3 * RATE) : round(6.8 * RATE)]
    assert len(segment.samples) == len(expected)
    shift = lag(segment.samples, expected)
    assert abs(shift) <= tolerance
    rest = np.roll(segment.samples, -shift)[100:-100] - expected[100:-100]
    assert np.abs(rest).max() < (0.1 if tolerance else 1e-3)


@pytest.mark.parametrize(
    ("name", "codec"), [("voice.m4a", "aac"), ("voice.mp3", "libmp3lame"), ("voice.ogg", "libopus")]
)
def test_encoder_delay_does_not_shift_the_sound(
    tmp_path, voice, write_audio, name: str, codec: str
) -> None:
    path = write_audio(tmp_path / name, voice(3, 48_000), 48_000, codec, bit_rate=96_000)
    decoded = read_waveform(path).samples[: 2 * RATE]
    expected = voice(3, 48_000)[::3][: 2 * RATE]
    assert abs(lag(decoded, expected)) <= 1
    assert np.corrcoef(decoded, expected)[0, 1] > 0.98


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("source_rate", [16_000, 44_100])
def test_chunks_joined_are_what_is_read_at_once(
    tmp_path, voice, suffix: str, source_rate: int
) -> None:
    path = tmp_path / f"voice.{suffix}"
    soundfile.write(path, voice(7.35, source_rate), source_rate)
    for start_s, end_s in [(None, None), (1.9, 6.1)]:
        stream = stream_waveform(path, start_s=start_s, end_s=end_s, chunk_s=0.73)
        chunks = list(stream)
        size = round(0.73 * RATE)
        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        assert 0 < len(chunks[-1]) <= size
        assert stream.problem == ""
        whole = read_waveform(path, start_s=start_s, end_s=end_s).samples
        np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_neighbouring_segments_share_no_sample_and_leave_none_out(tmp_path, voice) -> None:
    path = tmp_path / "voice.flac"
    soundfile.write(path, voice(5, 44_100), 44_100)
    borders = [0.0, 1.23456, 2.00003, 3.33333, None]
    parts = [
        read_waveform(path, start_s=start, end_s=end).samples
        for start, end in itertools.pairwise(borders)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), read_waveform(path).samples)


def test_any_rate_can_be_asked_for(tmp_path) -> None:
    path = tmp_path / "tone.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    soundfile.write(path, tone, 48_000, subtype="FLOAT")
    read = read_waveform(path, rate=24_000)
    assert (read.rate, len(read.samples), read.duration_s) == (24_000, 24_000, 1.0)
    assert np.abs(read.samples - tone[::2])[600:-600].max() < 1e-4


def test_a_negative_start_is_the_start(tmp_path, voice) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(1, RATE), RATE)
    read = read_waveform(path, start_s=-3.0, end_s=0.5)
    np.testing.assert_array_equal(read.samples, read_waveform(path).samples[:8000])


def test_longest_cuts_and_says_so(tmp_path, voice) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(3, RATE), RATE)
    whole = read_waveform(path).samples
    cut = read_waveform(path, start_s=0.5, longest_s=1.25)
    assert (cut.status, cut.reason) == ("partial", "only the first 1.25 s are read")
    np.testing.assert_array_equal(cut.samples, whole[8000:28000])
    soundfile.write(path, np.concatenate([np.zeros(2 * RATE), whole]), RATE)
    assert read_waveform(path, longest_s=1.0).status == "partial"  # and not silent: there is more
    exact = read_waveform(path, longest_s=5.0)
    assert (exact.status, len(exact.samples)) == ("ok", 5 * RATE)


def test_audio_that_begins_later_than_the_video_begins_with_silence(tmp_path, write_audio) -> None:
    """Sample i is the sound at i / rate, whatever stream begins first."""
    path = tmp_path / "late.mkv"
    rate = 16_000
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(
            np.full((1, rate), 8192, np.int16), format="s16", layout="mono"
        )
        sound.sample_rate, sound.pts = rate, round(1.5 * rate)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    read = read_waveform(path)
    assert read.status == "ok"
    assert len(read.samples) == round(2.5 * rate)
    assert not read.samples[:24_000].any()
    assert (read.samples[24_000:] == 0.25).all()
    late = read_waveform(path, start_s=1.25, end_s=1.75).samples
    np.testing.assert_array_equal(late, np.repeat(np.float32([0, 0.25]), 4000))


def test_a_pause_in_the_time_stamps_is_silence(tmp_path) -> None:
    path = tmp_path / "pause.mka"
    rate = 16_000
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for position in (0, 8_000, 40_000):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 8_000), 8192, np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = rate, position
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    read = read_waveform(path)
    assert (read.status, read.reason) == ("partial", "nothing is stored from 1.00 to 2.50 s")
    assert len(read.samples) == 48_000
    assert (read.samples[:16_000] == 0.25).all()
    assert not read.samples[16_000:40_000].any()
    assert (read.samples[40_000:] == 0.25).all()
    # A segment inside of the pause has no sound, and one across its end has some.
    assert read_waveform(path, start_s=1.5, end_s=2.0).status == "no_audio"
    across = read_waveform(path, start_s=2.25, end_s=2.75).samples
    np.testing.assert_array_equal(across, np.repeat(np.float32([0, 0.25]), 4000))


def test_files_without_time_stamps_are_read_by_counting(
    tmp_path: Path, voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mepr_shared.media import audio_frames

    path = tmp_path / "voice.flac"
    soundfile.write(path, voice(4, RATE), RATE)
    whole = read_waveform(path).samples
    monkeypatch.setattr(audio_frames.AudioFrames, "_seconds", lambda self, stamp: None)
    np.testing.assert_array_equal(read_waveform(path).samples, whole)
    segment = read_waveform(path, start_s=2.0, end_s=3.0).samples
    np.testing.assert_array_equal(segment, whole[2 * RATE : 3 * RATE])


def test_a_stream_can_be_left_before_its_end(tmp_path, voice) -> None:
    path = tmp_path / "voice.flac"
    soundfile.write(path, voice(4, RATE), RATE)
    stream = stream_waveform(path, chunk_s=1.0)
    assert len(next(iter(stream))) == RATE
    stream.close()
    assert list(stream) == []
    assert stream.problem == ""


def test_a_chunk_must_hold_a_sample(tmp_path, voice) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(1, RATE), RATE)
    with pytest.raises(ValueError, match="holds no sample"):
        stream_waveform(path, chunk_s=0.0)
