"""Resampling keeps speech, lets nothing fold back into it, and keeps its place in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

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
    (rate, hertz) for rate in RATES for hertz in (100, 1_000, 3_000, 5_000) if hertz < 0.45 * rate
]


@pytest.mark.parametrize(("rate", "hertz"), HELD)
def test_speech_keeps_its_wave(tmp_path, rate: int, hertz: int) -> None:
    samples = written_and_read(tmp_path / "tone.wav", tone(rate, hertz), rate)
    assert decibels(samples - tone(RATE, hertz)) < -80


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [9_050, 9_500, 10_900, 12_000, 15_000, 20_000])
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
