"""The voice of the demo: pulses at the pitch asked for, through the resonators asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mepr_shared.corpora import demo_voice
from mepr_shared.corpora.demo_voice import BANDWIDTHS_HZ, HOP, RATE, Tracks, per_sample, synthesise

FRAMES = 100


def tracks(**values: float) -> Tracks:
    """A steady clear voice of 100 Hz, one second long."""
    steady = {"pitch_hz": 100, "voiced": 1, "noise": 0, "jitter": 0, "creak": 0, "tilt": 0}
    arrays = {name: np.full(FRAMES, float(v)) for name, v in {**steady, **values}.items()}
    formants = np.tile([500.0, 1500.0, 2500.0, 3500.0], (FRAMES, 1))
    return Tracks(**arrays, formants_hz=formants)


def sound(**values: float) -> np.ndarray:
    return synthesise(tracks(**values), np.random.RandomState(0))


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Power in dB at each Hz from 0."""
    return 10 * np.log10(np.abs(np.fft.rfft(samples, RATE)) ** 2 + 1e-9)


def harmonicity(samples: np.ndarray, hz: float) -> float:
    """Correlation of the sound with itself one period later."""
    lag = round(RATE / hz)
    return float(np.corrcoef(samples[lag:], samples[:-lag])[0, 1])


def test_the_filter_is_the_resonators_recursion() -> None:
    """Against Klatt 1980, equation 1, sample by sample: y = a x + b y(-1) + c y(-2)."""
    random = np.random.RandomState(1)
    excitation = random.standard_normal(30 * HOP)
    formants = np.array([500.0, 1500.0, 2500.0, 3500.0])
    expected = excitation
    for hz, bandwidth in zip(formants, BANDWIDTHS_HZ, strict=True):
        c = -np.exp(-2 * np.pi * bandwidth / RATE)
        b = 2 * np.exp(-np.pi * bandwidth / RATE) * np.cos(2 * np.pi * hz / RATE)
        y = [0.0, 0.0]
        for x in expected:
            y.append((1 - b - c) * x + b * y[-1] + c * y[-2])
        expected = np.array(y[2:])
    responses = demo_voice._responses(np.tile(formants, (30, 1)), np.zeros(30))
    found = demo_voice._filtered(excitation, responses)
    # What rings on for more than a frame is cut.
    error = np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())
    assert error < 0.02


@pytest.mark.parametrize("hz", [90.0, 160.0, 310.0])
def test_pulses_come_at_the_pitch(hz: float) -> None:
    power = spectrum(sound(pitch_hz=hz))
    harmonics = [power[round(k * hz)] for k in range(1, 5)]
    between = [power[round((k + 0.5) * hz)] for k in range(1, 5)]
    assert min(harmonics) > max(between) + 15


def test_pulses_have_unit_power() -> None:
    ones = np.ones(RATE)
    pulses = demo_voice._pulses(130 * ones, 0 * ones, 0 * ones, np.random.RandomState(0))
    assert np.mean(pulses**2) == pytest.approx(1, rel=0.02)
    assert np.mean(demo_voice.noise(RATE, np.random.RandomState(0)) ** 2) == pytest.approx(
        1, rel=0.05
    )


def test_jitter_breath_and_creak_blur_the_period() -> None:
    clear = harmonicity(sound(), 100)
    assert clear > 0.98
    for blurred in (sound(jitter=0.03), sound(noise=0.5), sound(creak=0.6)):
        assert harmonicity(blurred, 100) < clear - 0.05


def test_tilt_takes_the_high_notes() -> None:
    bright, dull = spectrum(sound(tilt=0)), spectrum(sound(tilt=6))
    assert dull[400] == pytest.approx(bright[400], abs=0.1)
    assert dull[1000] == pytest.approx(bright[1000] - 6, abs=0.5)
    assert dull[4000] == pytest.approx(bright[4000] - 18, abs=1.5)


def test_a_silent_voice_is_silent() -> None:
    assert not sound(voiced=0).any()


def test_tracks_are_joined_linearly() -> None:
    values = np.array([1.0, 3.0, 2.0])
    centres = (np.arange(3) + 0.5) * HOP
    np.testing.assert_allclose(
        per_sample(values), np.interp(np.arange(3 * HOP), centres, values), atol=1e-12
    )


def test_formants_move() -> None:
    low, high = tracks(), tracks()
    high = dataclasses.replace(high, formants_hz=high.formants_hz * [1.6, 1, 1, 1])
    moving = np.vstack([low.formants_hz[:50], high.formants_hz[50:]])
    found = synthesise(dataclasses.replace(low, formants_hz=moving), np.random.RandomState(0))
    for half, near, far in ((found[:7000], 500, 800), (found[9000:], 800, 500)):
        assert spectrum(half)[near] > spectrum(half)[far] + 6
