"""Features brought to mean 0 and spread 1 before a sequence encoder reads them.

Hidden states of pretrained encoders often have a few dimensions a hundred times as large as the
rest. The statistics are those of the training split and belong to the model's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StandardisedEncoder(nn.Module):
    """`encoder((x - mean) / spread, mask)`, per dimension.

    Args:
        encoder: `[B, T, D]`, `[B, T]` -> `[B, T, H]`.
        input_width: D.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, encoder: nn.Module, input_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.zeros(input_width))
        self.register_buffer("spread", torch.ones(input_width))

    def set_statistics(self, mean: Tensor, spread: Tensor) -> None:
        """Use these, `[D]` each; a dimension that never varies is left at its scale."""
        self.mean.copy_(mean)
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, D]`, `mask [B, T]` (True = valid) -> `[B, T, H]`."""
        return self.encoder((x - self.mean) / self.spread, mask)
