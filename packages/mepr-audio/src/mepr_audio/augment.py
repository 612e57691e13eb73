"""Varied copies of a waveform for training: other speed, added noise."""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torchaudio

# torchaudio resamples by integer ratios: speeds are rounded to hundredths.
SPEED_STEP = 100


def vary(samples: np.ndarray, rate: int, *, speed: float, noise_db: float, key: str) -> np.ndarray:
    """Play at another speed (tempo and pitch), then add white noise.

    Args:
        samples: `[n]` float32.
        rate: samples per second.
        speed: 1 = as it is; 1.1 is faster, shorter and higher.
        noise_db: signal-to-noise ratio in dB; 0 = no noise.
        key: decides the noise: the same key gives the same noise.
    """
    if speed == 1.0 and not noise_db:
        return samples
    wave = torch.from_numpy(np.ascontiguousarray(samples))
    if speed != 1.0:
        steps = round(speed * SPEED_STEP)
        wave = torchaudio.functional.resample(wave, steps, SPEED_STEP)
    if noise_db:
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode("utf-8", "replace")))
        noise = torch.randn(len(wave), generator=generator)
        wave = torchaudio.functional.add_noise(wave, noise, torch.tensor(noise_db))
    return wave.numpy()
