"""Waveform -> encoder inputs. Long audio is cut into overlapping pieces, never cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FrameGrid:
    """How an encoder's frames lie on the samples: frame t sees `[t * hop, t * hop + receptive)`.

    Attributes:
        hop: samples from one frame to the next.
        receptive: samples that a clip needs to have one frame.
    """

    hop: int
    receptive: int

    def frames(self, samples: int) -> int:
        """Frames of so many samples."""
        return (samples - self.receptive) // self.hop + 1 if samples >= self.receptive else 0

    def samples(self, frames: int) -> int:
        """The least samples that give so many frames (at least one)."""
        return (frames - 1) * self.hop + self.receptive


@dataclass(frozen=True)
class Piece:
    """One encoder input and the part of its frames that is kept.

    Attributes:
        samples: `[n]` float32.
        keep_from, keep_to: which frames enter the clip's sequence; the rest is only context.
    """

    samples: np.ndarray
    keep_from: int
    keep_to: int


def pieces(
    chunks: Iterable[np.ndarray], grid: FrameGrid, *, size: int, overlap: int
) -> Iterator[Piece]:
    """Cover audio with pieces of at most `size` frames; every frame is kept exactly once.

    Where two pieces overlap, each gives the half of the shared frames that lies nearer to its
    middle. The last piece is moved back to be full: a short tail alone would have little context.
    No more than two pieces' samples are held at a time.

    Args:
        chunks: `[n]` float32 samples, one after the other, of any sizes.
        grid: how frames lie on samples.
        size: frames per piece.
        overlap: frames that neighbouring pieces share; less than `size`.
    """
    step, margin = size - overlap, overlap // 2
    held: list[np.ndarray] = []
    count = 0  # samples held
    start = kept = 0  # first frame that is held; frames kept so far
    emitted = False
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        while True:
            # A window is emitted only when there is more after it: the last one is special.
            position = start + step if emitted else start
            behind = position - start
            if grid.frames(count) <= behind + size:
                break
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            first = behind * grid.hop
            keep_to = position + size - margin
            window = joined[first : first + grid.samples(size)]
            yield Piece(window, kept - position, keep_to - position)
            held, count, start = [joined[first:]], count - first, position
            kept, emitted = keep_to, True
    total = start + grid.frames(count)
    if total <= kept:
        return
    joined = np.concatenate(held) if len(held) > 1 else held[0]
    position = max(start, total - size)
    yield Piece(joined[(position - start) * grid.hop :], kept - position, total - position)


class FramePool:
    """Averages every `size` neighbouring frames, over chunks; the last group may be smaller."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rest: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> np.ndarray:
        """`[t, D]` -> the groups that are complete by now."""
        if self.size == 1:
            return frames
        if self._rest is not None:
            frames = np.concatenate((self._rest, frames))
        full = len(frames) // self.size * self.size
        self._rest = frames[full:]
        return frames[:full].reshape(-1, self.size, frames.shape[1]).mean(axis=1)

    def finish(self) -> np.ndarray | None:
        """The last, incomplete group."""
        if self._rest is None or not len(self._rest):
            return None
        return self._rest.mean(axis=0, keepdims=True)
