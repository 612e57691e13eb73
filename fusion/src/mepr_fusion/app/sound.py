"""The outline of a recording's sound, for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.waveform import stream_waveform

RATE = 8000
BINS = 480


@dataclass(frozen=True)
class Envelope:
    """Smallest and largest sample `[bins]` in [-1, 1] of equal stretches of `duration_s`."""

    low: np.ndarray
    high: np.ndarray
    duration_s: float


def envelope(path: Path, duration_s: float | None) -> Envelope | None:
    """Read the sound piece by piece; None where there is nothing to draw.

    Args:
        duration_s: what the file says; the sound decides where it says nothing.
    """
    step = 0.01
    lows, highs = [], []
    try:
        for chunk in stream_waveform(path, rate=RATE, chunk_s=10.0):
            width = round(RATE * step)
            rest = -len(chunk) % width
            pieces = np.pad(chunk, (0, rest)).reshape(-1, width)
            lows.append(pieces.min(axis=1))
            highs.append(pieces.max(axis=1))
    except MediaProblem:
        return None
    if not lows:
        return None
    low, high = np.concatenate(lows), np.concatenate(highs)
    length = max(duration_s or 0.0, len(low) * step)
    edges = np.linspace(0, length / step, BINS + 1)
    starts = np.minimum(edges[:-1].astype(int), len(low) - 1)
    beyond = edges[:-1] >= len(low)
    low, high = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    return Envelope(np.where(beyond, 0, low), np.where(beyond, 0, high), length)
