"""Calibration against scikit-learn and written-out formulas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from mepr_fusion.analyze.reliability import (
    ece_if_calibrated,
    emotion_reliability,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    temperature_of,
    trait_calibration,
    trait_half_widths,
)
from mepr_shared.labels import EMOTIONS, TRAITS


def drawn(count: int, seed: int, temperature: float, multi_label: bool):
    """Logits that are `temperature` times too large, and labels."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 1.5, (count, 7))
    if multi_label:
        targets = (random.random((count, 7)) < 1 / (1 + np.exp(-z))).astype(float)
    else:
        targets = np.eye(7)[np.argmax(z + random.gumbel(size=z.shape), axis=1)]
    return (temperature * z).astype(np.float32), targets


def test_the_curve_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    p = random.beta(0.5, 1.5, 500)
    y = (random.random(500) < p**1.5).astype(float)
    curve = reliability_curve(p, y)
    frequency, probability = calibration_curve(y, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(curve.frequency, frequency)
    np.testing.assert_allclose(curve.probability, probability)
    assert curve.n == [50] * 10


def test_equal_probabilities_stay_together():
    p = np.repeat([0.2, 0.8], [30, 70])
    curve = reliability_curve(p, p > 0.5)
    assert curve.n == [30, 70] and curve.probability == pytest.approx([0.2, 0.8])


def test_the_calibration_error_is_the_weighted_gap():
    p, y = np.array([0.1, 0.1, 0.1, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])
    curve = reliability_curve(p, y, bins=2)
    wanted = 3 / 4 * abs(1 / 3 - 0.1) + 1 / 4 * abs(1 - 0.9)
    assert expected_calibration_error(curve) == pytest.approx(wanted)


def test_a_calibrated_model_shows_the_error_that_is_expected_of_it():
    random = np.random.default_rng(1)
    p = random.random(400)
    errors = [
        expected_calibration_error(reliability_curve(p, (random.random(400) < p).astype(float)))
        for _ in range(100)
    ]
    assert ece_if_calibrated(p) == pytest.approx(np.mean(errors), rel=0.1)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_temperature_is_found_and_never_makes_validation_worse(multi_label):
    logits, targets = drawn(3000, 2, 2.5, multi_label)
    assert temperature_of(logits, targets, multi_label) == pytest.approx(2.5, rel=0.1)
    for seed in range(5):
        logits, targets = drawn(40, seed, 1.0, multi_label)
        found = temperature_of(logits, targets, multi_label)
        z = logits.astype(float)
        before = negative_log_likelihood(z, targets, multi_label)
        assert negative_log_likelihood(z / found, targets, multi_label) <= before


def test_scores_of_sigmoids_are_those_of_scikit_learn():
    logits, targets = drawn(300, 3, 1.5, True)
    found = emotion_reliability(logits, targets, True, 1.5)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    for index, name in enumerate(EMOTIONS):
        entry = found["before"]["classes"][name]
        assert entry["brier"] == pytest.approx(brier_score_loss(targets[:, index], p[:, index]))
        assert entry["positives"] == targets[:, index].sum()
        assert sum(bin_["n"] for bin_ in entry["bins"]) == 300
    wanted = np.mean([log_loss(targets[:, index], p[:, index]) for index in range(7)])
    assert found["before"]["nll"] == pytest.approx(wanted)
    classes = found["before"]["classes"].values()
    assert found["before"]["ece"] == pytest.approx(np.mean([entry["ece"] for entry in classes]))
    assert found["after"]["ece"] < found["before"]["ece"]


def test_scores_of_a_softmax_are_those_of_scikit_learn():
    logits, targets = drawn(300, 4, 2.0, False)
    found = emotion_reliability(logits, targets, False, 2.0)
    z = logits.astype(float)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    label = targets.argmax(axis=1)
    assert found["before"]["nll"] == pytest.approx(log_loss(label, p, labels=range(7)))
    assert found["before"]["brier"] == pytest.approx(((p - targets) ** 2).sum(axis=1).mean())
    top = found["before"]["overall"]
    curve = reliability_curve(p.max(axis=1), (p.argmax(axis=1) == label).astype(float))
    assert top["of"] == "top label" and top["ece"] == pytest.approx(
        expected_calibration_error(curve)
    )
    for given, wanted in zip(top["bins"], curve.to_json(), strict=True):
        assert given == pytest.approx(wanted)
    assert found["after"]["overall"]["ece"] < top["ece"]


def test_the_trait_line_is_least_squares_and_half_widths_hold_what_they_say():
    random = np.random.default_rng(5)
    scores = random.uniform(0.3, 0.7, (1000, 5))
    labels = 1.5 * scores - 0.2 + random.normal(0, 0.05, scores.shape)
    labels[:100, 2] = np.nan
    widths = trait_half_widths(scores[:500], labels[:500])
    errors = np.sort(np.abs(scores - labels)[:500, 0])
    assert widths["openness"]["half_width_90"] == errors[int(np.ceil(501 * 0.9)) - 1]
    assert widths["extraversion"]["n"] == 400
    sources = [str(row // 5) for row in range(500)]
    found = trait_calibration(scores[500:], labels[500:], sources, widths)
    for index, name in enumerate(TRAITS):
        slope, intercept = np.polyfit(scores[500:, index], labels[500:, index], 1)
        entry = found[name]
        assert (entry["slope"], entry["intercept"]) == pytest.approx((slope, intercept))
        assert entry["slope_ci"][0] < slope < entry["slope_ci"][1]
        assert entry["coverage_90"] == pytest.approx(0.9, abs=0.05)
        assert entry["coverage_68"] == pytest.approx(0.68, abs=0.07)
