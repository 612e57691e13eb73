"""Trait scores against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from mepr_shared.labels import TRAITS
from mepr_shared.metrics import trait_scores

N = 120


def traits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.beta(4, 4, (N, 5))
    scores = np.clip(0.4 * targets + 0.3 + 0.08 * generator.standard_normal((N, 5)), 0, 1)
    return targets, scores


def concordance(x: np.ndarray, y: np.ndarray) -> float:
    """Lin's coefficient with sums written out."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    var_x = sum((a - mean_x) ** 2 for a in x) / n
    var_y = sum((b - mean_y) ** 2 for b in y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    if var_x == 0 or var_y == 0:
        return 0.0
    return 2 * covariance / (var_x + var_y + (mean_x - mean_y) ** 2)


def test_trait_scores_are_the_formulas_written_out() -> None:
    targets, said = traits()
    scores = trait_scores(targets, said)
    accuracy, ccc, r2 = [], [], []
    for k, trait in enumerate(TRAITS):
        y, x = targets[:, k], said[:, k]
        accuracy.append(1 - sk.mean_absolute_error(y, x))
        ccc.append(concordance(x, y))
        r2.append(sk.r2_score(y, x))
        row = scores["per_trait"][trait]
        assert row == pytest.approx(
            {
                "acc": accuracy[-1],
                "ccc": ccc[-1],
                "r2": r2[-1],
                "signed_error": np.mean(x - y),
                "n": N,
            }
        )
    assert scores["macc"] == pytest.approx(np.mean(accuracy))
    assert scores["ccc"] == pytest.approx(np.mean(ccc))
    assert scores["r2"] == pytest.approx(np.mean(r2))
    assert scores["ccc_flat"] == pytest.approx(concordance(said.ravel(), targets.ravel()))
    assert abs(scores["ccc_flat"] - scores["ccc"]) > 1e-4  # two different things
    assert scores["n"] == N


def test_missing_trait_labels_are_left_out_per_trait() -> None:
    targets, said = traits()
    targets[:40, 0] = np.nan
    targets[3] = np.nan
    scores = trait_scores(targets, said)
    assert scores["n"] == N - 1
    assert scores["per_trait"]["openness"]["n"] == N - 40
    expected = concordance(said[40:, 0], targets[40:, 0])
    assert scores["per_trait"]["openness"]["ccc"] == pytest.approx(expected)
    # whatever was predicted where there is no label does not matter
    said[:40, 0] = np.nan
    said[3] = 99
    assert trait_scores(targets, said) == scores


def test_a_constant_has_no_concordance_and_constant_labels_no_r2() -> None:
    targets, _ = traits()
    constant = np.tile(targets.mean(axis=0), (N, 1))
    scores = trait_scores(targets, constant)
    assert scores["ccc"] == 0
    assert scores["r2"] == pytest.approx(0, abs=1e-12)
    flat = trait_scores(np.full((N, 5), 0.3), np.full((N, 5), 0.3))
    assert flat["ccc"] == 0
    assert flat["r2"] is None
    assert flat["macc"] == 1


def test_a_trait_without_labels_is_null_and_the_means_are_over_the_others() -> None:
    targets, said = traits()
    targets[:, 2] = np.nan
    scores = trait_scores(targets, said)
    assert scores["per_trait"]["extraversion"]["ccc"] is None
    others = [scores["per_trait"][t]["ccc"] for t in TRAITS if t != "extraversion"]
    assert scores["ccc"] == pytest.approx(np.mean(others))


unit = hnp.arrays(np.float32, (12, 5), elements=st.floats(0, 1, width=32))


@given(unit, unit)
@settings(max_examples=60, deadline=None)
def test_ccc_is_symmetric_bounded_and_no_larger_than_the_correlation(
    x: np.ndarray, y: np.ndarray
) -> None:
    there, back = trait_scores(x, y), trait_scores(y, x)
    for name in ("ccc", "ccc_flat"):
        assert there[name] == pytest.approx(back[name], abs=1e-9)
        assert -1 <= there[name] <= 1
    for k, trait in enumerate(TRAITS):
        a, b = x[:, k].astype(float), y[:, k].astype(float)
        if a.std() > 1e-4 and b.std() > 1e-4:
            found = there["per_trait"][trait]["ccc"]
            assert abs(found) <= abs(np.corrcoef(a, b)[0, 1]) + 1e-9
            assert found == pytest.approx(concordance(a, b), abs=1e-7)


@given(unit, st.floats(0.1, 1))
@settings(max_examples=30, deadline=None)
def test_ccc_is_one_only_for_the_labels_themselves(x: np.ndarray, shrink: float) -> None:
    if x.std(axis=0).min() < 1e-3:
        return
    assert trait_scores(x, x)["ccc"] == pytest.approx(1)
    if shrink < 0.99:
        mean = x.mean(axis=0, dtype=float)
        assert trait_scores(x, mean + shrink * (x - mean))["ccc"] < 1 - 1e-6
