"""Long audio is covered by pieces, each frame once; pooling does not depend on chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mepr_audio.preprocess import FrameGrid, FramePool, pieces

GRIDS = [FrameGrid(320, 400), FrameGrid(320, 160), FrameGrid(160, 160)]


@settings(max_examples=200, deadline=None)
@given(
    grid=st.sampled_from([FrameGrid(4, 6), FrameGrid(4, 2), FrameGrid(3, 3)]),
    samples=st.integers(0, 900),
    size=st.integers(4, 40),
    data=st.data(),
)
def test_every_frame_is_kept_once_and_in_place(grid, samples, size, data) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    wave = np.arange(samples, dtype=np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, samples), max_size=6)))
    chunks = np.split(wave, cuts)
    kept: list[float] = []
    for piece in pieces(chunks, grid, size=size, overlap=overlap):
        frames = grid.frames(len(piece.samples))
        assert frames <= size
        assert 0 <= piece.keep_from < piece.keep_to <= frames
        # The first sample that a frame sees tells which frame of the whole it is.
        starts = piece.samples[:: grid.hop][:frames]
        kept += starts[piece.keep_from : piece.keep_to].tolist()
    assert kept == [float(grid.hop * t) for t in range(grid.frames(samples))]


def test_kept_frames_have_context_on_both_sides() -> None:
    grid = FrameGrid(10, 10)
    found = list(pieces([np.zeros(1000, np.float32)], grid, size=40, overlap=20))
    assert len(found) > 2
    for piece in found[1:]:
        assert piece.keep_from >= 10
    for piece in found[:-1]:
        assert piece.keep_to <= 30


@pytest.mark.parametrize("grid", GRIDS)
def test_samples_is_the_least_for_frames(grid: FrameGrid) -> None:
    for frames in (1, 2, 7):
        assert grid.frames(grid.samples(frames)) == frames
        assert grid.frames(grid.samples(frames) - 1) == frames - 1


@given(sizes=st.lists(st.integers(0, 9), max_size=8), size=st.integers(1, 5))
def test_pooled_chunks_equal_the_pooled_whole(sizes: list[int], size: int) -> None:
    frames = np.random.default_rng(0).standard_normal((sum(sizes), 3)).astype(np.float32)
    pool = FramePool(size)
    parts = [pool.add(part) for part in np.split(frames, np.cumsum(sizes)[:-1])] if sizes else []
    rest = pool.finish()
    pooled = np.concatenate([p for p in [*parts, rest] if p is not None and len(p)] or [frames])
    wanted = [frames[i : i + size].mean(axis=0) for i in range(0, len(frames), size)]
    np.testing.assert_allclose(pooled, np.array(wanted).reshape(-1, 3), atol=1e-6)
