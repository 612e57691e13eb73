"""Stage 1: one modality, one task."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mepr_shared.errors import ConfigError
from mepr_shared.nn.pooling import build_pooling


class UnimodalOutput(NamedTuple):
    """What a stage-1 model says about `B` clips.

    `logits [B, K]`: emotion logits, or traits before the sigmoid (score = sigmoid(logit)).
    `embedding [B, H]`: the pooled sequence, input of the head.
    `sequence [B, T, H]`: the encoder's last features; zeros on masked steps.
    """

    logits: Tensor
    embedding: Tensor
    sequence: Tensor


class UnimodalModel(nn.Module):
    """Sequence encoder, masked pooling, head.

    Args:
        encoder: `[B, T, D]`, `[B, T]` -> `[B, T, H]`, e.g. from `build_sequence_encoder`.
        width: H.
        outputs: K, 7 emotions or 5 traits.
        pooling: `"mean"` or `"attention"`.
        dropout: before every linear layer of the head.
        head_layers: linear layers in the head; 1 is linear, 2 has one GELU layer in between.

    Raises:
        ConfigError: unknown pooling, or `head_layers` below 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        width: int,
        outputs: int,
        pooling: str = "mean",
        dropout: float = 0.0,
        head_layers: int = 1,
    ) -> None:
        super().__init__()
        if head_layers < 1:
            raise ConfigError(f"head_layers is {head_layers}, it takes 1 or more")
        self.width = width
        self.outputs = outputs
        self.encoder = encoder
        self.pooling = build_pooling(pooling, width)
        hidden: list[nn.Module] = []
        for _ in range(head_layers - 1):
            hidden += [nn.Dropout(dropout), nn.Linear(width, width), nn.GELU()]
        self.head = nn.Sequential(*hidden, nn.Dropout(dropout), nn.Linear(width, outputs))

    def forward(self, x: Tensor, mask: Tensor) -> UnimodalOutput:
        """`x [B, T, D]`, `mask [B, T]` (True = valid); raises `DataError` on a clip without one."""
        sequence = self.encoder(x, mask)
        embedding = self.pooling(sequence, mask)
        return UnimodalOutput(self.head(embedding), embedding, sequence)
