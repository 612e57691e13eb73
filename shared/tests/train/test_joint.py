"""Terms of both tasks together: their weights, their gradient norms, one backward."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mepr_shared.config import build
from mepr_shared.errors import ConfigError
from mepr_shared.nn.cross_task import CrossTaskFeatures, CrossTaskModel, CrossTaskOutput
from mepr_shared.objectives.traits import TraitObjective
from mepr_shared.train.joint import SEMI, JointObjective, Term
from mepr_shared.train.loop import fit
from mepr_shared.train.models import build_cross_task, build_unimodal
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import CrossTaskSettings, FitSettings, ModelSettings, Stage2Settings

TASKS = ("emotion", "traits")
GRADNORM = {"weighting": "gradnorm", "gradnorm": {"first_steps": 2}, "ssl": True}
TERMS = ("emotion", "traits", "emotion" + SEMI, "traits" + SEMI)


def settings(**given) -> Stage2Settings:
    return build(Stage2Settings, given)


def stage2_model() -> CrossTaskModel:
    torch.manual_seed(0)
    part = ModelSettings(width=8, feedforward=16)
    parts = [build_unimodal(part, input_width=6, task=task) for task in TASKS]
    model = build_cross_task(CrossTaskSettings(width=8, heads=2, dropout=0.3), *parts)
    with torch.no_grad():  # the heads start at zero, where nothing below has a gradient
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.3)
    return model


def features(model: CrossTaskModel, samples: int = 12) -> CrossTaskFeatures:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 4, 6, generator=generator)
    mask = torch.ones(samples, 4, dtype=torch.bool)
    return model.features(model.frozen(x, mask), mask)


def terms(output: CrossTaskOutput, samples: int = 12) -> dict[str, Term]:
    """Two supervised and two semi-supervised terms; the rows of a task are disjoint."""
    number = torch.arange(samples)
    emotion, traits = output.emotion_logits, output.trait_scores
    rows = {
        "emotion": number % 3 == 0,
        "emotion" + SEMI: number % 3 == 1,
        "traits": number % 2 == 0,
        "traits" + SEMI: number % 4 == 1,
    }
    losses = {
        "emotion": -emotion.log_softmax(1)[rows["emotion"], 2].mean(),
        "emotion" + SEMI: nn.functional.softplus(emotion[rows["emotion" + SEMI]]).mean(),
        "traits": (traits[rows["traits"]] - 0.3).square().mean(),
        "traits" + SEMI: (traits[rows["traits" + SEMI]] - 0.8).abs().mean(),
    }
    return {name: Term(losses[name], rows[name]) for name in rows}


def test_norms_of_one_backward_are_those_of_four_autograd_grad_calls():
    model = stage2_model().train()
    joint = JointObjective(model, TASKS, settings(**GRADNORM), 10)
    for wallet in joint.wallets:
        wallet.weights.copy_(wallet.budget * torch.tensor([0.85, 0.15]))
    torch.manual_seed(3)
    shared = features(model)
    views = joint.views(shared.shared_input, shared.shared)
    total, _ = joint.total(terms(model.predict(shared, views["emotion"], views["traits"])))
    total.backward()
    combined = model.shared_weight().grad.clone()
    found = joint.after_backward()
    torch.manual_seed(3)
    shared = features(model)
    alone = terms(model.predict(shared, shared.shared, shared.shared))
    weighted = torch.zeros_like(combined)
    weights = {"emotion": 1.7, "traits": 0.3, "emotion_semi": 0.68, "traits_semi": 0.12}
    for name, term in alone.items():
        (gradient,) = torch.autograd.grad(term.loss, model.shared_weight(), retain_graph=True)
        norm = found[f"gradient_norm/{name}"].item()
        assert norm == pytest.approx(gradient.norm().item(), rel=1e-5)
        weighted += weights[name] * gradient
    # The views change nothing about the gradient that trains.
    torch.testing.assert_close(combined, weighted, rtol=1e-5, atol=1e-7)


def test_weights_are_moved_by_those_norms_and_keep_their_budgets():
    model = stage2_model().train()
    joint = JointObjective(model, TASKS, settings(**GRADNORM), 10)
    for step in range(8):
        shared = features(model)
        views = joint.views(shared.shared_input, shared.shared)
        batch = terms(model.predict(shared, views["emotion"], views["traits"]))
        if step % 3 == 0:
            del batch["traits" + SEMI]
        total, log = joint.total(batch)
        total.backward()
        found = joint.after_backward()
        assert math.isnan(found["gradient_norm/traits_semi"]) == (step % 3 == 0)
        assert math.isnan(log["loss/traits_semi"]) == (step % 3 == 0)
        assert joint.weights[:2].sum().item() == pytest.approx(2, rel=1e-5)
        assert joint.weights[2:].sum().item() == pytest.approx(0.8, rel=1e-5)
        assert (joint.weights >= 1e-3 - 1e-6).all()
    assert joint.weights[0] != 1 and joint.weights[2] != 0.4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"weighting": "equal"}, [1, 1]),
        ({"weighting": "fixed", "emotion_weight": 0.5, "trait_weight": 3.0}, [0.5, 3]),
        ({"weighting": "equal", "ssl": True}, [1, 1, 0.4, 0.4]),
        (
            {"weighting": "fixed", "trait_weight": 3.0, "ssl": True, "semi": {"weight": 0.5}},
            [1, 3, 0.5, 1.5],
        ),
        ({"weighting": "equal", "ssl": True, "pseudo": "off"}, [1, 1]),
        ({"weighting": "equal", "ssl": True, "semi": {"weight": 0.0}}, [1, 1]),
    ],
)
def test_weights_that_are_given_stay(given, expected):
    joint = JointObjective(stage2_model(), TASKS, settings(**given), 10)
    assert joint.weights.tolist() == pytest.approx(expected)
    assert (joint.teacher is not None) == given.get("ssl", False)
    losses = {name: torch.tensor(2.0 + i) for i, name in enumerate(joint.terms)}
    rows = torch.ones(3, dtype=torch.bool)
    total, log = joint.total({name: Term(loss, rows) for name, loss in losses.items()})
    values = [w * (2.0 + i) for i, w in enumerate(expected)]
    assert total.item() == pytest.approx(sum(values))
    assert set(log) == {f"loss/{name}" for name in joint.terms}
    shared = torch.randn(3, 2, requires_grad=True)
    assert all(view is shared for view in joint.views(shared, shared).values())
    assert joint.after_backward() == {}


def test_one_task_alone_keeps_its_whole_budget():
    model = stage2_model()
    joint = JointObjective(model, ("traits",), settings(**GRADNORM), 10)
    shared = features(model)
    view = joint.views(shared.shared_input, shared.shared)["traits"]
    output = model.predict(shared, shared.shared, view)
    total, _ = joint.total(terms(output))
    total.backward()
    assert set(joint.after_backward()) == {"gradient_norm/traits", "gradient_norm/traits_semi"}
    assert joint.weights.tolist() == pytest.approx([1.0, 0.4])


def test_state_round_trip():
    model = stage2_model()
    first, second = (JointObjective(model, TASKS, settings(**GRADNORM), 10) for _ in range(2))
    first.wallets[1].weights.copy_(torch.tensor([0.7, 0.1]))
    with torch.no_grad():
        model.shared.bias.add_(1)
    first.after_step()
    second.load({name: value.clone() for name, value in first.tensors().items()})
    assert torch.equal(first.weights, second.weights)
    assert second.teacher.step == 1
    pairs = zip(first.teacher.averaged, second.teacher.averaged, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class Both:
    """What the loop trains: fixed features, two tasks."""

    def __init__(self, chosen: Stage2Settings, scores: list[float] | None = None) -> None:
        self.model: nn.Module = stage2_model()
        self.steps_per_epoch = 4
        self.joint = JointObjective(self.model, TASKS, chosen, 4)
        self.scores = list(scores or [])

    def batches(self, epoch: int):
        return range(self.steps_per_epoch)

    def loss(self, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        shared = features(self.model)
        views = self.joint.views(shared.shared_input, shared.shared)
        output = self.model.predict(shared, views["emotion"], views["traits"])
        return self.joint.total(terms(output))

    def validate(self) -> dict[str, float]:
        return {"score": self.scores.pop(0) if self.scores else 0.0}


def test_a_step_costs_one_backward(tmp_path, monkeypatch):
    calls = []
    for name in ("backward", "grad"):
        original = getattr(torch.autograd, name)

        def counted(*args, original=original, **more):
            calls.append(original)
            return original(*args, **more)

        monkeypatch.setattr(torch.autograd, name, counted)
    run = Run.create(tmp_path / "run", kind="stage2", config={}, resume=False)
    fit(Both(settings(**GRADNORM)), FitSettings(epochs=3, precision="float32"), run)
    assert len(calls) == 3 * 4


def test_of_student_and_teacher_validation_chooses_which_is_saved(tmp_path):
    run = Run.create(tmp_path / "run", kind="stage2", config={}, resume=False)
    # (student, teacher) of each epoch: the teacher of the second is the best.
    task = Both(settings(**GRADNORM), [0.2, 0.1, 0.3, 0.4, 0.35, 0.3])
    kept = {}

    def remember(record):
        with task.joint.teacher.applied():
            state = {name: value.clone() for name, value in task.model.state_dict().items()}
        kept[record["epoch"]] = state

    chosen = FitSettings(epochs=3, patience=0, precision="float32")
    result = fit(task, chosen, run, on_epoch=remember)
    assert [record["weights"] for record in result.history] == ["student", "teacher", "student"]
    assert [record["val"]["score"] for record in result.history] == [0.2, 0.4, 0.35]
    assert [record["val_student"]["score"] for record in result.history] == [0.2, 0.3, 0.35]
    assert result.best_epoch == 2
    saved = task.model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in kept[2].items())


def test_every_step_is_logged(tmp_path):
    import pyarrow.parquet as pq

    run = Run.create(tmp_path / "run", kind="stage2", config={}, resume=False)
    fit(Both(settings(**GRADNORM)), FitSettings(epochs=2, precision="float32"), run)
    for epoch in (1, 2):
        table = pq.read_table(run.path / "steps" / f"epoch-{epoch:04d}.parquet")
        assert table.num_rows == 4
        wanted = {f"{k}/{n}" for k in ("loss", "weight", "gradient_norm") for n in TERMS}
        assert set(table.column_names) == wanted | {"loss", "gradient_norm"}
    record = run.log[-1]
    mean = sum(table["loss/emotion"].to_pylist()) / 4
    assert record["train"]["loss/emotion"] == pytest.approx(mean)


def test_averaging_twice_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", kind="stage2", config={}, resume=False)
    chosen = replace(FitSettings(epochs=1), average=0.9)
    with pytest.raises(ConfigError, match=r"fit.average and ssl both average the weights"):
        fit(Both(settings(ssl=True)), chosen, run)


def test_a_task_without_a_label_in_the_batch_still_has_a_view_that_answers():
    """A loss over nothing is connected to the graph: its cotangent arrives and is zero."""
    model = stage2_model()
    joint = JointObjective(model, TASKS, settings(**GRADNORM), 10)
    shared = features(model)
    views = joint.views(shared.shared_input, shared.shared)
    output = model.predict(shared, views["emotion"], views["traits"])
    batch = terms(output)
    nothing = torch.full((12, 5), torch.nan)
    loss = TraitObjective("mae+ccc")(output.trait_scores, nothing)
    batch["traits"] = Term(loss, torch.zeros(12, dtype=torch.bool))
    del batch["traits" + SEMI]
    total, _ = joint.total(batch)
    total.backward()
    found = joint.after_backward()
    assert math.isnan(found["gradient_norm/traits"]) and found["gradient_norm/emotion"] > 0
