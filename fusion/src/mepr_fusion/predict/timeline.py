"""Windows over a long recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mepr_shared.errors import ConfigError

Segments = Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Span:
    """A stretch of the input in s; None is its start, or its end."""

    start_s: float | None = None
    end_s: float | None = None


def spans(duration_s: float | None, window_s: float, hop_s: float | None = None) -> list[Span]:
    """Windows that cover a recording.

    A recording that fits into one window is read whole, as the clips of a corpus are. Of a longer
    one the last window is moved back to be full: a short tail alone would say little.

    Args:
        duration_s: its length; None (a picture, or nobody knows) counts as short.
        window_s: length of a window.
        hop_s: from one start to the next; `window_s` where None.

    Raises:
        ConfigError: a window under a second, or a hop that leaves gaps.
    """
    hop = window_s if hop_s is None else hop_s
    if not (math.isfinite(window_s) and window_s >= 1):
        raise ConfigError(f"a window of {window_s:g} s", hint="--window takes 1 or more")
    if not 0.5 <= hop <= window_s:
        raise ConfigError(f"a hop of {hop:g} s", hint=f"--hop takes 0.5 to {window_s:g}")
    if duration_s is None or duration_s <= window_s:
        return [Span()]
    count = math.ceil(round((duration_s - window_s) / hop, 9)) + 1
    starts = [min(number * hop, duration_s - window_s) for number in range(count)]
    return [Span(start, start + window_s) for start in starts]


def texts(segments: Segments, windows: Sequence[Span]) -> list[str]:
    """What is said in each window: the segments whose middle lies in it."""
    found = []
    for window in windows:
        start, end = window.start_s or 0.0, math.inf if window.end_s is None else window.end_s
        inside = [text for a, b, text in segments if start <= (a + b) / 2 < end]
        found.append(" ".join(" ".join(inside).split()))
    return found


def spread(text: str, windows: Sequence[Span], duration_s: float) -> list[str]:
    """The words of a text without times, spread evenly over a recording."""
    words = text.split()
    step = duration_s / max(1, len(words))
    timed = [(n * step, (n + 1) * step, word) for n, word in enumerate(words)]
    return texts(timed, windows)
