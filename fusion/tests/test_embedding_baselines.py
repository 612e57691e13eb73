"""The linear baseline on the embeddings: parity with scikit-learn, absent modalities, storage."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from mepr_fusion.join import Joined
from mepr_fusion.report import baseline_store
from mepr_fusion.report.baseline_store import as_seen, fit_key, linear_model_of
from mepr_fusion.report.embedding_baselines import (
    ITERATIONS,
    PENALTIES,
    LinearModel,
    design_matrix,
    fit_linear_model,
    ridge,
)
from mepr_shared.metrics import single_label_scores, trait_scores
from mepr_shared.train.runs import Run

MODALITIES = ("audio", "text")


def make_table(
    count: int = 400, *, multi_label: bool = False, seed: int = 0, width: int = 6
) -> Joined:
    """Embeddings that know the labels, noise beside them; a third of the samples lacks audio."""
    random = np.random.default_rng(seed)
    cause = random.normal(size=(count, 12))
    present = np.ones((count, 2), dtype=bool)
    present[::3, 0] = False
    features = {}
    for index, name in enumerate(MODALITIES):
        values = (
            cause @ random.normal(size=(12, width)) * 3 + random.normal(size=(count, width)) + 5
        )
        values[~present[:, index]] = np.nan
        features[name] = values.astype(np.float32)
    odds = cause[:, :7] * 2 + random.normal(size=(count, 7))
    odds[:, 6] -= 100  # surprise never occurs
    emotion = odds > 1 if multi_label else np.eye(7)[odds.argmax(axis=1)]
    traits = 1 / (1 + np.exp(-cause[:, 7:] / 2))
    splits = np.array(["train"] * (count // 2) + ["val"] * (count - count // 2), dtype=object)

    def unknown(*shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan, dtype=np.float32)

    return Joined(
        MODALITIES,
        dict.fromkeys(MODALITIES, (width // 2, width - width // 2)),
        ("films",),
        np.zeros(count, dtype=np.int32),
        np.arange(count),
        splits,
        np.array([f"films/{i}" for i in range(count)], dtype=object),
        features,
        unknown(2, 7),
        unknown(2, 5),
        present,
        emotion.astype(np.float32),
        traits.astype(np.float32),
        np.full(count, multi_label),
        prior_shift=np.zeros((1, 7), dtype=np.float32),
    )


def inputs_of(model: LinearModel, joined: Joined, split: str) -> np.ndarray:
    rows = joined.select(split=split)
    return design_matrix(joined, rows, model.arrays["mean"], model.arrays["scale"])


def test_ridge_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    inputs = random.normal(size=(90, 7)).astype(np.float32) + 1
    targets = random.uniform(size=(90, 5))
    weight, bias = ridge(inputs, targets, 0.3)
    reference = Ridge(alpha=0.3 * 90).fit(inputs.astype(np.float64), targets)
    np.testing.assert_allclose(weight, reference.coef_.T, atol=1e-6)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-6)


def test_inputs_are_standardised_and_absence_is_zeros_and_a_bit() -> None:
    joined = make_table()
    inputs = inputs_of(fit_linear_model(joined), joined, "train")
    audio, bit = inputs[:, :6], inputs[:, 12]
    here = joined.present[joined.select(split="train"), 0]
    assert (audio[~here] == 0).all() and (bit == here).all() and (inputs[:, 13] == 1).all()
    np.testing.assert_allclose(audio[here].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(audio[here].std(axis=0), 1, atol=1e-4)


def test_decisions_are_those_of_a_balanced_logistic_regression() -> None:
    joined = make_table()
    model = fit_linear_model(joined)
    train, val = joined.select(split="train"), joined.select(split="val")
    label = joined.emotion_targets[train].argmax(axis=1)
    penalty = model.record["chosen"]["softmax"]["penalty"]
    reference = LogisticRegression(
        class_weight="balanced", C=1 / (penalty * len(train)), tol=1e-6, max_iter=10 * ITERATIONS
    ).fit(inputs_of(model, joined, "train"), label)
    decided = model.outputs(joined, val).emotion_logits + model.decision_shift(joined, val)
    said = reference.predict(inputs_of(model, joined, "val"))
    assert (decided.argmax(axis=1) == said).mean() > 0.99
    # A class of which training has no example is never chosen.
    assert 6 not in decided.argmax(axis=1)


def test_logits_without_the_shift_are_calibrated() -> None:
    """Balanced weights make a rare class frequent; taking them back restores its rate."""
    joined = make_table(1200)
    model = fit_linear_model(joined)
    rows = joined.select(split="train")
    logits = model.outputs(joined, rows).emotion_logits.astype(float)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    rate = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(rate, joined.emotion_targets[rows].mean(axis=0), atol=0.06)


@pytest.mark.parametrize("multi_label", [False, True])
def test_it_learns_what_the_embeddings_know(multi_label: bool) -> None:
    joined = make_table(multi_label=multi_label)
    model = fit_linear_model(joined)
    val = joined.select(split="val")
    outputs = model.outputs(joined, val)
    assert np.isfinite(outputs.emotion_logits).all()
    assert ((outputs.trait_scores >= 0) & (outputs.trait_scores <= 1)).all()
    assert trait_scores(joined.trait_targets[val], outputs.trait_scores)["ccc"] > 0.5
    if multi_label:
        assert model.thresholds is not None
        assert model.record["chosen"]["sigmoid"]["validation"][0] > 0.6
    else:
        odds = np.exp(outputs.emotion_logits + model.decision_shift(joined, val))
        shares = odds / odds.sum(axis=1, keepdims=True)
        assert single_label_scores(joined.emotion_targets[val], shares)["uar"] > 0.4


def test_labels_of_validation_and_test_teach_nothing() -> None:
    joined = make_table()
    chosen = fit_linear_model(joined)
    rest = joined.select(split="val")
    joined.emotion_targets[rest] = np.nan
    joined.trait_targets[rest] = np.nan
    unjudged = fit_linear_model(joined)
    # Without validation labels the penalty in the middle is taken; statistics stay the same.
    assert unjudged.record["chosen"]["traits"]["penalty"] == PENALTIES[len(PENALTIES) // 2]
    np.testing.assert_array_equal(unjudged.arrays["mean"], chosen.arrays["mean"])
    joined.emotion_targets[:] = np.nan
    joined.trait_targets[:] = np.nan
    outputs = fit_linear_model(joined).outputs(joined, rest)
    assert np.isnan(outputs.emotion_logits).all() and np.isnan(outputs.trait_scores).all()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    corpus = {"name": "films", "samples_sha256": "a", "labels_sha256": "b"}
    config = {
        "settings": {"fit": {"seed": 0}},
        "exports": {"text:films": "1f3a"},
        "corpora": [corpus],
    }
    return Run.create(tmp_path / "run", kind="stage3", config=config)


def test_labels_that_training_set_aside_are_not_used(run: Run) -> None:
    joined = make_table()
    assert as_seen(run, joined) is joined
    before = fit_key(run)
    run.config["settings"] |= {"hidden_labels": 0.9, "ssl": True}
    seen = as_seen(run, joined)
    train, val = joined.select(split="train"), joined.select(split="val")
    kept = ~np.isnan(seen.emotion_targets[train]).any(axis=1)
    assert 0 < kept.mean() < 0.2
    np.testing.assert_array_equal(seen.emotion_targets[val], joined.emotion_targets[val])
    assert not np.isnan(joined.emotion_targets).any()
    assert fit_key(run) != before
    rows = linear_model_of(run, joined).record["chosen"]["softmax"]["rows"]
    assert rows == kept.sum()


def test_it_is_fitted_once_per_inputs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = make_table()
    fits = []
    fit = SimpleNamespace(real=fit_linear_model)
    monkeypatch.setattr(
        baseline_store, "fit_linear_model", lambda table: fits.append(1) or fit.real(table)
    )
    val = joined.select(split="val")
    first = linear_model_of(run, joined).outputs(joined, val)
    again = linear_model_of(run, joined)
    np.testing.assert_array_equal(again.outputs(joined, val).trait_scores, first.trait_scores)
    np.testing.assert_array_equal(again.outputs(joined, val).emotion_logits, first.emotion_logits)
    assert len(fits) == 1
    run.config["exports"]["text:films"] = "another"
    linear_model_of(run, joined)
    assert len(fits) == 2
    # Damage is found and mended.
    path = run.path / "baselines.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    linear_model_of(run, joined)
    (run.path / "baselines.json").write_text("{")
    linear_model_of(run, joined)
    assert len(fits) == 4
    assert json.loads((run.path / "baselines.json").read_text())["embeddings_linear"]["chosen"]
