"""Mean and spread of a teacher's scores and of the labels beside them."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Sums over labelled entries, column by column, in float64.

    Args:
        columns: C, e.g. five traits.
    """

    def __init__(self, columns: int) -> None:
        self.sums = torch.zeros(5, columns, dtype=torch.float64)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Take in scores and labels, `[B, C]` each; NaN labels are left out with their scores."""
        known = ~labels.isnan()
        x = torch.where(known, scores, 0.0).double()
        y = torch.where(known, labels, 0.0).double()
        rows = [known.double().sum(0), x.sum(0), (x * x).sum(0), y.sum(0), (y * y).sum(0)]
        self.sums += torch.stack(rows).cpu()

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and standard deviation `[C]` of the scores, then of the labels."""
        count, x, xx, y, yy = self.sums
        mean, target = x / count, y / count
        spread = (xx / count - mean**2).clamp_min(0).sqrt()
        target_spread = (yy / count - target**2).clamp_min(0).sqrt()
        return mean.float(), spread.float(), target.float(), target_spread.float()
