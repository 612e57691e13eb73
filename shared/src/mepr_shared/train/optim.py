"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from mepr_shared.train.settings import FitSettings


class Lion(torch.optim.Optimizer):
    """Lion: the sign of an interpolated momentum, with decoupled weight decay.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            rate, (beta1, beta2) = group["lr"], group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                parameter.mul_(1 - rate * group["weight_decay"])
                direction = momentum.lerp(parameter.grad, 1 - beta1).sign_()
                parameter.add_(direction, alpha=-rate)
                momentum.lerp_(parameter.grad, 1 - beta2)
        return loss


def build_optimiser(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """The configured optimiser over the model's trainable parameters.

    Weight decay acts on matrices only: vectors (biases, norms) and parameters marked
    `_no_weight_decay` (a state-space model's A and D) are left out.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
            (plain if exempt else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    if settings.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if settings.optimiser == "lion":
        return Lion(groups, lr=rate)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.RMSprop(groups, lr=rate)


def build_scheduler(
    optimiser: torch.optim.Optimizer, settings: FitSettings, total_steps: int
) -> LRScheduler:
    """The configured schedule. `plateau` steps once per epoch on the validation score, all others
    once per optimiser step."""
    if settings.scheduler == "plateau":
        return ReduceLROnPlateau(optimiser, mode="max", factor=0.5, patience=1)
    return LambdaLR(optimiser, schedule(settings.scheduler, settings.warmup, total_steps))


def schedule(name: str, warmup: float, total_steps: int) -> Callable[[int], float]:
    """Step -> factor on the learning rate.

    Args:
        name: none, cosine, onecycle, linear_warmup or cosine_warmup.
        warmup: share of the steps over which the factor rises (not for none and cosine).
        total_steps: where the factor ends.
    """
    rising = 0 if name in ("none", "cosine") else max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if name == "none":
            return 1.0
        if step < rising:
            progress = (step + 1) / rising
            # One-cycle (Smith & Topin 2018) starts at 1/25 of the peak and rises along a cosine.
            return 1 - 0.96 * _cosine(progress) if name == "onecycle" else progress
        remaining = (step - rising) / max(1, total_steps - rising)
        return 1 - remaining if name == "linear_warmup" else _cosine(min(1.0, remaining))

    return factor


def _cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1, along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))
