"""What a trained model must not lose, which epoch is chosen, and that noise teaches nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.baselines import MEAN, unimodal_outputs
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionSettings
from mepr_fusion.task import visible_labels
from mepr_fusion.train import balanced_shifts, build_objective, check_settings, train
from mepr_fusion.validation import TOLERANCE, answers_of_exports, labelled, validation_scores
from mepr_shared.cli.main import main as mepr
from mepr_shared.config import build
from mepr_shared.corpora.demo import make_demo_features
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, MeprError
from mepr_shared.scoring import constants_of
from mepr_shared.train.runs import Run

MODALITIES = ("audio", "text", "face")


def knowing(make_joined, count: int = 120):
    """A table whose exports know something: predictions lean towards the labels."""
    joined = make_joined(count)
    random = np.random.default_rng(1)
    there = ~np.isnan(joined.emotion_predictions)
    lean = joined.emotion_predictions + 2 * np.nan_to_num(joined.emotion_targets)[:, None]
    joined.emotion_predictions[there] = lean[there]
    near = np.clip(joined.trait_targets[:, None] + random.normal(0, 0.1, (count, 2, 5)), 0, 1)
    there = ~np.isnan(joined.trait_predictions) & ~np.isnan(near)
    joined.trait_predictions[there] = near[there]
    return joined


def of_exports(task, joined) -> dict[str, float]:
    mean = unimodal_outputs(joined, MEAN, task.val_rows)
    return validation_scores(mean, joined, task.val_rows, task.scales)


# --- the guard -----------------------------------------------------------------------------------


def test_the_floor_is_the_mean_of_the_exports_less_tolerance_or_one_sample(make_joined, make_task):
    for count in (120, 1200):
        joined = knowing(make_joined, count)
        task = make_task(joined)
        start = of_exports(task, joined)
        assert task.start_score == pytest.approx(start.pop("score"))
        assert set(task.floor) == set(start)
        assert set(start) == {"films/uar", "films/weighted_f1", "talks/ccc", "talks/macc"}
        for name, value in start.items():
            corpus, score = name.split("/")
            here = joined.corpus_of[task.val_rows] == joined.corpora.index(corpus)
            least = value - max(TOLERANCE[score], 1 / here.sum())
            assert task.floor[name] == pytest.approx(least)


def spoil(task, branch: str) -> None:
    """Let a task's head answer the same to everybody, whatever its exports say."""
    part = getattr(task.fusion, branch)
    with torch.no_grad():
        part.predict_projector.log_scale.fill_(-40.0)


@pytest.mark.parametrize(("branch", "lost"), [("emotion", "films/uar"), ("traits", "talks/ccc")])
def test_who_loses_on_one_corpus_scores_below_the_untrained(make_joined, make_task, branch, lost):
    joined = knowing(make_joined)
    task, free = make_task(joined), make_task(joined, guard=False)
    untrained = task.validate()
    assert untrained["loss_of_exports"] == pytest.approx(0, abs=1e-6)
    spoil(task, branch), spoil(free, branch)
    found, plain = task.validate(), free.validate()
    short = sum(max(0.0, low - found[name]) for name, low in task.floor.items())
    assert found[lost] < task.floor[lost]
    assert found["loss_of_exports"] == pytest.approx(short)
    assert found["score"] == pytest.approx(min(plain["score"], task.start_score) - short)
    assert found["score"] < task.start_score
    # Without the guard the score is that of the answers, and nothing else is said.
    assert "loss_of_exports" not in plain and not free.floor
    assert {name: found[name] for name in plain if name != "score"} == {
        name: value for name, value in plain.items() if name != "score"
    }


def test_more_on_one_corpus_does_not_make_up_for_less_on_another(make_joined, make_task):
    joined = knowing(make_joined)
    task = make_task(joined)
    spoil(task, "traits")
    # The best possible emotions: the labels themselves.
    targets = torch.from_numpy(np.nan_to_num(joined.emotion_targets))
    task.data.emotion_predictions[:] = 8 * targets[:, None]
    with torch.no_grad():
        task.fusion.emotion.predict_projector.log_scale.fill_(2.0)
    found = task.validate()
    assert found["films/uar"] > 0.9 and found["score"] < task.start_score


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("both->emotion", {"films/uar", "films/weighted_f1"}),
        ("both->traits", {"talks/ccc", "talks/macc"}),
    ],
)
def test_single_task_modes_look_at_their_task_alone(make_joined, make_task, mode, names):
    joined = knowing(make_joined)
    task = make_task(joined, mode=mode)
    assert set(task.floor) == names
    assert set(task.validate()) == {*names, "score", "loss_of_exports"}


def test_a_sample_without_any_prediction_does_not_take_its_corpus_off_guard(make_joined, make_task):
    joined = knowing(make_joined)
    before = make_task(joined).floor
    (row, *_) = labelled(joined, "val")
    joined.emotion_predictions[row] = np.nan
    joined.trait_predictions[row] = np.nan
    assert set(make_task(joined).floor) == set(before)
    filled = answers_of_exports(joined, np.array([row]), ("emotion",))
    train_rows = joined.select(split="train")
    middle = np.nanmean(unimodal_outputs(joined, MEAN, train_rows).emotion_logits, axis=0)
    np.testing.assert_allclose(filled.emotion_logits[0], middle, rtol=1e-5, atol=1e-6)
    assert np.isnan(filled.trait_scores).all()


@pytest.mark.parametrize("guard", [True, False])
def test_answers_that_are_not_finite_are_an_error(make_joined, make_task, guard):
    task = make_task(make_joined(), guard=guard)
    with torch.no_grad():
        task.fusion.traits.head.bias.fill_(torch.nan)
    with pytest.raises(MeprError, match="traits answers .* are not finite"):
        task.validate()


# --- labels that are set aside -------------------------------------------------------------------


def test_hidden_labels_reach_no_weight_no_shift_and_no_constant(make_joined):
    share, seed = 0.4, 3
    settings = build(FusionSettings, {"emotion_loss": {"class_weights": "balanced"}})

    def made(change: bool):
        joined = make_joined(120)
        visible = visible_labels(joined, share, seed)
        if change:
            for name, labels in (("emotion", visible.emotion), ("trait", visible.traits)):
                values = getattr(joined, f"{name}_targets")
                gone = np.isnan(labels) & ~np.isnan(values)
                assert gone.any() and set(joined.splits[gone.any(axis=1)]) == {"train"}
                values[gone] = np.roll(values, 1, axis=1)[gone]
            visible = visible_labels(joined, share, seed)
        shift = balanced_shifts(joined, visible.emotion)
        joined.prior_shift = np.stack([shift[name] for name in joined.corpora])
        weights = build_objective(settings, joined, visible.emotion).class_weight
        rows = joined.select(split="train")
        constants = constants_of(visible.emotion[rows], visible.traits[rows])
        return [joined.prior_shift, weights.numpy(), constants.emotion, constants.trait_mean]

    for one, other in zip(made(False), made(True), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(one.any() for one in made(False)[:1])


@pytest.mark.parametrize(
    "given",
    [
        {"model": {"width": 30, "heads": 8}},
        {"model": {"kind": "published", "width": 9, "heads": 3}},
        {"model": {"queries": 0}},
        {"model": {"dropout": 1.5}},
        {"semi": {"refresh": 0}},
        {"weighting": "gradnorm", "gradnorm": {"floor": 2.0}},
    ],
)
def test_values_that_cannot_work_are_refused(given):
    with pytest.raises(ConfigError, match=r"^(model|semi|gradnorm)\."):
        check_settings(build(FusionSettings, given))


# --- labels that mean nothing --------------------------------------------------------------------


def write_exports(folder: Path, corpus: Path) -> None:
    for name in MODALITIES:
        create = ("export", "create", "--modality", name, "--corpus", str(corpus))
        table = str(folder / f"{name}.parquet")
        assert mepr([*create, "--from", table, "--out", str(folder / "exports")]) == 0


def train_on(folder: Path, path: Path, **options) -> Run:
    torch.set_num_threads(1)
    quick = {
        "model": {"width": 16, "heads": 2},
        "fit": {"epochs": 3, "batch_size": 64, "precision": "float32"},
    }
    inputs = choose([folder / "demo_features.parquet"], folder / "exports", {})
    settings = build(FusionSettings, quick, options)
    return train(inputs, settings, path, exports_root=folder / "exports")


def test_epoch_0_is_kept_where_every_epoch_is_worse(tmp_path):
    """Training labels are shuffled, those of validation are not: all that is learned is wrong."""
    path = make_demo_features(tmp_path, clips=300, seed=4)["corpus"]
    corpus = Corpus.read(path)
    order, rows = np.arange(len(corpus)), corpus.select(split="train")
    order[rows] = np.random.default_rng(0).permutation(rows)
    columns = {
        "sample_id": corpus.sample_ids,
        "split": corpus.table["split"].to_pylist(),
        "source_id": corpus.source_ids.tolist(),
        "emotion": corpus.emotion_values[order],
        "traits": corpus.trait_values[order],
    }
    Corpus.build(corpus.meta, columns).write(path, overwrite=True)
    write_exports(tmp_path, path)
    wrong = {"fit": {"learning_rate": 0.03, "scheduler": "none"}, "guard": False}
    run = train_on(tmp_path, tmp_path / "run", **wrong)
    assert len(run.log) == 4
    assert all(record["val"]["score"] < run.log[0]["val"]["score"] for record in run.log[1:])
    assert run.metrics["best_epoch"] == 0
    assert run.metrics["val"] == run.metrics["val_untrained"] == run.log[0]["val"]
    evaluation = Evaluation(run)
    rows = evaluation.joined.select(split="test")
    answers, mean = (evaluation.outputs(name, rows) for name in ("fusion", MEAN))
    # The untrained model answers with the mean of what it was given, and hardly more.
    assert np.abs(answers.emotion_logits - mean.emotion_logits).mean() < 0.2


def test_nothing_is_found_in_shuffled_labels(tmp_path):
    path = make_demo_features(tmp_path, clips=700, seed=4, shuffle_labels=True)["corpus"]
    write_exports(tmp_path, path)
    run = train_on(tmp_path, tmp_path / "run", ssl=True, hidden_labels=0.3)
    (record,) = Evaluation(run).scores("test")
    low, high = record["emotion"]["ci"]["mwacc"]
    assert low <= 0.5 <= high
    low, high = record["traits"]["ci"]["ccc"]
    assert low <= 0.0 <= high
    for task, score in (("emotion", "mwacc"), ("traits", "ccc")):
        found = record["best_single"][task]["difference"]
        assert found[score]["ci"][0] <= 0, (task, found[score])
