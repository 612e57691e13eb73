"""The teacher of semi-supervised training: an exponential moving average of the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Teacher:
    """A copy of a model whose weights follow it slowly, always in eval mode.

    Weights are float32 whatever the model computes in: in bf16 such small updates round to
    nothing. Frozen parameters and buffers are the model's own, not copies.

    Args:
        model: the student.
        half_life: epochs after which a weight counts half; 0 makes the model its own teacher.
        steps_per_epoch: steps in an epoch; the decay per step is
            `0.5 ** (1 / (half_life * steps_per_epoch))`, ramped as
            `min(decay, (1 + t) / (10 + t))` so that the first weights fade quickly.
    """

    def __init__(self, model: nn.Module, *, half_life: float, steps_per_epoch: int) -> None:
        shared = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
        self.model = copy.deepcopy(model, memo={id(tensor): tensor for tensor in shared})
        self.model.requires_grad_(False).eval()
        steps = half_life * steps_per_epoch
        self.decay = 0.5 ** (1 / steps) if steps > 0 else 0.0
        self.step = 0
        live = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        own = dict(self.model.named_parameters())
        self.names = [name for name, _ in live]
        self.live: list[Tensor] = [parameter for _, parameter in live]
        self.averaged: list[Tensor] = [own[name] for name in self.names]
        for tensor in self.averaged:
            tensor.data = tensor.data.float()

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the student's weights."""
        self.step += 1
        weight = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
        live = [parameter.float() for parameter in self.live]  # no copy of what is float32
        torch._foreach_lerp_(self.averaged, live, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the student carries the teacher's weights."""
        kept = [parameter.detach().clone() for parameter in self.live]
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.averaged)
            try:
                yield
            finally:
                torch._foreach_copy_(self.live, kept)

    def tensors(self) -> dict[str, Tensor]:
        """State for resuming."""
        state = {f"average.{n}": t for n, t in zip(self.names, self.averaged, strict=True)}
        return {**state, "step": torch.tensor(self.step)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `tensors` gave."""
        self.step = int(tensors["step"])
        for name, value in zip(self.names, self.averaged, strict=True):
            value.copy_(tensors[f"average.{name}"])
