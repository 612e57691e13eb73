"""The training loop, top to bottom.

Stages 1, 2 and 3 hand it a `Trainable`; it trains, validates, keeps the best weights by the
validation score (there is no other way to select), stops early, and resumes exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mepr_shared.errors import ConfigError, MeprError
from mepr_shared.train import distributed
from mepr_shared.train.average import WeightAverage
from mepr_shared.train.checkpoint import load_trainer, load_weights, save_trainer, save_weights
from mepr_shared.train.joint import JointObjective
from mepr_shared.train.optim import build_optimiser, build_scheduler
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import FitSettings
from mepr_shared.train.step_log import StepLog

MAX_BAD_STEPS = 10


class Trainable(Protocol):
    """What the loop trains.

    Attributes:
        model: its trainable parameters are optimised.
        steps_per_epoch: number of batches in an epoch.
        joint: weights of the loss terms and the teacher, for models of both tasks.
    """

    model: nn.Module
    steps_per_epoch: int
    joint: JointObjective | None

    def batches(self, epoch: int) -> Iterable[Any]:
        """The batches of an epoch, determined by seed and epoch alone."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and named terms for the log: the same names in every step,
        NaN where a term says nothing of this batch."""

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
    if task.joint and task.joint.teacher and average:
        raise ConfigError("fit.average and ssl both average the weights", hint="set one of them")

    restored = load_trainer(run, model, optimiser)
    if restored:
        state, extra = restored
        history = state["history"]
        scheduler.load_state_dict(state["scheduler"])
        if average:
            average.load(extra)
        if task.joint:
            task.joint.load(extra)
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
        torch.manual_seed(
            settings.seed * 100_003 + epoch + distributed.SEED_STEP * distributed.rank()
        )
        steps = _train_epoch(
            task, epoch, optimiser, scheduler, average, settings, device, precision
        )
        model.eval()
        record = {
            "epoch": epoch,
            "learning_rate": optimiser.param_groups[0]["lr"],
            "train": steps.means(),
            "val": {},
        }
        to_beat = -math.inf if last or not best else best["val"]["score"]
        for name, applied in _candidates(task, average, choose=not last):
            with applied, torch.no_grad():
                scores = task.validate()
                if not math.isfinite(scores["score"]):
                    raise MeprError(f"the validation score of epoch {epoch} is {scores['score']}")
                if name == "teacher":
                    record["val_student"] = record["val"]
                if record["val"] and scores["score"] <= record["val"]["score"]:
                    continue
                record |= {"val": scores, "weights": name}
                if scores["score"] > to_beat:
                    best = record
                    # Weights go first: if the trainer state is lost, this epoch is simply redone.
                    save_weights(model.state_dict(), run.path / "weights.safetensors")
        record["seconds"] = round(time.perf_counter() - started, 3)
        history.append(record)
        scores = record["val"]
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(scores["score"])
        run.write_log(history)
        if task.joint:
            steps.write(run.path / "steps" / f"epoch-{epoch:04d}.parquet")
        extra = {
            **(average.tensors() if average else {}),
            **(task.joint.tensors() if task.joint else {}),
        }
        state = {"history": history, "scheduler": _plain(scheduler.state_dict())}
        save_trainer(run, model, optimiser, extra, state)
        _write_curves(writer, history[-1])
        if on_epoch:
            on_epoch(history[-1])
    writer.close()
    load_weights(model, run.weights_path)
    model.eval()
    return FitResult(best["epoch"], best["val"], history)


def _candidates(
    task: Trainable, average: WeightAverage | None, *, choose: bool
) -> list[tuple[str, AbstractContextManager[None]]]:
    """The weights that validation chooses from after an epoch: the model's, and the teacher's."""
    found: list[tuple[str, AbstractContextManager[None]]] = [
        ("student", average.applied() if average else nullcontext())
    ]
    if task.joint and task.joint.teacher and choose:
        found.append(("teacher", task.joint.teacher.applied()))
    return found


def _train_epoch(
    task: Trainable,
    epoch: int,
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    average: WeightAverage | None,
    settings: FitSettings,
    device: str,
    precision: torch.dtype | None,
) -> StepLog:
    """One pass over the training batches; gives every step's terms."""
    model = task.model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    log = StepLog()
    bad_in_a_row = 0
    for batch in task.batches(epoch):
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(
            torch.device(device).type, dtype=precision, enabled=precision is not None
        ):
            loss, terms = task.loss(batch)
        loss.backward()
        distributed.sum_gradients(parameters)
        if task.joint:
            terms |= task.joint.after_backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # Its value is needed here anyhow; scaling is left out where it would be by one.
        if settings.clip_norm and norm > settings.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
        if not torch.isfinite(norm):
            # A bad batch is skipped and counted; many in a row mean the model has diverged.
            log.skipped, bad_in_a_row = log.skipped + 1, bad_in_a_row + 1
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
            if task.joint:
                task.joint.after_step()
            log.add({"loss": loss, "gradient_norm": norm, **terms})
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
    return log


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
