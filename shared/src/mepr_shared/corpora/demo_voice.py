"""A voice from tracks of pitch, loudness and formants: source and filter, in NumPy alone.

The source is a train of glottal pulses (Rosenberg 1971, pulse B; a period opens for 40 % and
closes for 16 % of its length) plus breath noise. The filter is a cascade of four formant resonators
(Klatt 1980, equations 1 and 2) that change every 10 ms; they are applied to overlapping frames in
the frequency domain, which needs no loop over samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 16_000
HOP = 160  # samples per frame
FRAME_S = HOP / RATE
BANDWIDTHS_HZ = np.array([70.0, 90.0, 130.0, 200.0])
OPENING, CLOSING = 0.4, 0.16

_WINDOW = np.sin(np.pi * (np.arange(2 * HOP) + 0.5) / (2 * HOP)) ** 2  # overlaps add up to 1
_LENGTH = 3 * HOP  # of a filtered frame: a third frame lets the resonances die away


@dataclass(frozen=True)
class Tracks:
    """What changes over time; all `[F]`, a frame each 10 ms.

    Attributes:
        pitch_hz: of the pulses.
        voiced, noise: amplitude of pulses and of noise, about 1 at full voice.
        jitter: deviation from one period to the next, relative.
        creak: 0 .. 1, how far every second pulse is weaker and later.
        tilt: dB per octave by which the spectrum falls above 500 Hz.
        formants_hz: `[F, 4]`.
    """

    pitch_hz: np.ndarray
    voiced: np.ndarray
    noise: np.ndarray
    jitter: np.ndarray
    creak: np.ndarray
    tilt: np.ndarray
    formants_hz: np.ndarray


def synthesise(tracks: Tracks, random: np.random.RandomState) -> np.ndarray:
    """Sound `[F * HOP]` float64 at `RATE`; how loud depends on the formants too."""
    pulses = _pulses(
        per_sample(tracks.pitch_hz),
        np.repeat(tracks.jitter, HOP),
        np.repeat(tracks.creak, HOP),
        random,
    )
    excitation = per_sample(tracks.voiced) * pulses
    excitation += per_sample(tracks.noise) * noise(len(pulses), random)
    return _filtered(excitation, _responses(tracks.formants_hz, tracks.tilt))


def per_sample(values: np.ndarray) -> np.ndarray:
    """`[F]` at the middle of frames to `[F * HOP]`, linear in between."""
    between = values[:-1, None] + np.diff(values)[:, None] * (np.arange(HOP) / HOP)
    before, after = np.repeat(values[[0, -1]], HOP // 2).reshape(2, -1)
    return np.concatenate([before, between.ravel(), after])


def noise(count: int, random: np.random.RandomState) -> np.ndarray:
    """White noise `[count]` of unit power."""
    return np.sqrt(12) * (random.random_sample(count) - 0.5)


def _pulses(
    pitch_hz: np.ndarray, jitter: np.ndarray, creak: np.ndarray, random: np.random.RandomState
) -> np.ndarray:
    """Derivative of the flow through the glottis, of unit power without creak; all `[n]`."""
    period = np.cumsum(pitch_hz / RATE).astype(int)
    deviation = random.standard_normal(period[-1] + 1)[period]
    factor = 1 + jitter * deviation - 0.3 * creak * (period % 2)
    phase = np.cumsum(pitch_hz * factor / RATE)
    period = phase.astype(int)
    opening = (phase - period) / OPENING
    closing = (opening * OPENING - OPENING) / CLOSING
    slope = np.where(
        opening < 1,
        6 * opening * (1 - opening) / OPENING,
        np.where(closing < 1, -2 * closing / CLOSING, 0.0),
    )
    power = 1.2 / OPENING + 4 / (3 * CLOSING)
    return slope / np.sqrt(power) * (1 - creak * (period % 2))


def _responses(formants_hz: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Complex frequency responses `[F, K]` of the cascade, 1 at 0 Hz, and of the tilt."""
    hz = np.fft.rfftfreq(_LENGTH, 1 / RATE)
    octaves = np.log2(np.maximum(hz, 500) / 500)
    falling = np.exp(np.outer(tilt, octaves) * (-np.log(10) / 20))
    radius = np.exp(-np.pi * BANDWIDTHS_HZ / RATE)
    turn = 2 * radius * np.cos(2 * np.pi * formants_hz / RATE)
    gain = (1 - turn + radius**2).prod(axis=1)
    # The denominators of the resonators, multiplied out: one evaluation in place of four.
    poles = np.ones((len(formants_hz), 1))
    for k in range(len(radius)):
        longer = np.pad(poles, ((0, 0), (0, 2)))
        longer[:, 1:-1] -= turn[:, k, None] * poles
        longer[:, 2:] += radius[k] ** 2 * poles
        poles = longer
    delays = np.exp(-2j * np.pi * np.outer(np.arange(poles.shape[1]), hz) / RATE)
    return falling * gain[:, None] / (poles @ delays)


def _filtered(excitation: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Each frame through its response `[F, K]`, overlapped and added; `[F * HOP]`."""
    padded = np.pad(excitation, HOP).reshape(-1, HOP)
    windows = np.hstack([padded[:-1], padded[1:]]) * _WINDOW  # one more than frames
    spectra = np.fft.rfft(windows, _LENGTH) * np.vstack([responses, responses[-1:]])
    parts = np.fft.irfft(spectra, _LENGTH).reshape(len(windows), 3, HOP)
    sound = np.zeros((len(windows) + 2, HOP))
    for number in range(3):
        sound[number : number + len(windows)] += parts[:, number]
    return sound.ravel()[HOP : HOP + len(excitation)]
