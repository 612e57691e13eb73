"""The loop: selects on validation, stops early, resumes exactly, survives bad steps."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mepr_shared.errors import MeprError
from mepr_shared.train.loop import fit
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import FitSettings


class Line:
    """y = 2 x + 1 with dropout noise, so that random numbers matter."""

    def __init__(self, *, poison: set[tuple[int, int]] = frozenset(), scores=None) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.steps_per_epoch = 5
        self.joint = None
        self.poison = poison
        self.scores = list(scores or [])
        self.stop_after: int | None = None
        self.epoch = 0

    def batches(self, epoch):
        self.epoch = epoch
        generator = torch.Generator().manual_seed(epoch)
        for step in range(self.steps_per_epoch):
            if self.stop_after is not None and (epoch, step) == (self.stop_after, 2):
                raise KeyboardInterrupt
            x = torch.randn(8, 4, generator=generator)
            y = 2 * x.sum(1, keepdim=True) + 1
            yield x, y * (math.nan if (epoch, step) in self.poison else 1.0)

    def loss(self, batch):
        x, y = batch
        loss = (self.model(x) - y).square().mean()
        return loss, {"error": loss}

    def validate(self):
        x = torch.linspace(-1, 1, 32).reshape(8, 4)
        error = (self.model(x) - 2 * x.sum(1, keepdim=True) - 1).square().mean()
        score = self.scores[self.epoch - 1] if self.scores else -float(error)
        return {"score": score, "error": float(error)}


def settings(**changes) -> FitSettings:
    return FitSettings(**{"epochs": 6, "patience": 0, "learning_rate": 0.01, **changes})


def new_run(path, resume=False) -> Run:
    return Run.create(path, kind="stage1", config={}, resume=resume)


def losses(history):
    return [(r["train"]["loss"], r["val"]["score"], r["learning_rate"]) for r in history]


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "lion", "sgd", "rmsprop"])
@pytest.mark.parametrize("scheduler", ["onecycle", "plateau"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, optimiser, scheduler, average):
    chosen = settings(optimiser=optimiser, scheduler=scheduler, average=average)
    whole = fit(Line(), chosen, new_run(tmp_path / "whole"))
    task = Line()
    task.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        fit(task, chosen, new_run(tmp_path / "parts"))
    rest = fit(Line(), chosen, new_run(tmp_path / "parts", resume=True))
    assert losses(rest.history) == losses(whole.history)
    one = load_file(tmp_path / "whole" / "weights.safetensors")
    other = load_file(tmp_path / "parts" / "weights.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_validation_epoch_is_kept_not_the_last(tmp_path):
    task = Line(scores=[0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    kept = {}

    def remember(record):
        kept[record["epoch"]] = {k: v.clone() for k, v in task.model.state_dict().items()}

    result = fit(task, settings(), new_run(tmp_path / "run"), on_epoch=remember)
    assert result.best_epoch == 2
    saved = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(saved[name], kept[2][name]) for name in saved)
    assert all(torch.equal(task.model.state_dict()[name], saved[name]) for name in saved)


def test_training_stops_when_validation_has_not_improved_for_patience_epochs(tmp_path):
    task = Line(scores=[0.1, 0.5, 0.4, 0.3, 0.6, 0.1])
    result = fit(task, settings(patience=2), new_run(tmp_path / "run"))
    assert (len(result.history), result.best_epoch) == (4, 2)


def test_a_bad_step_is_skipped_and_counted(tmp_path):
    result = fit(Line(poison={(1, 2), (2, 0)}), settings(epochs=2), new_run(tmp_path / "run"))
    assert [r["train"]["skipped_steps"] for r in result.history] == [1, 1]
    assert all(math.isfinite(loss) for loss, _, _ in losses(result.history))


def test_a_diverged_training_is_an_error_that_says_what_to_do(tmp_path):
    task = Line(poison={(epoch, step) for epoch in range(9) for step in range(5)})
    task.steps_per_epoch = 12
    task.poison = {(1, step) for step in range(12)}
    with pytest.raises(MeprError, match="not finite in 10 steps in a row.*learning_rate"):
        fit(task, settings(), new_run(tmp_path / "run"))


def test_a_score_that_is_not_a_number_is_an_error(tmp_path):
    with pytest.raises(MeprError, match="validation score of epoch 1 is nan"):
        fit(Line(scores=[math.nan]), settings(), new_run(tmp_path / "run"))


def test_bf16_trains_and_clipping_bounds_the_step(tmp_path):
    result = fit(Line(), settings(precision="bf16", epochs=3), new_run(tmp_path / "bf16"))
    assert result.history[-1]["train"]["loss"] < result.history[0]["train"]["loss"]
    free = fit(Line(), settings(optimiser="sgd", clip_norm=0, epochs=1), new_run(tmp_path / "a"))
    tight = fit(
        Line(), settings(optimiser="sgd", clip_norm=1e-4, epochs=1), new_run(tmp_path / "b")
    )
    assert tight.best["error"] > free.best["error"]


def test_curves_are_written_for_tensorboard(tmp_path):
    fit(Line(), settings(epochs=2), new_run(tmp_path / "run"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("val/score")] == [1, 2]
