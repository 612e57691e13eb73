"""A few clips at a time: all of them, once, without autograd or autocast."""

from __future__ import annotations

import torch

from mepr_shared.nn.tiles import TILE, run_tiles


def test_every_row_is_visited_once_in_slices_of_the_asked_size() -> None:
    slices: list[slice] = []
    run_tiles(slices.append, torch.zeros(7), clip_values=TILE // 3)
    assert [(part.start, part.stop) for part in slices] == [(0, 3), (3, 6), (6, 7)]


def test_a_clip_larger_than_a_tile_is_one_slice() -> None:
    slices: list[slice] = []
    run_tiles(slices.append, torch.zeros(2), clip_values=3 * TILE)
    assert [(part.start, part.stop) for part in slices] == [(0, 1), (1, 2)]


def test_results_fill_ordinary_tensors_in_full_precision() -> None:
    x = torch.randn(2, 8, 8, requires_grad=True)
    y = torch.empty_like(x)

    def run(rows: slice) -> None:
        assert not torch.is_grad_enabled()
        y[rows] = torch.bmm(x[rows], x[rows])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        run_tiles(run, x, clip_values=64)
    assert not y.requires_grad
    assert not y.is_inference()
    torch.testing.assert_close(y, x.detach() @ x.detach())
