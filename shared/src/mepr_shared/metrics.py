"""Scores of emotion and trait predictions.

`weights` are optional everywhere: `[N]` non-negative, and an integer weight k equals the sample
repeated k times. An undefined score is NaN in arrays and None in the dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mepr_shared.additive import (
    binary_statistics,
    confusion_statistics,
    mean_defined,
    multi_label_scores_from,
    single_label_scores_from,
    trait_scores_from,
    trait_statistics,
)
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TRAITS

EmotionOutput = Literal["sigmoid", "softmax"]
Array = np.ndarray

# Balanced accuracies closer than this differ by rounding only.
_TIE = 1e-12

# Six emotions, binary each: neutral is what is left when none of them is present.
_NAMED = slice(1, None)


# --- emotion, single label -------------------------------------------------------------------


def single_label_scores(
    targets: Array, probabilities: Array, weights: Array | None = None
) -> dict[str, Any]:
    """Scores of a single-label emotion corpus; see `single_label_scores_from`.

    Returns:
        `n, uar, mwacc (None), macro_f1, weighted_f1, accuracy, confusion` (rows are true
        classes), `undefined` (classes without a sample) and `per_class`.
    """
    targets, probabilities, weights = _checked(targets, probabilities, weights, EMOTIONS)
    confusion = _weighted_sum(confusion_statistics(targets, probabilities), weights)
    scores = single_label_scores_from(confusion)
    per_class = ("recall", "precision", "f1", "support")
    return {
        "n": _size(np.ones(len(targets)), weights),
        **{name: number(scores[name]) for name in ("uar", "macro_f1", "weighted_f1", "accuracy")},
        "mwacc": None,
        "confusion": confusion.tolist(),
        "undefined": [
            name for name, count in zip(EMOTIONS, scores["support"], strict=True) if count == 0
        ],
        "per_class": _table(EMOTIONS, {name: scores[name] for name in per_class}),
    }


# --- emotion, multi-label --------------------------------------------------------------------


def multi_label_scores(
    targets: Array,
    probabilities: Array,
    thresholds: Array,
    weights: Array | None = None,
    *,
    output: EmotionOutput = "sigmoid",
) -> dict[str, Any]:
    """Scores of a multi-label emotion corpus over the six emotions besides `neutral`.

    Args:
        targets: `[N, 7]` 0/1.
        probabilities: `[N, 7]`.
        thresholds: `[7]`; an emotion is found where its probability is at least this.
        weights: `[N]`.
        output: what made the probabilities of the logits; the published rule needs a softmax.

    Returns:
        `n, mwacc, uar` (the same number: mWACC is the mean UAR of the binary tasks),
        `mwacc_published_rule, macro_f1, weighted_f1, auroc, average_precision, undefined`
        (classes with one label value) and `per_class`.
    """
    targets, probabilities, weights = _checked(targets, probabilities, weights, EMOTIONS)
    statistics = binary_statistics(targets, probabilities >= np.asarray(thresholds))[:, _NAMED]
    scores = multi_label_scores_from(_weighted_sum(statistics, weights))
    published = binary_statistics(
        targets[:, _NAMED], published_rule(softmax_of(probabilities, output))
    )
    rule = multi_label_scores_from(_weighted_sum(published, weights))
    areas = np.array(
        [_areas(targets[:, k], probabilities[:, k], weights) for k in range(1, len(EMOTIONS))]
    )
    names = EMOTIONS[_NAMED]
    columns = {
        "wacc": scores["wacc"],
        "auroc": areas[:, 0],
        "average_precision": areas[:, 1],
        "recall": scores["recall"],
        "specificity": scores["specificity"],
        "f1": scores["f1"],
        "macro_f1": scores["class_macro_f1"],
        "weighted_f1": scores["class_weighted_f1"],
        "threshold": np.asarray(thresholds, dtype=float)[_NAMED],
        "support": scores["positives"],
    }
    return {
        "n": _size(np.ones(len(targets)), weights),
        "uar": number(scores["mwacc"]),
        "mwacc": number(scores["mwacc"]),
        "mwacc_published_rule": number(rule["mwacc"]),
        "macro_f1": number(scores["macro_f1"]),
        "weighted_f1": number(scores["weighted_f1"]),
        "auroc": number(mean_defined(areas[:, 0])),
        "average_precision": number(mean_defined(areas[:, 1])),
        "undefined": [
            name for name, value in zip(names, scores["wacc"], strict=True) if np.isnan(value)
        ],
        "per_class": _table(names, columns),
    }


def published_rule(softmax: Array) -> Array:
    """Decisions `[N, 6]` of the published code: at least 1/7, none where neutral is >= 6/7."""
    classes = len(EMOTIONS)
    return (softmax[:, _NAMED] >= 1 / classes) & (softmax[:, :1] < 1 - 1 / classes)


def softmax_of(probabilities: Array, output: EmotionOutput) -> Array:
    """The softmax of the logits behind `[N, 7]` probabilities of either kind."""
    if output == "softmax":
        return probabilities
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    odds = inside / (1 - inside)  # exp(logit)
    return odds / odds.sum(axis=1, keepdims=True)


def best_thresholds(targets: Array, probabilities: Array, weights: Array | None = None) -> Array:
    """Per class the threshold with the best balanced accuracy (use the validation split).

    Exact: every midpoint between two neighbouring probabilities is tried. Of equally good ones
    the nearest to 0.5 is taken, then the lower. A class with one label value, or where no cut
    beats chance, gets 0.5.

    Args:
        targets: `[N, 7]` 0/1.
        probabilities: `[N, 7]`.
        weights: `[N]`.

    Returns:
        `[7]` float64.
    """
    targets, probabilities, weights = _checked(targets, probabilities, weights, EMOTIONS)
    weight = np.ones(len(targets)) if weights is None else weights
    used = weight > 0  # samples of no weight must not move a midpoint
    targets, probabilities, weight = targets[used], probabilities[used], weight[used]
    return np.array(
        [
            _best_threshold(targets[:, k] > 0.5, probabilities[:, k], weight)
            for k in range(targets.shape[1])
        ]
    )


def _best_threshold(positive: Array, probability: Array, weight: Array) -> float:
    values, position = np.unique(probability, return_inverse=True)
    positives = np.bincount(position, weight * positive, minlength=len(values))
    negatives = np.bincount(position, weight * ~positive, minlength=len(values))
    if len(values) < 2 or positives.sum() == 0 or negatives.sum() == 0:
        return 0.5
    # a cut between value i and i + 1 rejects everything up to i
    missed = np.cumsum(positives)[:-1] / positives.sum()
    rejected = np.cumsum(negatives)[:-1] / negatives.sum()
    accuracy = (1 - missed + rejected) / 2
    best = accuracy.max()
    if best <= 0.5 + _TIE:
        return 0.5
    cuts = (values[:-1] + values[1:]) / 2
    cuts = np.where(cuts > values[:-1], cuts, values[1:])  # neighbouring floats have no middle
    tied = cuts[accuracy >= best - _TIE]
    return float(tied[np.argmin(np.abs(tied - 0.5))])


def _areas(target: Array, score: Array, weights: Array | None) -> tuple[float, float]:
    """AUROC and average precision of one class; NaN where it has one label value."""
    used = slice(None) if weights is None else weights > 0
    if len(np.unique(target[used])) < 2:
        return np.nan, np.nan
    from sklearn.metrics import average_precision_score, roc_auc_score  # slow to import

    return (
        float(roc_auc_score(target, score, sample_weight=weights)),
        float(average_precision_score(target, score, sample_weight=weights)),
    )


# --- traits ----------------------------------------------------------------------------------


def trait_scores(targets: Array, scores: Array, weights: Array | None = None) -> dict[str, Any]:
    """Scores of trait predictions `[N, 5]` in [0, 1]; NaN targets are left out per trait.

    Returns:
        `n` (rows with any label), `macc, ccc, ccc_flat, r2` and `per_trait` with `acc, ccc, r2,
        signed_error, n`.
    """
    targets, scores, weights = _checked(targets, scores, weights, TRAITS)
    known = ~np.isnan(targets)
    centre = float(targets[known].mean()) if known.any() else 0.0
    moments = _weighted_sum(trait_statistics(targets, scores, centre), weights)
    found = trait_scores_from(moments)
    columns = {
        "acc": found["trait_acc"],
        "ccc": found["trait_ccc"],
        "r2": found["trait_r2"],
        "signed_error": found["signed_error"],
        "n": found["n"],
    }
    return {
        "n": _size(known.any(axis=1), weights),
        **{name: number(found[name]) for name in ("macc", "ccc", "ccc_flat", "r2")},
        "per_trait": _table(TRAITS, columns),
    }


# --- model selection -------------------------------------------------------------------------


def selection_score(
    emotion: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    traits: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
) -> float:
    """How much of the way from a constant to perfection a model goes, mean over tasks.

    (score - constant) / (1 - constant) with mWACC (constant 1/2) or UAR (constant 1 / number of
    classes present) for emotion, and mean CCC (constant 0) for traits. Several corpora of one
    task count as their mean, so that a task weighs the same however many corpora it has.

    Args:
        emotion: what `single_label_scores` or `multi_label_scores` returned, or a list of them.
        traits: what `trait_scores` returned, or a list of them.

    Raises:
        DataError: a score is undefined, or there is none at all.
    """
    tasks = [
        [_emotion_gain(scores) for scores in _as_list(emotion)],
        [_defined(scores, "ccc") for scores in _as_list(traits)],
    ]
    means = [float(np.mean(gains)) for gains in tasks if gains]
    if not means:
        raise DataError("no score to select a model by: the validation split has no labels")
    return float(np.mean(means))


def _emotion_gain(scores: Mapping[str, Any]) -> float:
    if scores.get("confusion") is None:
        score, constant = _defined(scores, "mwacc"), 0.5
    else:
        score = _defined(scores, "uar")
        constant = 1 / (len(EMOTIONS) - len(scores["undefined"]))
    if constant == 1:
        raise DataError("the validation split holds one emotion only: nothing to select by")
    return (score - constant) / (1 - constant)


def _defined(scores: Mapping[str, Any], name: str) -> float:
    if scores[name] is None:
        raise DataError(f"{name} is undefined on the validation split: it has too few labels")
    return float(scores[name])


def _as_list(scores: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> list[Any]:
    if scores is None:
        return []
    return [scores] if isinstance(scores, Mapping) else list(scores)


# --- helpers ---------------------------------------------------------------------------------


def number(value: Any) -> float | None:
    """A float for JSON, None where undefined."""
    return float(value) if np.isfinite(value) else None


def _table(names: Sequence[str], columns: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    return {
        name: {column: number(values[i]) for column, values in columns.items()}
        for i, name in enumerate(names)
    }


def _size(rows: Array, weights: Array | None) -> int:
    return int(rows.sum() if weights is None else round(float(weights @ rows)))


def _weighted_sum(statistics: Array, weights: Array | None) -> Array:
    return statistics.sum(axis=0) if weights is None else np.tensordot(weights, statistics, axes=1)


def _checked(
    targets: Array, predictions: Array, weights: Array | None, names: Sequence[str]
) -> tuple[Array, Array, Array | None]:
    targets = np.asarray(targets, dtype=np.float64)
    predictions = np.asarray(predictions, dtype=np.float64)
    if targets.shape != predictions.shape or targets.shape[1:] != (len(names),):
        raise DataError(
            f"targets {targets.shape} and predictions {predictions.shape} must both be"
            f" [N, {len(names)}]"
        )
    if names is EMOTIONS and np.isnan(targets).any():
        raise DataError("emotion targets hold unlabelled rows", hint="score the labelled ones")
    if not np.isfinite(predictions[~np.isnan(targets)]).all():
        raise DataError("predictions of labelled samples are not finite")
    if weights is None:
        return targets, predictions, None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(targets),) or not (weights >= 0).all():
        raise DataError(f"weights {weights.shape} must be [{len(targets)}], none negative")
    return targets, predictions, weights
