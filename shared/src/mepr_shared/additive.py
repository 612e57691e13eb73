"""Scores as functions of additive statistics.

Every headline score is a function of a confusion matrix, of binary counts or of moments, each a
(weighted) sum over samples. `metrics.py` sums over all samples; `intervals.py` sums per source
and then over resampled sources, on a leading axis. What is reported and what its interval is
made of are thus the same code. Undefined scores are NaN here.
"""

from __future__ import annotations

import numpy as np

from mepr_shared.labels import EMOTIONS

Array = np.ndarray

# Variance of float32 numbers in [0, 1] that are meant to be equal stays below this.
NO_SPREAD = 1e-14


def confusion_statistics(targets: Array, probabilities: Array) -> Array:
    """Per sample the cell of the confusion matrix it falls in.

    Args:
        targets: `[N, 7]` one-hot or distributions (the largest class counts).
        probabilities: `[N, 7]`, or any scores with the same argmax.

    Returns:
        `[N, 7, 7]`: a one at (true class, predicted class).
    """
    cells = np.zeros((len(targets), len(EMOTIONS), len(EMOTIONS)))
    rows = np.arange(len(targets))
    cells[rows, np.argmax(targets, axis=1), np.argmax(probabilities, axis=1)] = 1
    return cells


def single_label_scores_from(confusion: Array) -> dict[str, Array]:
    """Scores of confusion matrices `[..., 7, 7]` (true, predicted).

    Classes that never occur as a target have no recall: they are left out of the means, as
    scikit-learn does when given the classes present as `labels`.

    Returns:
        `uar, mwacc (undefined), macro_f1, weighted_f1, accuracy` `[...]`; `recall, precision,
        f1, support` `[..., 7]`. Precision is 0 for a class that is never predicted.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    present = support > 0
    recall = ratio(hits, support)
    f1 = np.where(present, ratio(2 * hits, support + predicted), np.nan)
    total = support.sum(axis=-1)
    uar = mean_defined(recall)
    return {
        "uar": uar,
        "mwacc": np.full_like(uar, np.nan),
        "macro_f1": mean_defined(f1),
        "weighted_f1": ratio((np.where(present, f1, 0) * support).sum(axis=-1), total),
        "accuracy": ratio(hits.sum(axis=-1), total),
        "recall": recall,
        "precision": np.where(present, ratio(hits, predicted, empty=0.0), np.nan),
        "f1": f1,
        "support": support,
    }


def binary_statistics(targets: Array, decisions: Array) -> Array:
    """Per sample and class one of true positive, false positive, false negative, true negative.

    Args:
        targets: `[N, K]` 0/1.
        decisions: `[N, K]` bool.

    Returns:
        `[N, K, 4]` one-hot, in that order.
    """
    true, said = targets > 0.5, decisions.astype(bool)
    return np.stack([true & said, ~true & said, true & ~said, ~true & ~said], axis=-1).astype(float)


def multi_label_scores_from(counts: Array) -> dict[str, Array]:
    """Scores of binary counts `[..., K, 4]`, as `binary_statistics` orders them.

    `mwacc` is the mean over classes of (TPR + TNR) / 2, the weighted accuracy of CMU-MOSEI
    (Zadeh et al. 2018). F1 is computed for both values of each class, as is usual on MOSEI:
    `macro_f1` is their plain and `weighted_f1` their support-weighted mean, then the mean over
    classes. A class with one label value is undefined and left out of the means.

    Returns:
        `uar` and `mwacc` (the same), `macro_f1, weighted_f1` `[...]`; `wacc, recall,
        specificity, f1, class_macro_f1, class_weighted_f1, positives, negatives` `[..., K]`.
    """
    hit, false_alarm, miss, rejection = np.moveaxis(counts, -1, 0)
    positives, negatives = hit + miss, false_alarm + rejection
    both = (positives > 0) & (negatives > 0)
    recall, specificity = ratio(hit, positives), ratio(rejection, negatives)
    errors = false_alarm + miss
    f1 = np.where(both, ratio(2 * hit, 2 * hit + errors), np.nan)
    f1_absent = np.where(both, ratio(2 * rejection, 2 * rejection + errors), np.nan)
    macro = (f1 + f1_absent) / 2
    weighted = ratio(f1 * positives + f1_absent * negatives, positives + negatives)
    wacc = (recall + specificity) / 2
    mwacc = mean_defined(wacc)
    return {
        "uar": mwacc,
        "mwacc": mwacc,
        "macro_f1": mean_defined(macro),
        "weighted_f1": mean_defined(weighted),
        "wacc": wacc,
        "recall": recall,
        "specificity": specificity,
        "f1": f1,
        "class_macro_f1": macro,
        "class_weighted_f1": weighted,
        "positives": positives,
        "negatives": negatives,
    }


def trait_statistics(targets: Array, scores: Array, centre: float) -> Array:
    """Per sample and trait the terms whose sums hold every trait score.

    Args:
        targets: `[N, 5]`, NaN where unlabelled.
        scores: `[N, 5]`.
        centre: subtracted from both sides, so that variances lose no digits.

    Returns:
        `[N, 5, 7]`: 1, x, y, x^2, y^2, x y, |x - y|; zeros where unlabelled.
    """
    known = ~np.isnan(targets)
    x = np.where(known, scores - centre, 0.0)
    y = np.where(known, targets - centre, 0.0)
    return np.stack([known.astype(float), x, y, x * x, y * y, x * y, np.abs(x - y)], axis=-1)


def trait_scores_from(moments: Array) -> dict[str, Array]:
    """Scores of summed `trait_statistics` `[..., 5, 7]`.

    CCC is Lin's (1989) concordance 2 cov / (var_x + var_y + (mean_x - mean_y)^2) with population
    moments, 0 where either side is constant.

    Returns:
        `macc, ccc, ccc_flat, r2` `[...]` (means over traits; `ccc_flat` over the flattened
        matrix); `trait_acc, trait_ccc, trait_r2, signed_error, n` `[..., 5]`. The signed error
        is mean(score - label).
    """
    count = moments[..., 0]
    trait_ccc, difference, variance, squared_error = _concordance(moments)
    accuracy = 1 - ratio(moments[..., 6], count)
    r2 = np.where(variance > NO_SPREAD, 1 - ratio(squared_error, variance), np.nan)
    return {
        "macc": mean_defined(accuracy),
        "ccc": mean_defined(trait_ccc),
        "ccc_flat": _concordance(moments.sum(axis=-2))[0],
        "r2": mean_defined(r2),
        "trait_acc": accuracy,
        "trait_ccc": trait_ccc,
        "trait_r2": r2,
        "signed_error": difference,
        "n": count,
    }


def _concordance(moments: Array) -> tuple[Array, Array, Array, Array]:
    """CCC, mean(x - y), variance of y, mean (x - y)^2 of moments `[..., 7]`."""
    count, x, y, xx, yy, xy, _ = np.moveaxis(moments, -1, 0)
    mean_x, mean_y = ratio(x, count), ratio(y, count)
    var_x, var_y = ratio(xx, count) - mean_x**2, ratio(yy, count) - mean_y**2
    covariance = ratio(xy, count) - mean_x * mean_y
    spread = var_x + var_y + (mean_x - mean_y) ** 2
    constant = (var_x <= NO_SPREAD) | (var_y <= NO_SPREAD)
    ccc = np.where(constant, 0.0, ratio(2 * covariance, spread))
    ccc = np.where(count > 0, np.clip(ccc, -1, 1), np.nan)
    return ccc, mean_x - mean_y, var_y, ratio(xx - 2 * xy + yy, count)


def ratio(numerator: Array, denominator: Array, empty: float = np.nan) -> Array:
    filled = denominator > 0
    return np.where(filled, numerator / np.where(filled, denominator, 1), empty)


def mean_defined(values: Array) -> Array:
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))
