"""Small layers that several networks use."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_shared.errors import ConfigError


class InputProjection(nn.Module):
    """Features of any encoder to the model's width: `[B, T, D]` -> `[B, T, H]`.

    Encoders differ in scale by orders of magnitude (log-mel, CLIP, MiniLM); the norm after the
    linear map makes what follows independent of that.
    """

    def __init__(self, input_width: int, width: int, *, input_dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(input_dropout)
        self.linear = nn.Linear(input_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(self.dropout(x)))


class FeedForward(nn.Sequential):
    """Linear, GELU, dropout, linear: `[..., H]` -> `[..., H]`."""

    def __init__(self, width: int, hidden: int, *, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )


class Attention(nn.Module):
    """Multi-head attention with a key-padding mask, through `scaled_dot_product_attention`.

    Args:
        width: of queries, keys and output; a multiple of `heads`.
        heads: number of attention heads.

    There is no dropout on the attention weights: on a CPU it alone costs a quarter of a training
    step, because the fused attention cannot do it.

    Raises:
        ConfigError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """`query [B, Q, H]` attends to `context [B, T, H]` -> `[B, Q, H]`.

        `context_mask [B, T]` is True on steps that may be attended to, one per row at least.
        """
        q = self._split(self.query(query))
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        mask = context_mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def sinusoidal_positions(length: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Sine and cosine positions `[length, width]` (Vaswani et al. 2017, section 3.5), float32."""
    pairs = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    rates = torch.exp(pairs * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width]
