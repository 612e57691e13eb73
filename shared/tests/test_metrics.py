"""Emotion scores against scikit-learn or the formula written out; selection; what all share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS
from mepr_shared.metrics import (
    best_thresholds,
    multi_label_scores,
    published_rule,
    selection_score,
    single_label_scores,
    softmax_of,
    trait_scores,
)

N = 120
THRESHOLDS = np.array([0.5, 0.3, 0.4, 0.5, 0.45, 0.6, 0.35])


def single_label(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.choice(7, N, p=[0.4, 0.1, 0.05, 0.05, 0.2, 0.1, 0.1])
    probabilities = generator.random((N, 7)) + 0.4 * np.eye(7)[truth]
    return np.eye(7)[truth], probabilities / probabilities.sum(axis=1, keepdims=True)


def multi_label(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = (generator.random((N, 7)) < [0, 0.3, 0.2, 0.1, 0.5, 0.3, 0.1]).astype(float)
    targets[:, 0] = targets[:, 1:].sum(axis=1) == 0
    noise = generator.random((N, 7))
    # Rounded, so that there are ties for the areas and the thresholds to deal with.
    return targets, np.round(0.3 * targets + 0.7 * noise, 2)


def traits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.beta(4, 4, (N, 5))
    scores = np.clip(0.4 * targets + 0.3 + 0.08 * generator.standard_normal((N, 5)), 0, 1)
    return targets, scores


# --- single label ---


def test_single_label_scores_are_those_of_scikit_learn() -> None:
    targets, probabilities = single_label()
    truth, said = targets.argmax(axis=1), probabilities.argmax(axis=1)
    scores = single_label_scores(targets, probabilities)
    assert scores["n"] == N
    assert scores["uar"] == pytest.approx(sk.balanced_accuracy_score(truth, said))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(truth, said, average="macro"))
    assert scores["weighted_f1"] == pytest.approx(sk.f1_score(truth, said, average="weighted"))
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    assert scores["mwacc"] is None
    assert scores["undefined"] == []
    np.testing.assert_array_equal(scores["confusion"], sk.confusion_matrix(truth, said))
    columns = sk.precision_recall_fscore_support(truth, said, zero_division=0)
    for i, name in enumerate(EMOTIONS):
        row = scores["per_class"][name]
        expected = dict(
            zip(("precision", "recall", "f1", "support"), (c[i] for c in columns), strict=True)
        )
        assert row == pytest.approx(expected)


def test_a_class_without_samples_is_named_and_left_out_of_the_means() -> None:
    targets, probabilities = single_label()
    keep = targets[:, 3] == 0
    targets, probabilities = targets[keep], probabilities[keep]
    truth, said = targets.argmax(axis=1), probabilities.argmax(axis=1)
    scores = single_label_scores(targets, probabilities)
    present = [0, 1, 2, 4, 5, 6]
    assert scores["undefined"] == ["fear"]
    assert scores["per_class"]["fear"] == {
        "recall": None,
        "precision": None,
        "f1": None,
        "support": 0,
    }
    expected = sk.recall_score(truth, said, labels=present, average="macro")
    assert scores["uar"] == pytest.approx(expected)
    expected = sk.f1_score(truth, said, labels=present, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(expected)


def test_the_largest_class_of_a_distribution_is_the_true_one() -> None:
    targets, probabilities = single_label()
    soft = 0.7 * targets + 0.3 / 7
    assert single_label_scores(soft, probabilities) == single_label_scores(targets, probabilities)


# --- multi-label ---


def test_multi_label_scores_are_the_means_of_the_binary_scores_of_six_emotions() -> None:
    targets, probabilities = multi_label()
    scores = multi_label_scores(targets, probabilities, THRESHOLDS)
    columns: dict[str, list[float]] = {
        "wacc": [],
        "macro_f1": [],
        "weighted_f1": [],
        "auroc": [],
        "average_precision": [],
    }
    for k in range(1, 7):
        truth, said = targets[:, k], probabilities[:, k] >= THRESHOLDS[k]
        true_positive_rate = said[truth == 1].mean()
        true_negative_rate = 1 - said[truth == 0].mean()
        columns["wacc"].append((true_positive_rate + true_negative_rate) / 2)
        columns["macro_f1"].append(sk.f1_score(truth, said, average="macro"))
        columns["weighted_f1"].append(sk.f1_score(truth, said, average="weighted"))
        columns["auroc"].append(pair_area(truth, probabilities[:, k]))
        columns["average_precision"].append(stepwise_precision(truth, probabilities[:, k]))
        row = scores["per_class"][EMOTIONS[k]]
        assert row["f1"] == pytest.approx(sk.f1_score(truth, said))
        assert row["recall"] == pytest.approx(true_positive_rate)
        assert row["specificity"] == pytest.approx(true_negative_rate)
        assert row["threshold"] == THRESHOLDS[k]
        assert row["support"] == truth.sum()
        for name, values in columns.items():
            assert row[name] == pytest.approx(values[-1])
    assert scores["mwacc"] == scores["uar"] == pytest.approx(np.mean(columns["wacc"]))
    for name in ("macro_f1", "weighted_f1", "auroc", "average_precision"):
        assert scores[name] == pytest.approx(np.mean(columns[name]))
    assert list(scores["per_class"]) == list(EMOTIONS[1:])


def pair_area(truth: np.ndarray, score: np.ndarray) -> float:
    """AUROC as the share of (positive, negative) pairs in the right order, ties for a half."""
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in score[truth == 1]
        for low in score[truth == 0]
    ]
    return sum(pairs) / len(pairs)


def stepwise_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision: precision at each threshold times the recall gained there."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        said = score >= threshold
        recall = truth[said].sum() / truth.sum()
        total += (recall - recall_before) * truth[said].mean()
        recall_before = recall
    return total


def test_a_class_with_one_label_value_is_null_and_named_never_a_recall_of_one() -> None:
    targets, probabilities = multi_label()
    targets[:, 2] = 0  # disgust never
    targets[:, 4] = 1  # happiness always
    scores = multi_label_scores(targets, probabilities, THRESHOLDS)
    assert scores["undefined"] == ["disgust", "happiness"]
    for name in ("disgust", "happiness"):
        row = scores["per_class"][name]
        assert row["wacc"] is row["auroc"] is row["average_precision"] is row["f1"] is None
    others = [scores["per_class"][e]["wacc"] for e in ("anger", "fear", "sadness", "surprise")]
    assert scores["mwacc"] == pytest.approx(np.mean(others))


def test_the_published_rule_wants_a_seventh_and_nothing_beside_a_certain_neutral() -> None:
    softmax = np.array(
        [
            [0.10, 0.30, 0.30, 0.30, 0.00, 0.00, 0.00],
            [0.86, 0.14, 0.00, 0.00, 0.00, 0.00, 0.00],  # 0.86 > 6/7: none
            [0.85, 0.15, 0.00, 0.00, 0.00, 0.00, 0.00],  # just under 6/7
        ]
    )
    expected = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(published_rule(softmax), np.array(expected, dtype=bool))


def test_the_published_rule_sees_the_softmax_of_the_logits_behind_sigmoid_probabilities() -> None:
    logits = np.random.default_rng(1).standard_normal((9, 7)) * 3
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax_of(1 / (1 + np.exp(-logits)), "sigmoid"), softmax, rtol=1e-9)
    np.testing.assert_array_equal(softmax_of(softmax, "softmax"), softmax)
    targets = multi_label()[0][:9]
    by_sigmoid = multi_label_scores(targets, 1 / (1 + np.exp(-logits)), THRESHOLDS)
    by_softmax = multi_label_scores(targets, softmax, THRESHOLDS, output="softmax")
    assert by_sigmoid["mwacc_published_rule"] == by_softmax["mwacc_published_rule"]
    said = published_rule(softmax)
    recalls = [
        sk.balanced_accuracy_score(targets[:, k + 1], said[:, k])
        for k in range(6)
        if 0 < targets[:, k + 1].sum() < 9
    ]
    assert by_softmax["mwacc_published_rule"] == pytest.approx(np.mean(recalls))


# --- thresholds ---


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float(said[truth == 1].mean() + (~said)[truth == 0].mean()) / 2


def test_no_cut_point_beats_the_best_threshold() -> None:
    targets, probabilities = multi_label()
    thresholds = best_thresholds(targets, probabilities)
    for k in range(7):
        truth, score = targets[:, k], probabilities[:, k]
        found = balanced_accuracy(truth, score >= thresholds[k])
        every = [balanced_accuracy(truth, score >= cut) for cut in [*score, 2.0]]
        assert found == pytest.approx(max(every))
        # a midpoint: equally far from the probabilities on both sides
        below, above = score[score < thresholds[k]].max(), score[score >= thresholds[k]].min()
        assert thresholds[k] == pytest.approx((below + above) / 2)


def test_ties_take_the_cut_nearest_to_a_half_then_the_lower() -> None:
    truth = np.array([0, 1, 0, 1])
    targets, probabilities = np.zeros((4, 7)), np.zeros((4, 7))
    targets[:, 1] = targets[:, 2] = truth
    probabilities[:, 1] = [0.1, 0.3, 0.5, 0.9]  # cuts at .2 and .7 tie, .7 no nearer than .3
    probabilities[:, 2] = [0.2, 0.4, 0.6, 0.8]  # cuts at .3 and .7, equally far
    thresholds = best_thresholds(targets, probabilities)
    assert thresholds[1] == pytest.approx(0.7)
    assert thresholds[2] == pytest.approx(0.3)


def test_one_label_value_or_nothing_better_than_chance_gives_a_half() -> None:
    targets, probabilities = np.zeros((4, 7)), np.full((4, 7), 0.2)
    targets[:, 1] = [0, 1, 0, 1]  # constant probability
    targets[:, 2], probabilities[:, 2] = [1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]  # upside down
    assert best_thresholds(targets, probabilities).tolist() == [0.5] * 7


def test_a_sample_of_no_weight_moves_no_threshold() -> None:
    targets, probabilities = np.zeros((3, 7)), np.zeros((3, 7))
    targets[:, 1], probabilities[:, 1] = [0, 1, 1], [0.1, 0.2, 0.9]
    thresholds = best_thresholds(targets, probabilities, np.array([1, 0, 1]))
    assert thresholds[1] == pytest.approx(0.5)  # the middle of .1 and .9; .55 is that of .2 and .9


def test_a_threshold_between_neighbouring_floats_still_separates_them() -> None:
    low = 0.3
    high = np.nextafter(low, 1)
    targets, probabilities = np.zeros((2, 7)), np.tile([[low], [high]], (1, 7))
    targets[1] = 1
    threshold = best_thresholds(targets, probabilities)[0]
    assert low < threshold <= high


# --- weights, order, errors ---


def test_an_integer_weight_is_the_sample_that_many_times() -> None:
    weights = np.random.default_rng(5).integers(0, 4, N)
    for scores_of, (targets, said) in (
        (single_label_scores, single_label()),
        (lambda t, p, w=None: multi_label_scores(t, p, THRESHOLDS, w), multi_label()),
        (trait_scores, traits()),
    ):
        weighted = scores_of(targets, said, weights)
        repeated = scores_of(np.repeat(targets, weights, 0), np.repeat(said, weights, 0))
        assert flat(weighted) == pytest.approx(flat(repeated))
        assert flat(weighted) != pytest.approx(flat(scores_of(targets, said)))
    targets, said = multi_label()
    expected = best_thresholds(np.repeat(targets, weights, 0), np.repeat(said, weights, 0))
    assert best_thresholds(targets, said, weights) == pytest.approx(expected)


def flat(scores: dict, prefix: str = "") -> dict[str, float]:
    """The numbers of a nested result by path."""
    found: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}/")
        elif key == "confusion":
            found |= {f"confusion/{i}": cell for i, cell in enumerate(np.ravel(value).tolist())}
        elif isinstance(value, (int, float)):
            found[prefix + key] = value
    return found


def test_swapped_columns_change_the_result() -> None:
    """A wrong label order must be visible in the scores, or no test of them would find it."""
    order = [0, 2, 1, 3, 4, 5, 6]
    for scores_of, headline, (targets, said) in (
        (single_label_scores, "uar", single_label()),
        (lambda t, p: multi_label_scores(t, p, THRESHOLDS), "auroc", multi_label()),
    ):
        right = scores_of(targets, said)
        wrong = scores_of(targets, said[:, order])
        assert wrong[headline] < right[headline] - 0.01
        both = scores_of(targets[:, order], said[:, order])
        assert flat(both) != pytest.approx(flat(right))
    targets, said = traits()
    assert (
        trait_scores(targets, said[:, [1, 0, 2, 3, 4]])["ccc"] < trait_scores(targets, said)["ccc"]
    )
    # labels and predictions exchanged: the signed error turns over
    there, back = trait_scores(targets, said), trait_scores(said, targets)
    name = "openness"
    assert there["per_trait"][name]["signed_error"] == pytest.approx(
        -back["per_trait"][name]["signed_error"]
    )
    assert there["r2"] != pytest.approx(back["r2"])


def test_unusable_input_is_refused() -> None:
    targets, said = traits()
    with pytest.raises(DataError, match=r"must both be \[N, 5\]"):
        trait_scores(targets, said[:, :4])
    said[0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        trait_scores(targets, said)
    emotion, probabilities = single_label()
    with pytest.raises(DataError, match="weights"):
        single_label_scores(emotion, probabilities, -np.ones(N))
    emotion[0] = np.nan
    with pytest.raises(DataError, match="unlabelled"):
        single_label_scores(emotion, probabilities)


# --- model selection ---


def test_the_selection_score_is_the_way_from_a_constant_to_perfection() -> None:
    targets, probabilities = single_label()
    perfect, constant = targets, np.tile(targets.mean(axis=0), (N, 1))
    assert selection_score(single_label_scores(targets, perfect)) == pytest.approx(1)
    assert selection_score(single_label_scores(targets, constant)) == pytest.approx(0)
    keep = targets[:, 3] == 0  # six classes present: the constant has 1/6
    six = single_label_scores(targets[keep], constant[keep])
    assert selection_score(six) == pytest.approx(0)

    many, multi_probabilities = multi_label()
    same_for_all = np.tile(many.mean(axis=0), (N, 1))
    assert selection_score(multi_label_scores(many, same_for_all, THRESHOLDS)) == pytest.approx(0)
    emotion = multi_label_scores(many, multi_probabilities, THRESHOLDS)
    assert selection_score(emotion) == pytest.approx(2 * emotion["mwacc"] - 1)

    trait_result = trait_scores(*traits())
    assert selection_score(None, trait_result) == pytest.approx(trait_result["ccc"])
    single = single_label_scores(targets, probabilities)
    gains = [(single["uar"] - 1 / 7) / (1 - 1 / 7), 2 * emotion["mwacc"] - 1]
    both = selection_score([single, emotion], [trait_result])
    assert both == pytest.approx((np.mean(gains) + trait_result["ccc"]) / 2)


def test_nothing_to_select_by_is_an_error() -> None:
    with pytest.raises(DataError, match="no score"):
        selection_score(None, None)
    targets = np.eye(7)[np.zeros(5, dtype=int)]
    with pytest.raises(DataError, match="one emotion only"):
        selection_score(single_label_scores(targets, targets))
    many = np.zeros((5, 7))
    with pytest.raises(DataError, match="mwacc is undefined"):
        selection_score(multi_label_scores(many, many, THRESHOLDS))


def test_results_hold_plain_floats_only() -> None:
    for scores in (
        single_label_scores(*single_label()),
        multi_label_scores(*multi_label(), THRESHOLDS),
        trait_scores(*traits()),
    ):
        assert all(type(value) in (int, float) for value in flat(scores).values())
        assert all(math.isfinite(value) for value in flat(scores).values())
