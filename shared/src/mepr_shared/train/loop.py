"""The training loop, top to bottom.

Stages 1, 2 and 3 hand it a `Trainable`; it trains, validates, keeps the best weights by the
validation score (there is no other way to select), stops early, and resumes exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mepr_shared.errors import MeprError
from mepr_shared.train.average import WeightAverage
from mepr_shared.train.checkpoint import load_trainer, load_weights, save_trainer, save_weights
from mepr_shared.train.optim import build_optimiser, build_scheduler
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import FitSettings

MAX_BAD_STEPS = 10


class Trainable(Protocol):
    """What the loop trains.

    Attributes:
        model: its trainable parameters are optimised.
        steps_per_epoch: number of batches in an epoch.
    """

    model: nn.Module
    steps_per_epoch: int

    def batches(self, epoch: int) -> Iterable[Any]:
        """The batches of an epoch, determined by seed and epoch alone."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and named terms for the log."""

    def validate(self) -> dict[str, float]:
        """Scores on the validation split; `score` (higher is better) selects."""


@dataclass(frozen=True)
class FitResult:
    """What training found.

    Attributes:
        best_epoch: epoch whose weights were kept, counted from 1; 0 is the untrained model.
        best: validation scores of that epoch.
        history: one record per epoch, as in `log.jsonl`.
    """

    best_epoch: int
    best: dict[str, float]
    history: list[dict[str, Any]]


def fit(
    task: Trainable,
    settings: FitSettings,
    run: Run,
    *,
    start_counts: bool = False,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train to the best validation score (or to the end); the chosen weights are in run and model.

    A run that was interrupted goes on after its last finished epoch: random numbers are drawn
    from (seed, epoch), so the result is the same as without the interruption.

    Args:
        start_counts: the untrained model is a candidate too, as epoch 0. For models that start
            from a good prediction: training that does not help on validation is not kept.

    Raises:
        MeprError: the loss is not finite in many steps in a row, or a validation score is not.
    """
    model = task.model.to(device)
    optimiser = build_optimiser(model, settings)
    scheduler = build_scheduler(optimiser, settings, settings.epochs * task.steps_per_epoch)
    average = WeightAverage(model, settings.average) if settings.average else None
    history: list[dict[str, Any]] = []

    restored = load_trainer(run, model, optimiser)
    if restored:
        record, extra = restored
        history = record["history"]
        scheduler.load_state_dict(record["scheduler"])
        if average:
            average.load(extra)
    writer = _summary_writer(run, len(history))
    precision = torch.bfloat16 if uses_bf16(settings.precision, device) else None
    last = settings.keep == "last"
    best = history[-1] if last and history else _best(history)

    if start_counts and not history:
        model.eval()
        with torch.no_grad():
            start = {"epoch": 0, "seconds": 0.0, "train": {}, "val": task.validate()}
        history, best = [start], start
        save_weights(model.state_dict(), run.path / "weights.safetensors")
    epochs_done = history[-1]["epoch"] if history else 0
    for epoch in range(epochs_done + 1, settings.epochs + 1):
        if not last and _exhausted(history, settings.patience):
            break
        started = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)
        means = _train_epoch(
            task, epoch, optimiser, scheduler, average, settings, device, precision
        )
        model.eval()
        with average.applied() if average else nullcontext():
            with torch.no_grad():
                scores = task.validate()
            history.append(
                {
                    "epoch": epoch,
                    "learning_rate": optimiser.param_groups[0]["lr"],
                    "seconds": round(time.perf_counter() - started, 3),
                    "train": means,
                    "val": scores,
                }
            )
            if not math.isfinite(scores["score"]):
                raise MeprError(f"the validation score of epoch {epoch} is {scores['score']}")
            if last or not best or scores["score"] > best["val"]["score"]:
                best = history[-1]
                # Weights go first: if the trainer state is lost, this epoch is simply redone.
                save_weights(model.state_dict(), run.path / "weights.safetensors")
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(scores["score"])
        run.write_log(history)
        extra = average.tensors() if average else {}
        record = {"history": history, "scheduler": _plain(scheduler.state_dict())}
        save_trainer(run, model, optimiser, extra, record)
        _write_curves(writer, history[-1])
        if on_epoch:
            on_epoch(history[-1])
    writer.close()
    load_weights(model, run.weights_path)
    model.eval()
    return FitResult(best["epoch"], best["val"], history)


def _train_epoch(
    task: Trainable,
    epoch: int,
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    average: WeightAverage | None,
    settings: FitSettings,
    device: str,
    precision: torch.dtype | None,
) -> dict[str, float]:
    """One pass over the training batches; mean of every logged term."""
    model = task.model.train()
    totals: dict[str, Tensor] = {}
    steps = bad_in_a_row = skipped = 0
    for batch in task.batches(epoch):
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(
            torch.device(device).type, dtype=precision, enabled=precision is not None
        ):
            loss, terms = task.loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm or math.inf)
        if not torch.isfinite(norm):
            # A bad batch is skipped and counted; many in a row mean the model has diverged.
            skipped, bad_in_a_row = skipped + 1, bad_in_a_row + 1
            if bad_in_a_row >= MAX_BAD_STEPS:
                raise MeprError(
                    f"the loss or its gradient was not finite in {bad_in_a_row} steps in a row "
                    f"(epoch {epoch})",
                    hint="lower fit.learning_rate, or fit.clip_norm",
                )
        else:
            bad_in_a_row = 0
            optimiser.step()
            if average:
                average.update()
            steps += 1
            for name, value in {"loss": loss, "gradient_norm": norm, **terms}.items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + value.detach()
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
    means = {name: float(total) / max(1, steps) for name, total in totals.items()}
    return {**means, "skipped_steps": skipped}


def uses_bf16(precision: str, device: str) -> bool:
    """Whether to compute in bf16: asked for, or `auto` on hardware that multiplies it faster."""
    if precision != "auto":
        return precision == "bf16"
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported())


def _best(history: list[dict[str, Any]]) -> dict[str, Any]:
    return max(history, key=lambda record: record["val"]["score"], default={})


def _exhausted(history: list[dict[str, Any]], patience: int) -> bool:
    return bool(patience and history and history[-1]["epoch"] - _best(history)["epoch"] >= patience)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if isinstance(v, (int, float, list, bool, str))}


def _summary_writer(run: Run, epochs_done: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"), purge_step=epochs_done + 1)


def _write_curves(writer: Any, record: dict[str, Any]) -> None:
    for group in ("train", "val"):
        for name, value in record[group].items():
            if isinstance(value, (int, float)):
                writer.add_scalar(f"{group}/{name}", value, record["epoch"])
    writer.flush()
