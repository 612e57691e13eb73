"""Resampling keeps speech, lets nothing fold back into it, and keeps its place in time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mepr_shared.media.audio_frames import Placed
from mepr_shared.media.resample import to_grid
from mepr_shared.media.waveform import RATE, read_waveform

# Filters settle within this much at both ends.
EDGE = RATE // 20


def tone(rate: int, hertz: float) -> np.ndarray:
    """One second of half of full scale, `[rate]`."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)


def written_and_read(path: Path, samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples written at a rate in float, as they are read at ours."""
    soundfile.write(path, samples, rate, subtype="FLOAT")
    read = read_waveform(path)
    assert (read.status, len(read.samples)) == ("ok", round(len(samples) / rate * RATE))
    return read.samples


def decibels(error: np.ndarray) -> float:
    """The peak of `error` away from its ends, relative to a tone's."""
    return 20 * float(np.log10(max(np.abs(error[EDGE:-EDGE]).max(), 1e-9) / 0.5))


# 44,056 Hz (video) shares few divisors with 16,000.
RATES = [8_000, 11_025, 22_050, 24_000, 44_056, 44_100, 48_000, 96_000]
HELD = [
    (rate, hertz)
    for rate in RATES
    for hertz in (100, 1_000, 3_000, 5_000, 6_500)
    if hertz < 0.45 * rate
]


@pytest.mark.parametrize(("rate", "hertz"), HELD)
def test_speech_keeps_its_wave(tmp_path, rate: int, hertz: int) -> None:
    samples = written_and_read(tmp_path / "tone.wav", tone(rate, hertz), rate)
    assert decibels(samples - tone(RATE, hertz)) < -80


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [8_600, 9_050, 9_500, 10_900, 12_000, 15_000, 20_000])
def test_what_is_too_high_leaves_no_alias(tmp_path, rate: int, hertz: int) -> None:
    # A low tone goes before it: a file without any sound left would count as silent.
    both = np.concatenate([tone(rate, 200), tone(rate, hertz)])
    samples = written_and_read(tmp_path / "tone.wav", both, rate)
    assert decibels(samples[RATE:]) < -80


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_equal_channels_mix_to_themselves(tmp_path, rate: int) -> None:
    """A mix must not be louder than its channels, or full scale would be exceeded."""
    path = tmp_path / "mix.wav"
    mono = 0.9 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    soundfile.write(path, mono, rate, subtype="FLOAT")
    alone = read_waveform(path).samples
    for channels in (2, 6, 8):
        soundfile.write(path, np.stack([mono] * channels, axis=1), rate, subtype="FLOAT")
        mixed = read_waveform(path).samples
        np.testing.assert_allclose(mixed, alone, atol=2e-6)


def test_both_channels_of_stereo_are_heard_alike(tmp_path) -> None:
    path = tmp_path / "stereo.wav"
    left, right = np.zeros(RATE), np.full(RATE, 0.5)
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_waveform(path).samples, 0.25, atol=1e-6)


@pytest.mark.parametrize("channels", [10, 16])
def test_more_channels_than_a_layout_has_names_for_are_read(tmp_path, channels: int) -> None:
    sound = np.stack([tone(RATE, 300)] * channels, axis=1)
    samples = written_and_read(tmp_path / "array.wav", sound, RATE)
    assert 0.1 < np.abs(samples).max() <= 0.51


def placed(
    samples: np.ndarray, position: int | None, rate: int = RATE, after_damage: bool = False
) -> Placed:
    frame = av.AudioFrame.from_ndarray(np.float32(samples)[None], format="flt", layout="mono")
    frame.sample_rate = rate
    return Placed(frame, position, after_damage)


def layout(frames: list[Placed], **options: float) -> list[tuple[int, int]]:
    """Begin and end of every stretch of samples that `to_grid` gives."""
    stretches: list[list[int]] = []
    for index, samples in to_grid(frames, RATE, **options):
        if stretches and stretches[-1][1] == index:
            stretches[-1][1] += len(samples)
        else:
            stretches.append([index, index + len(samples)])
    return [(begin, end) for begin, end in stretches]


ONES = np.ones(1600)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0, 1600, 3200], [(0, 4800)]),
        ([None, None, None], [(0, 4800)]),
        ([800, 2400, 4000], [(800, 5600)]),
        ([-800, 800, 2400], [(-800, 4000)]),
        # Stamps in whole milliseconds, or of a live stream.
        ([0, 1616, 3190], [(0, 4800)]),
        ([0, 1600, 4000], [(0, 4800)]),
        # A pause, and one before which stamps are missing.
        ([0, 1600, 4800], [(0, 3200), (4800, 6400)]),
        ([0, None, 4800], [(0, 3200), (4800, 6400)]),
        # Broken stamps: back, beyond the end, years ahead.
        ([0, 1600, 0], [(0, 4800)]),
        ([0, 1600, 10 * RATE], [(0, 4800)]),
        ([10**12, 10**12 + 1600, 10**12 + 3200], [(0, 4800)]),
    ],
)
def test_frames_lie_where_their_stamps_say_if_these_can_be_true(positions, expected) -> None:
    frames = [placed(ONES, position) for position in positions]
    assert layout(frames, limit_s=5.0) == expected


def test_after_damage_even_a_short_gap_is_kept() -> None:
    frames = [placed(ONES, 0), placed(ONES, 2000, after_damage=True), placed(ONES, 3700)]
    assert layout(frames) == [(0, 1600), (2000, 5200)]


def test_a_stream_may_change_its_rate() -> None:
    frames = [placed(ONES, 0), placed(np.ones(4800), 4800, rate=48_000), placed(ONES, 3200)]
    assert layout(frames) == [(0, 4800)]
    levels = np.concatenate([samples for _, samples in to_grid(frames, RATE)])
    np.testing.assert_allclose(levels[200:-200], 1, atol=0.2)


@pytest.mark.parametrize("rate", [44_100, 44_056])
def test_where_reading_begins_does_not_move_the_grid(rate: int) -> None:
    sound = np.sin(np.arange(rate) * 0.05)
    blocks = [sound[start : start + 1000] for start in range(0, rate, 1000)]
    starts = range(0, rate, 1000)
    frames = [placed(b, s, rate) for b, s in zip(blocks, starts, strict=True)]
    whole = np.concatenate([samples for _, samples in to_grid(frames, RATE)])
    for skipped in (1, 7, 20):
        found = list(to_grid(frames[skipped:], RATE))
        index = found[0][0]
        assert index == -(-skipped * 1000 * RATE // rate)
        part = np.concatenate([samples for _, samples in found])
        np.testing.assert_allclose(part[200:], whole[index + 200 :], atol=1e-6)
