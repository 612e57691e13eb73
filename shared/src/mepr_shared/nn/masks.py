"""Validity masks over time: `True` is a step that exists, `False` is padding or a missing frame."""

from __future__ import annotations

import torch
from torch import Tensor

from mepr_shared.errors import DataError


def check_mask(x: Tensor, mask: Tensor) -> None:
    """Refuse what no encoder can answer.

    Args:
        x: `[B, T, D]`.
        mask: `[B, T]`, bool.

    Raises:
        DataError: shapes or dtype do not fit, or a clip has no valid step. Such a clip carries a
            status instead of features and is left out before batching (attention over nothing
            is NaN, a mean over nothing is 0/0).

    Under `torch.compile` the check on values is skipped: it would break the graph.
    """
    if x.dim() != 3 or mask.shape != x.shape[:2]:
        raise DataError(
            f"features {tuple(x.shape)} and mask {tuple(mask.shape)} do not fit",
            hint="features are [B, T, D] and the mask is [B, T]",
        )
    if mask.dtype is not torch.bool:
        raise DataError(f"the mask is {mask.dtype}, not bool", hint="True marks a valid step")
    if torch.compiler.is_compiling():
        return
    valid = mask.any(dim=1)
    if not bool(valid.all()):
        rows = (~valid).nonzero().flatten().tolist()
        raise DataError(
            f"clips {rows[:5]} of this batch have every step masked",
            hint="leave clips without a valid frame out of the batch; their status says why",
        )


def zero_masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x [B, T, D]` with masked steps set to zero, whatever they held (NaN too)."""
    return x.masked_fill(~mask.unsqueeze(-1), 0.0)


def is_right_padded(mask: Tensor) -> bool:
    """Whether in `mask [B, T]` all valid steps of a row come before its masked ones."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def valid_first(mask: Tensor) -> Tensor:
    """Order that moves valid steps to the front and keeps their sequence: `[B, T]` int64."""
    return torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)


def take_steps(x: Tensor, order: Tensor) -> Tensor:
    """Steps of `x [B, T, D]` in the order `[B, S]` -> `[B, S, D]`."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def put_steps(x: Tensor, order: Tensor, length: int) -> Tensor:
    """Undo `take_steps`: step s of `x [B, S, D]` goes to `order[:, s]` of `[B, length, D]`."""
    empty = x.new_zeros(x.shape[0], length, x.shape[-1])
    return empty.scatter(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x)


def reverse_order(mask: Tensor) -> Tensor:
    """Order `[B, T]` that reverses each row's valid steps; padding stays where it is.

    `mask [B, T]` must be right-padded. The order is its own inverse.
    """
    steps = torch.arange(mask.shape[1], device=mask.device)
    lengths = mask.sum(dim=1, keepdim=True)
    return torch.where(mask, lengths - 1 - steps, steps)
