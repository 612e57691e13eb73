"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of the trainable weights over steps, in float32 (Polyak averaging).

    The decay is ramped as min(decay, (1 + t) / (10 + t)), so that early weights fade quickly.

    Args:
        model: whose weights are followed.
        decay: weight of the past per step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.step = decay, 0
        self.live = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.averaged = {n: p.detach().float().clone() for n, p in self.live}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the average towards the live weights."""
        self.step += 1
        weight = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.live:
            self.averaged[name].lerp_(parameter.float(), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model carries the averaged weights."""
        kept = [parameter.detach().clone() for _, parameter in self.live]
        with torch.no_grad():
            for name, parameter in self.live:
                parameter.copy_(self.averaged[name])
            yield
            for (_, parameter), value in zip(self.live, kept, strict=True):
                parameter.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """State for resuming."""
        return {**self.averaged, "__step__": torch.tensor(self.step)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `tensors` gave."""
        self.step = int(tensors["__step__"])
        for name, value in self.averaged.items():
            value.copy_(tensors[name])
