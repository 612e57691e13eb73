"""Correlations of emotions and traits, 7 x 5, with intervals, tests and an order.

Values are centred per corpus first: two corpora that differ in both an emotion's prevalence and a
trait's mean would otherwise show a relation that neither of them has (Simpson 1951). Intervals
are drawn over sources (`mepr_shared.intervals`); tests use the variance of the correlation's
influence function, summed per source (cluster-robust: Liang and Zeger 1986), and are corrected
for all cells together (Holm 1979), so that "none found" is a statement with a known error rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mepr_shared.additive import ratio
from mepr_shared.intervals import (
    DEFAULT_RESAMPLING,
    MINIMUM_CLUSTERS,
    Resampling,
    cluster_bootstrap,
    cluster_sums,
    clusters,
)
from mepr_shared.labels import EMOTIONS, TRAITS

Array = np.ndarray
SIGNIFICANT = 0.05
# A spread below this is a constant with rounding.
NO_SPREAD = 1e-12
MINIMUM_ROWS = 8


@dataclass(frozen=True)
class Relations:
    """Correlations of `N` samples.

    Attributes:
        correlation: `[7, 5]` Pearson, with 0/1 emotions the point-biserial; NaN where undefined.
        interval: `[7, 5, 2]`, 95 % over sources; None with fewer than 20 sources.
        p_value: `[7, 5]` two-sided, adjusted by Holm over all defined cells; None likewise.
        n: `[7, 5]` samples per cell.
        sources: how many sources they come from.
        mean: `[7]` per emotion the mean over the traits.
        mean_interval: `[7, 2]`, or None.
        mean_p_value: `[7]`, adjusted by Holm over the emotions, or None.
    """

    correlation: Array
    interval: Array | None
    p_value: Array | None
    n: Array
    sources: int
    mean: Array
    mean_interval: Array | None
    mean_p_value: Array | None

    @property
    def significant(self) -> Array:
        """`[7, 5]` bool: a relation at a family-wise error rate of 5 %."""
        if self.p_value is None:
            return np.zeros(self.correlation.shape, dtype=bool)
        return np.nan_to_num(self.p_value, nan=1.0) < SIGNIFICANT

    @property
    def mean_significant(self) -> Array:
        """`[7]` bool: the emotion goes with higher or lower traits on the whole."""
        if self.mean_p_value is None:
            return np.zeros(self.mean.shape, dtype=bool)
        return np.nan_to_num(self.mean_p_value, nan=1.0) < SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        """One record per cell and the order of the emotions."""
        return {
            "sources": self.sources,
            "significant": int(self.significant.sum()),
            "cells": [self.cell(*place) for place in np.ndindex(self.correlation.shape)],
            "order": ordering(self),
        }

    def cell(self, emotion: int, trait: int) -> dict[str, Any]:
        """One cell by name."""
        here = (emotion, trait)
        return {
            "emotion": EMOTIONS[emotion],
            "trait": TRAITS[trait],
            "r": float(self.correlation[here]),
            "ci": None if self.interval is None else self.interval[here].tolist(),
            "p": None if self.p_value is None else float(self.p_value[here]),
            "n": int(self.n[here]),
            "significant": bool(self.significant[here]),
        }


def relations(
    emotion: Array,
    traits: Array,
    source_ids: Sequence[str],
    corpus_of: Array | None = None,
    how: Resampling = DEFAULT_RESAMPLING,
) -> Relations:
    """How emotions and traits go together.

    Args:
        emotion: `[N, 7]` labels or probabilities, NaN where unknown.
        traits: `[N, 5]` scores, NaN where unknown; a cell uses the samples that have both.
        source_ids: `[N]`.
        corpus_of: `[N]` corpus numbers; means are removed per corpus.
        how: the bootstrap.
    """
    groups = np.zeros(len(emotion), dtype=int) if corpus_of is None else corpus_of
    moments = pair_moments(emotion, traits, groups)
    n = moments[..., 0].sum(axis=0)
    scores = correlations_from(moments.sum(axis=0))
    correlation = np.where(n >= MINIMUM_ROWS, scores["correlation"], np.nan)
    names, index = clusters(list(source_ids)) if len(emotion) else ([], np.empty(0, int))
    involved = len(np.unique(index[(moments[..., 0] > 0).any(axis=(1, 2))]))
    interval = mean_interval = p_value = mean_p_value = None
    mean = mean_over_traits(correlation)
    if involved >= MINIMUM_CLUSTERS:
        drawn = cluster_bootstrap(moments, source_ids, correlations_from, how)
        assert drawn is not None  # there are at least as many sources as are involved
        interval, mean_interval = drawn["correlation"], drawn["mean"]
        influence = cluster_sums(correlation_influence(moments), index, len(names))
        p_value = holm(robust_p_values(correlation, influence))
        mean_influence = mean_over_traits(np.where(np.isnan(correlation), np.nan, influence))
        mean_p_value = holm(robust_p_values(mean, mean_influence))
    return Relations(
        correlation,
        interval,
        p_value,
        n.astype(int),
        involved,
        mean,
        mean_interval,
        mean_p_value,
    )


def pair_moments(emotion: Array, traits: Array, groups: Array) -> Array:
    """Per sample and cell the terms whose sums hold the correlation.

    Returns:
        `[N, 7, 5, 6]`: 1, e, t, e^2, t^2, e t of values centred per group and cell; zeros where
        either is NaN.
    """
    known = ~np.isnan(emotion)[:, :, None] & ~np.isnan(traits)[:, None, :]
    e = np.where(known, emotion.astype(float)[:, :, None], 0.0)
    t = np.where(known, traits.astype(float)[:, None, :], 0.0)
    for group in np.unique(groups):
        here = groups == group
        count = np.maximum(known[here].sum(axis=0), 1)
        for values in (e, t):
            values[here] -= values[here].sum(axis=0) / count
    e, t = np.where(known, e, 0.0), np.where(known, t, 0.0)
    return np.stack([known.astype(float), e, t, e * e, t * t, e * t], axis=-1)


def correlations_from(moments: Array) -> dict[str, Array]:
    """`correlation [..., 7, 5]` and its `mean [..., 7]` over traits, of summed `pair_moments`."""
    n, e, t, ee, tt, et = np.moveaxis(moments, -1, 0)
    mean_e, mean_t = ratio(e, n), ratio(t, n)
    spread = (ratio(ee, n) - mean_e**2) * (ratio(tt, n) - mean_t**2)
    defined = spread > NO_SPREAD
    covariance = ratio(et, n) - mean_e * mean_t
    value = np.where(defined, covariance / np.sqrt(np.where(defined, spread, 1)), np.nan)
    correlation = np.clip(value, -1, 1)
    return {"correlation": correlation, "mean": mean_over_traits(correlation)}


def correlation_influence(moments: Array) -> Array:
    """`[N, 7, 5]` how much each sample moves the correlation: `(ab - r (a^2 + b^2) / 2) / n`.

    `a`, `b` are the standardised values (Devlin et al. 1975, "Robust estimation and outlier
    detection with correlation coefficients").
    """
    total = moments.sum(axis=0)
    n, e, t, ee, tt, _ = np.moveaxis(total, -1, 0)
    r = correlations_from(total)["correlation"]
    mean_e, mean_t = ratio(e, n), ratio(t, n)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = (moments[..., 1] - mean_e) / np.sqrt(ratio(ee, n) - mean_e**2)
        b = (moments[..., 2] - mean_t) / np.sqrt(ratio(tt, n) - mean_t**2)
        value = (a * b - r * (a * a + b * b) / 2) / n
    return np.where(moments[..., 0] > 0, value, 0.0)


def robust_p_values(correlation: Array, influence: Array) -> Array:
    """Two-sided p of "no correlation", `[...]`; NaN where the correlation is undefined.

    Fisher's z over its cluster-robust standard error, against Student's t with as many degrees
    of freedom as there are sources less one.

    Args:
        correlation: `[...]`.
        influence: `[sources, ...]` of each source on it.
    """
    count = len(influence)
    variance = np.square(influence).sum(axis=0) * count / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.arctanh(correlation)
        error = np.sqrt(variance) / (1 - correlation**2)
        return 2 * stats.t.sf(np.abs(z / error), count - 1)


def holm(p_values: Array) -> Array:
    """P-values adjusted for all defined ones together (Holm 1979), same shape; NaN stays NaN."""
    flat = p_values.ravel()
    order = np.argsort(flat, kind="stable")[: int((~np.isnan(flat)).sum())]
    adjusted = np.full(flat.shape, np.nan)
    scaled = flat[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.reshape(p_values.shape)


def mean_over_traits(correlation: Array) -> Array:
    """`[..., 7]` mean of `[..., 7, 5]` over the defined traits."""
    known = ~np.isnan(correlation)
    return ratio(np.where(known, correlation, 0).sum(axis=-1), known.sum(axis=-1))


def ordering(found: Relations) -> list[dict[str, Any]]:
    """The emotions from those that go with higher traits to those that go with lower ones.

    Returns:
        Per emotion its mean correlation over traits with interval and adjusted p, what it goes
        with on the whole (`higher`, `lower` traits, or None where that is not significant), and
        the traits for which it significantly is `higher` or `lower` by itself.
    """
    records = []
    for emotion in np.argsort(-np.nan_to_num(found.mean, nan=0.0), kind="stable"):
        if np.isnan(found.mean[emotion]):
            continue
        sure, r = found.significant[emotion], found.correlation[emotion]
        bounds, p_value = found.mean_interval, found.mean_p_value
        direction = "higher" if found.mean[emotion] > 0 else "lower"
        records.append(
            {
                "emotion": EMOTIONS[emotion],
                "mean_r": float(found.mean[emotion]),
                "ci": None if bounds is None else bounds[emotion].tolist(),
                "p": None if p_value is None else float(p_value[emotion]),
                "goes_with": direction if found.mean_significant[emotion] else None,
                "higher": [TRAITS[k] for k in np.flatnonzero(sure & (r > 0))],
                "lower": [TRAITS[k] for k in np.flatnonzero(sure & (r < 0))],
            }
        )
    return records


def disagreements(named: Mapping[str, Relations]) -> list[dict[str, Any]]:
    """Cells in which two of the given answers differ.

    They do where the signs differ and either is significant or the intervals have no value in
    common (`opposite`), or where the intervals have none (`stronger`, `weaker`: the second
    against the first).
    """
    found = []
    names = [name for name, value in named.items() if value.interval is not None]
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            for place in np.ndindex(len(EMOTIONS), len(TRAITS)):
                how = _difference(named[first], named[second], place)
                if how:
                    values = {name: named[name].cell(*place) for name in (first, second)}
                    found.append(
                        {
                            "emotion": EMOTIONS[place[0]],
                            "trait": TRAITS[place[1]],
                            "first": first,
                            "second": second,
                            "how": how,
                            "r": [values[name]["r"] for name in (first, second)],
                            "ci": [values[name]["ci"] for name in (first, second)],
                        }
                    )
    return found


def _difference(first: Relations, second: Relations, place: tuple[int, ...]) -> str | None:
    a, b = first.correlation[place], second.correlation[place]
    assert first.interval is not None and second.interval is not None
    low, high = first.interval[place], second.interval[place]
    if np.isnan(a) or np.isnan(b):
        return None
    apart = low[0] > high[1] or high[0] > low[1]
    if a * b < 0:
        return (
            "opposite" if apart or first.significant[place] or second.significant[place] else None
        )
    if apart:
        return "stronger" if abs(b) > abs(a) else "weaker"
    return None
