"""Masks: what is refused, and that moving steps around loses none of them."""

from __future__ import annotations

import pytest
import torch

from mepr_shared.errors import DataError
from mepr_shared.nn import masks

INTERIOR = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
RIGHT_PADDED = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)


def test_a_clip_without_a_valid_step_is_refused_by_its_row() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(DataError, match=r"clips \[1\]"):
        masks.check_mask(torch.zeros(2, 2, 3), mask)


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (torch.zeros(2, 5, 3), torch.ones(2, 4, dtype=torch.bool)),
        (torch.zeros(2, 5), torch.ones(2, 5, dtype=torch.bool)),
        (torch.zeros(2, 5, 3), torch.ones(2, 5)),
    ],
)
def test_shapes_and_dtype_that_do_not_fit_are_refused(x: torch.Tensor, mask: torch.Tensor) -> None:
    with pytest.raises(DataError):
        masks.check_mask(x, mask)


def test_zero_masked_removes_even_nan() -> None:
    x = torch.full((1, 2, 3), torch.nan)
    x[0, 0] = 1.0
    expected = torch.tensor([[[1.0] * 3, [0.0] * 3]])
    assert torch.equal(masks.zero_masked(x, torch.tensor([[True, False]])), expected)


def test_right_padding_is_told_from_masks_inside_a_clip() -> None:
    assert masks.is_right_padded(RIGHT_PADDED)
    assert not masks.is_right_padded(INTERIOR)


def test_taken_steps_are_the_valid_ones_in_their_order_and_go_back_to_their_place() -> None:
    x = torch.randn(*INTERIOR.shape, 2)
    order = masks.valid_first(INTERIOR)
    taken = masks.take_steps(x, order)
    for row, mask in enumerate(INTERIOR):
        assert torch.equal(taken[row, : mask.sum()], x[row, mask])
    assert torch.equal(masks.put_steps(taken, order, x.shape[1]), x)


def test_reversal_turns_valid_steps_around_and_leaves_padding() -> None:
    x = torch.arange(5.0).expand(2, 5).unsqueeze(-1)
    order = masks.reverse_order(RIGHT_PADDED)
    reversed_ = masks.take_steps(x, order).squeeze(-1)
    assert reversed_.tolist() == [[2, 1, 0, 3, 4], [4, 3, 2, 1, 0]]
    assert torch.equal(masks.take_steps(masks.take_steps(x, order), order), x)
