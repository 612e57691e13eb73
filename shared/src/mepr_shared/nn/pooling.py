"""From a sequence to one vector, over valid steps only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.nn.masks import zero_masked


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the valid steps of `x [B, T, D]` under `mask [B, T]` -> `[B, D]`.

    Sums run in float32 at least. A row without a valid step gives zeros.
    """
    total = zero_masked(x, mask).sum(dim=1, dtype=torch.promote_types(x.dtype, torch.float32))
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return (total / count).to(x.dtype)


class MeanPooling(nn.Module):
    """`masked_mean` as a module: `[B, T, D]`, `[B, T]` -> `[B, D]`."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(x, mask)


class AttentivePooling(nn.Module):
    """Weighted mean with learned weights (Lin et al. 2017, one hop).

    `[B, T, D]`, `[B, T]` -> `[B, D]`. The weights start equal, so that an untrained pooling is
    the masked mean. A row without a valid step gives zeros.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention over time `[B, T]`: 0 on masked steps, sums to 1 where a step is valid."""
        score = self.score(torch.tanh(self.hidden(x))).squeeze(-1).float()
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        return torch.softmax(score, dim=1).masked_fill(~mask, 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = zero_masked(x, mask)
        weights = self.weights(x, mask)
        return (x * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)


POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "mean": lambda width: MeanPooling(),
    "attention": AttentivePooling,
}


def build_pooling(kind: str, width: int) -> nn.Module:
    """A pooling by name (`POOLINGS`) for sequences of `width`.

    Raises:
        ConfigError: unknown name.
    """
    if kind not in POOLINGS:
        raise ConfigError(f"unknown pooling {kind!r}", hint=did_you_mean(kind, POOLINGS))
    return POOLINGS[kind](width)
