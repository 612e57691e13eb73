"""Logits of several teams on one scale, and an average of one that decides as its model did."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_fusion.calibrate import MAXIMUM_LOG_ODDS, common_shift, comparable
from mepr_shared.contract.reader import emotion_probabilities
from mepr_shared.contract.schema import EmotionOutput

SHIFT = [0.5, -1.0, 0.0, 2.0, 0.3, -0.7, 1.1]
LOGITS = np.random.default_rng(0).normal(scale=2, size=(50, 7)).astype(np.float32)


def output(kind: str) -> EmotionOutput:
    return EmotionOutput(kind, prior_shift=SHIFT, temperature=1.7)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("multi_label", [True, False])
def test_comparable_logits_give_back_the_calibrated_probabilities(kind, multi_label):
    wanted = emotion_probabilities(LOGITS, output(kind)).astype(np.float64)
    found = comparable(LOGITS, output(kind), multi_label=multi_label).astype(np.float64)
    if multi_label:
        np.testing.assert_allclose(1 / (1 + np.exp(-found)), wanted, atol=1e-5)
    else:
        softmax = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(softmax, wanted / wanted.sum(1, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-4)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_with_its_own_shift_an_export_decides_as_its_raw_logits(kind):
    multi_label = kind == "sigmoid"
    back = comparable(LOGITS, output(kind), multi_label=multi_label)
    back = back + common_shift([output(kind)], multi_label=multi_label)
    if multi_label:
        # (z - shift) / T + shift / T = z / T: the same order, zero where the raw logit is zero.
        np.testing.assert_allclose(back, LOGITS / 1.7, atol=1e-5)
    else:
        assert (back.argmax(axis=1) == LOGITS.argmax(axis=1)).all()


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("multi_label", [True, False])
def test_certainty_stays_finite_and_bounded_and_absence_stays_nan(kind, multi_label):
    extreme = np.float32([[1e4, -1e4, 0, 0, 0, 0, 0], [np.nan] * 7])
    found = comparable(extreme, EmotionOutput(kind), multi_label=multi_label)
    assert np.isfinite(found[0]).all() and np.abs(found[0]).max() <= MAXIMUM_LOG_ODDS + 1e-3
    assert np.isnan(found[1]).all()


def test_common_shift_is_the_mean_of_the_exports_of_that_kind_only():
    flat = EmotionOutput("softmax", prior_shift=[1.0] * 7, temperature=2.0)
    steep = EmotionOutput("softmax", prior_shift=SHIFT)
    other = EmotionOutput("sigmoid", prior_shift=[9.0] * 7)
    found = common_shift([flat, steep, other], multi_label=False)
    np.testing.assert_allclose(found, (np.array(SHIFT) + 0.5) / 2, rtol=1e-6)
    assert (common_shift([other], multi_label=False) == 0).all()
