"""A pre-norm Transformer encoder over frames or tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, DataError, did_you_mean
from mepr_shared.nn.layers import Attention, FeedForward, InputProjection, sinusoidal_positions
from mepr_shared.nn.masks import check_mask, zero_masked

POSITIONS = ("sinusoidal", "learned", "none")


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each `x + dropout(f(norm(x)))` (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, feedforward: int, *, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, feedforward, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, H]`, `mask [B, T]` of the steps to attend to -> `[B, T, H]`."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class TransformerEncoder(nn.Module):
    """`x [B, T, D]`, `mask [B, T]` -> `[B, T, H]`; masked steps come out as zeros.

    Args:
        input_width: D.
        width: H, a multiple of `heads`.
        layers: number of layers, 0 or more (0 leaves projection, positions and norm).
        heads: attention heads.
        feedforward: hidden width of the feed-forward part.
        dropout: on the projected input, both residual branches and inside the feed-forward part.
        input_dropout: on the input features.
        positions: `"sinusoidal"`, `"learned"` or `"none"`; added once, after the projection.
            A step keeps the position of its place in time, masked neighbours or not.
        max_positions: longest clip of learned positions.

    Raises:
        ConfigError: unknown kind of positions, or widths that do not divide.
    """

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        input_dropout: float = 0.0,
        positions: str = "sinusoidal",
        max_positions: int = 1024,
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ConfigError(
                f"unknown positions {positions!r}", hint=did_you_mean(positions, POSITIONS)
            )
        self.width = width
        self.positions = positions
        self.project = InputProjection(input_width, width, input_dropout=input_dropout)
        if positions == "learned":
            self.position_table = nn.Parameter(torch.empty(max_positions, width))
            nn.init.normal_(self.position_table, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, feedforward, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Raises `DataError` for a clip with every step masked or beyond the learned positions."""
        check_mask(x, mask)
        # What stands in masked steps must not matter, and 0 * NaN would.
        hidden = self.project(zero_masked(x, mask))
        hidden = self.dropout(self._add_positions(hidden))
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return zero_masked(self.norm(hidden), mask)

    def _add_positions(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self.positions == "sinusoidal":
            return x + sinusoidal_positions(length, self.width, device=x.device).to(x.dtype)
        if self.positions == "learned":
            if length > len(self.position_table):
                raise DataError(
                    f"a clip of {length} steps is longer than the "
                    f"{len(self.position_table)} learned positions",
                    hint="raise max_positions, or use positions = 'sinusoidal'",
                )
            return x + self.position_table[:length].to(x.dtype)
        return x
