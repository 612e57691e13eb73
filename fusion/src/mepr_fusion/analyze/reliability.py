"""How far probabilities and trait scores can be believed.

Reliability curves and expected calibration error over bins of equal mass (Nguyen and O'Connor
2015; Naeini et al. 2015), Brier score, temperature scaling (Guo et al. 2017), and for traits the
calibration line and conformal half-widths (Lei et al. 2018). An ECE is never 0 on finite data:
`ece_if_calibrated` is what a perfectly calibrated model with the same probabilities would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mepr_fusion.predict.trait_intervals import conformal_half_width
from mepr_shared.additive import ratio
from mepr_shared.intervals import DEFAULT_RESAMPLING, Resampling, cluster_bootstrap
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.inference import calibrated_probabilities, fit_temperature

Array = np.ndarray
BINS = 10
LEVELS = (0.68, 0.9)
SIMULATIONS = 200
NO_SHIFT = np.zeros(len(EMOTIONS))


@dataclass(frozen=True)
class Curve:
    """Bins of equal mass: mean probability, share of positives, and samples, `[bins]` each."""

    probability: list[float]
    frequency: list[float]
    n: list[int]

    def to_json(self) -> list[dict[str, float]]:
        """One record per bin."""
        names = ("probability", "frequency", "n")
        rows = zip(self.probability, self.frequency, self.n, strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]


def reliability_curve(probabilities: Array, outcomes: Array, bins: int = BINS) -> Curve:
    """Compare probabilities `[N]` with outcomes `[N]` (0/1) in bins of equal mass.

    Equal probabilities stay in one bin; empty bins are left out.
    """
    edges = np.quantile(probabilities, np.arange(1, bins) / bins)
    place = np.searchsorted(edges, probabilities)
    n = np.bincount(place, minlength=bins)
    filled = n > 0
    means = [
        (np.bincount(place, values, minlength=bins)[filled] / n[filled]).tolist()
        for values in (probabilities, outcomes)
    ]
    return Curve(means[0], means[1], n[filled].tolist())


def expected_calibration_error(curve: Curve) -> float:
    """Mean distance of frequency and probability over the bins, weighted by samples."""
    gap = np.abs(np.array(curve.probability) - np.array(curve.frequency))
    return float(np.average(gap, weights=curve.n))


def ece_if_calibrated(probabilities: Array, bins: int = BINS, seed: int = 0) -> float:
    """Expected ECE of outcomes that are drawn with exactly these probabilities `[N]`."""
    edges = np.quantile(probabilities, np.arange(1, bins) / bins)
    place = np.searchsorted(edges, probabilities)
    member = np.eye(bins)[place]
    drawn = np.random.default_rng(seed).random((SIMULATIONS, len(probabilities))) < probabilities
    gap = np.abs(drawn.astype(float) @ member - probabilities @ member)
    return float(gap.sum(axis=1).mean() / len(probabilities))


def negative_log_likelihood(logits: Array, targets: Array, multi_label: bool) -> float:
    """Mean log loss of logits `[N, 7]`: per label of a sigmoid, per sample of a softmax."""
    if multi_label:
        return float(np.mean(np.logaddexp(0, logits) - targets * logits))
    total = np.logaddexp.reduce(logits, axis=1)
    return float(np.mean(total - (targets * logits).sum(axis=1)))


def temperature_of(logits: Array, targets: Array, multi_label: bool) -> float:
    """The temperature that validation prefers; 1 where no other is better there.

    Args:
        logits: `[N, 7]` calibrated, of validation samples.
        targets: `[N, 7]`, no NaN.
        multi_label: sigmoid or softmax.
    """
    z = logits.astype(np.float64)
    found = fit_temperature(z, targets, multi_label)
    losses = [negative_log_likelihood(z / t, targets, multi_label) for t in (1.0, found)]
    return found if losses[1] < losses[0] else 1.0


def emotion_reliability(
    logits: Array, targets: Array, multi_label: bool, temperature: float
) -> dict[str, Any]:
    """Calibration before and after temperature scaling.

    Args:
        logits: `[N, 7]` calibrated.
        targets: `[N, 7]` labels, no NaN.
        multi_label: sigmoid or softmax.
        temperature: fitted on validation.

    Returns:
        `n, kind, temperature, before, after`; each of the two with `nll, brier, ece` (mean over
        classes), `ece_if_calibrated, classes` (per emotion `ece, brier, n, positives, bins`) and
        `overall` (`of, ece, ece_if_calibrated, bins`): for softmax the top label and how often it
        is right, for sigmoid all labels together.
    """
    z = logits.astype(np.float64)
    return {
        "n": len(z),
        "kind": "sigmoid" if multi_label else "softmax",
        "temperature": temperature,
        "before": _at_temperature(z, targets, multi_label, 1.0),
        "after": _at_temperature(z, targets, multi_label, temperature),
    }


def _at_temperature(
    logits: Array, targets: Array, multi_label: bool, temperature: float
) -> dict[str, Any]:
    probabilities = calibrated_probabilities(logits, multi_label, NO_SHIFT, temperature)
    squares = np.square(probabilities - targets)
    classes, floors = {}, []
    for index, name in enumerate(EMOTIONS):
        # A distribution's share is compared as it is: the mean over a bin is what is predicted.
        curve = reliability_curve(probabilities[:, index], targets[:, index])
        floors.append(ece_if_calibrated(probabilities[:, index]))
        classes[name] = {
            "ece": expected_calibration_error(curve),
            "brier": float(squares[:, index].mean()),
            "n": len(targets),
            "positives": float(targets[:, index].sum()),
            "bins": curve.to_json(),
        }
    if multi_label:
        said, came = probabilities.ravel(), targets.ravel()
    else:
        right = probabilities.argmax(axis=1) == targets.argmax(axis=1)
        said, came = probabilities.max(axis=1), right.astype(float)
    curve = reliability_curve(said, came)
    return {
        "nll": negative_log_likelihood(logits / temperature, targets, multi_label),
        "brier": float(squares.mean() if multi_label else squares.sum(axis=1).mean()),
        "ece": float(np.mean([entry["ece"] for entry in classes.values()])),
        "ece_if_calibrated": float(np.mean(floors)),
        "classes": classes,
        "overall": {
            "of": "all labels" if multi_label else "top label",
            "ece": expected_calibration_error(curve),
            "ece_if_calibrated": ece_if_calibrated(said),
            "bins": curve.to_json(),
        },
    }


def trait_half_widths(scores: Array, labels: Array) -> dict[str, dict[str, Any]]:
    """How far validation scores `[N, 5]` lie from labels `[N, 5]` (NaN where there is none).

    Returns:
        Per trait `n` and the half-widths `half_width_68`, `half_width_90`: a new score of the
        same kind lies within them with that probability (None with too few samples to say).
    """
    found = {}
    for index, name in enumerate(TRAITS):
        errors = np.abs(scores[:, index] - labels[:, index])
        errors = errors[~np.isnan(errors)]
        widths = {
            f"half_width_{round(100 * level)}": conformal_half_width(errors, level)
            for level in LEVELS
        }
        found[name] = {"n": len(errors), **widths}
    return found


def trait_calibration(
    scores: Array,
    labels: Array,
    source_ids: Sequence[str],
    half_widths: dict[str, dict[str, Any]],
    how: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, dict[str, Any]]:
    """The line of labels `[N, 5]` on scores `[N, 5]`, and what the half-widths hold here.

    Returns:
        Per trait the half-widths; `n`; `slope` and `intercept` of least squares with 95 %
        intervals over sources (1 and 0 where a score can be taken at its word; a slope above 1:
        too timid, below: too bold); `coverage_68`, `coverage_90`.
    """
    known = ~np.isnan(labels) & ~np.isnan(scores)
    x, y = np.where(known, scores, 0.0), np.where(known, labels, 0.0)
    moments = np.stack([known.astype(float), x, y, x * x, x * y], axis=-1).astype(float)
    line = _line_from(moments.sum(axis=0))
    drawn = cluster_bootstrap(moments, source_ids, _line_from, how) if len(scores) else None
    found = {}
    for index, name in enumerate(TRAITS):
        here = known[:, index]
        errors = np.abs(scores[here, index] - labels[here, index])
        entry: dict[str, Any] = {**half_widths[name], "n": int(here.sum())}
        for part in ("slope", "intercept"):
            entry[part] = float(line[part][index])
            entry[f"{part}_ci"] = None if drawn is None else drawn[part][index].tolist()
        for level in LEVELS:
            width = half_widths[name][f"half_width_{round(100 * level)}"]
            held = None if width is None or not len(errors) else float(np.mean(errors <= width))
            entry[f"coverage_{round(100 * level)}"] = held
        found[name] = entry
    return found


def _line_from(moments: Array) -> dict[str, Array]:
    """Least squares of y on x from sums `[..., 5]` of 1, x, y, x^2, x y."""
    n, x, y, xx, xy = np.moveaxis(moments, -1, 0)
    mean_x, mean_y = ratio(x, n), ratio(y, n)
    variance = ratio(xx, n) - mean_x**2
    slope = ratio(ratio(xy, n) - mean_x * mean_y, np.where(variance > 1e-12, variance, 0))
    return {"slope": slope, "intercept": mean_y - slope * mean_x}
