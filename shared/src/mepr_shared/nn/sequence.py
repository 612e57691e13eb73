"""Sequence encoders by name."""

from __future__ import annotations

from torch import nn

from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.nn.mamba import MambaEncoder
from mepr_shared.nn.transformer import TransformerEncoder

SEQUENCE_ENCODERS = ("mamba", "transformer")


def build_sequence_encoder(
    kind: str,
    *,
    input_width: int,
    width: int,
    layers: int,
    dropout: float,
    input_dropout: float = 0.0,
    heads: int = 4,
    feedforward: int | None = None,
    positions: str = "sinusoidal",
    max_positions: int = 1024,
    state_size: int = 16,
    expand: int = 2,
    conv_width: int = 4,
    bidirectional: bool = False,
) -> nn.Module:
    """A module `(x [B, T, input_width], mask [B, T]) -> [B, T, width]`.

    Args:
        kind: `"transformer"` (reads `heads`, `feedforward`, `positions`, `max_positions`) or
            `"mamba"` (reads `state_size`, `expand`, `conv_width`, `bidirectional`).
        feedforward: hidden width of the Transformer's feed-forward part; None is 4 * width.

    Raises:
        ConfigError: unknown kind or positions, or widths that do not divide.
    """
    if kind == "transformer":
        return TransformerEncoder(
            input_width=input_width,
            width=width,
            layers=layers,
            heads=heads,
            feedforward=4 * width if feedforward is None else feedforward,
            dropout=dropout,
            input_dropout=input_dropout,
            positions=positions,
            max_positions=max_positions,
        )
    if kind == "mamba":
        return MambaEncoder(
            input_width=input_width,
            width=width,
            layers=layers,
            dropout=dropout,
            input_dropout=input_dropout,
            state_size=state_size,
            expand=expand,
            conv_width=conv_width,
            bidirectional=bidirectional,
        )
    raise ConfigError(
        f"unknown sequence encoder {kind!r}", hint=did_you_mean(kind, SEQUENCE_ENCODERS)
    )
