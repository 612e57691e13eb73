"""How the loss terms of both tasks are put together: weights, GradNorm, and the teacher.

Stages 2 and 3 have up to four terms: each task's supervised one over the samples that carry its
label, and a semi-supervised one over samples with a pseudo-label instead. No sample is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mepr_shared.objectives.gradnorm import Wallet, gradient_norms
from mepr_shared.train.settings import GradNormSettings, Pseudo, SemiSettings, Weighting
from mepr_shared.train.teacher import Teacher

SEMI = "_semi"

# (shared_input [B, ..., I], cotangents [tasks, B, ..., H], rows [K, B]) -> norms [K]
GradientNorms = Callable[[Tensor, Tensor, Tensor], Tensor]


class JointSettings(Protocol):
    """What stage-2 and stage-3 settings have in common."""

    @property
    def weighting(self) -> Weighting: ...
    @property
    def emotion_weight(self) -> float: ...
    @property
    def trait_weight(self) -> float: ...
    @property
    def gradnorm(self) -> GradNormSettings: ...
    @property
    def ssl(self) -> bool: ...
    @property
    def pseudo(self) -> Pseudo: ...
    @property
    def semi(self) -> SemiSettings: ...


def uses_pseudo_labels(settings: JointSettings) -> bool:
    """Whether samples without a label can add anything to the loss."""
    return settings.ssl and settings.pseudo != "off" and settings.semi.weight > 0


@dataclass(frozen=True)
class Term:
    """One loss term of a batch: `loss`, a scalar, and the rows `[B]` bool it is taken over."""

    loss: Tensor
    rows: Tensor


class JointObjective:
    """Weighs the terms of a batch and follows training from step to step.

    Args:
        model: the student; followed by the teacher where `ssl` is on.
        tasks: `("emotion", "traits")`, or one of them.
        settings: weighting, `ssl` and what belongs to them.
        steps_per_epoch: for the teacher's half-life.
        norms: gradient norms on the model's shared weight, where it is not a plain linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        settings: JointSettings,
        steps_per_epoch: int,
        *,
        norms: GradientNorms = gradient_norms,
    ) -> None:
        device = next(model.parameters()).device
        self.tasks = tuple(tasks)
        self.settings = settings
        self.norms = norms
        self.semi = uses_pseudo_labels(settings)
        self.terms = [*tasks, *(task + SEMI for task in tasks if self.semi)]
        self.teacher: Teacher | None = None
        if settings.ssl:
            half_life = settings.semi.half_life
            self.teacher = Teacher(model, half_life=half_life, steps_per_epoch=steps_per_epoch)
        self.wallets = _wallets(settings, self.tasks, device)
        self.fixed = _fixed_weights(settings, self.terms, device)
        self._shared_input: Tensor | None = None
        self._cotangents: dict[str, Tensor] = {}
        self._batch: dict[str, Term] = {}

    @property
    def weights(self) -> Tensor:
        """`[K]` weights in force, in the order of `terms`."""
        if self.wallets:
            return torch.cat([wallet.weights for wallet in self.wallets])
        return self.fixed

    def views(self, shared_input: Tensor, shared: Tensor) -> dict[str, Tensor]:
        """The shared features as each task is to see them; with GradNorm one view per task.

        A view tells the gradient that arrives there in the ordinary backward pass.
        """
        if not (self.wallets and shared.requires_grad):
            return dict.fromkeys(self.tasks, shared)
        self._shared_input, self._cotangents = shared_input.detach(), {}
        views = {}
        for task in self.tasks:
            view = shared.view_as(shared)
            view.register_hook(lambda gradient, task=task: self._keep(task, gradient))
            views[task] = view
        return views

    def total(self, batch: Mapping[str, Term]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of a batch's terms, and what is logged of them.

        Args:
            batch: terms by name; one of `terms` that is not there, or has no row, counts 0.
        """
        some = next(iter(batch.values()))
        absent = Term(torch.zeros_like(some.loss), torch.zeros_like(some.rows))
        self._batch = batch = {name: batch.get(name, absent) for name in self.terms}
        losses = torch.stack([batch[name].loss for name in self.terms])
        weights = self.weights.clone()
        log: dict[str, Tensor] = {}
        for index, name in enumerate(self.terms):
            there = batch[name].rows.any()
            log[f"loss/{name}"] = torch.where(there, losses[index].detach(), torch.nan)
            if self.settings.weighting == "gradnorm":
                log[f"weight/{name}"] = weights[index]
        return (weights * losses).sum(), log

    @torch.no_grad()
    def after_backward(self) -> dict[str, Tensor]:
        """Move the weights by the gradients that have just arrived; gives the terms' norms."""
        if not (self.wallets and self._cotangents and self._shared_input is not None):
            return {}
        weights = self.weights.clone()
        # The terms are all supervised ones, then all semi-supervised ones, in the same order.
        cotangents = torch.stack([self._cotangents[task] for task in self.tasks])
        present = torch.stack([self._batch[name].rows for name in self.terms])
        weighted = self.norms(self._shared_input, cotangents, present)
        norms = weighted / weights
        there = present.any(dim=1)
        losses = torch.stack([self._batch[name].loss.detach().float() for name in self.terms])
        at = 0
        for wallet in self.wallets:
            part = slice(at, at + len(wallet.terms))
            wallet.update(losses[part], norms[part], there[part])
            at += len(wallet.terms)
        self._shared_input, self._cotangents = None, {}
        found = torch.where(there, norms, torch.nan)
        return {f"gradient_norm/{name}": found[i] for i, name in enumerate(self.terms)}

    def after_step(self) -> None:
        """To be called after each step of the optimiser."""
        if self.teacher is not None:
            self.teacher.update()

    def tensors(self) -> dict[str, Tensor]:
        """State for resuming."""
        state: dict[str, Tensor] = {}
        if self.teacher is not None:
            state |= {f"teacher.{name}": value for name, value in self.teacher.tensors().items()}
        for number, wallet in enumerate(self.wallets):
            state |= {f"wallet{number}.{name}": v for name, v in wallet.tensors().items()}
        return state

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the state that `tensors` gave."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        if self.teacher is not None:
            self.teacher.load(below("teacher."))
        for number, wallet in enumerate(self.wallets):
            wallet.load(below(f"wallet{number}."))

    def _keep(self, task: str, gradient: Tensor) -> None:
        self._cotangents[task] = gradient


def _wallets(settings: JointSettings, tasks: Sequence[str], device: torch.device) -> list[Wallet]:
    """The supervised and the semi-supervised wallet: budget 1 per task, lambda per task."""
    if settings.weighting != "gradnorm":
        return []
    chosen = settings.gradnorm
    common = {"floor": chosen.floor, "first_steps": chosen.first_steps, "device": device}
    wallets = [
        Wallet(
            tasks,
            budget=float(len(tasks)),
            alpha=chosen.alpha,
            learning_rate=chosen.learning_rate,
            **common,  # type: ignore[arg-type]
        )
    ]
    if uses_pseudo_labels(settings):
        wallets.append(
            Wallet(
                [task + SEMI for task in tasks],
                budget=len(tasks) * settings.semi.weight,
                alpha=chosen.semi_alpha,
                learning_rate=chosen.semi_learning_rate,
                **common,  # type: ignore[arg-type]
            )
        )
    return wallets


def _fixed_weights(settings: JointSettings, terms: Sequence[str], device: torch.device) -> Tensor:
    """`[K]` weights that stay: 1, or those given; a semi-supervised term's times lambda."""
    given = {"emotion": 1.0, "traits": 1.0}
    if settings.weighting == "fixed":
        given = {"emotion": settings.emotion_weight, "traits": settings.trait_weight}
    values = [
        given[name.removesuffix(SEMI)] * (settings.semi.weight if name.endswith(SEMI) else 1.0)
        for name in terms
    ]
    return torch.tensor(values, dtype=torch.float32, device=device)
