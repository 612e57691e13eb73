"""Confidence intervals by bootstrap over sources.

Clips of one recording are not independent, so whole sources are drawn with replacement
(percentile cluster bootstrap; Efron and Tibshirani 1993, ch. 13; Field and Welsh 2007). Statistics
are summed per source once; a resample is then a vector of multinomial counts, and all resamples
together one matrix product.

With fewer than `MINIMUM_CLUSTERS` sources the percentile interval is too narrow to be worth
printing: there is none, and `per_cluster_scores` gives the values to look at instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mepr_shared.errors import DataError

Array = np.ndarray
# Additive statistics [..., K...] to named scores, each [...] or [..., classes].
ScoresFrom = Callable[[Array], dict[str, Array]]

MINIMUM_CLUSTERS = 20

# Counts of a block of resamples are held at once; this bounds them at 32 MB.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn.

    Attributes:
        resamples: how many.
        level: coverage of the interval.
        seed: same seed, same interval.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0


DEFAULT_RESAMPLING = Resampling()


def clusters(source_ids: Sequence[str]) -> tuple[list[str], Array]:
    """The distinct sources, sorted, and for each of `[N]` samples the number of its source.

    Raises:
        DataError: a sample without a source.
    """
    if any(source is None for source in source_ids):
        raise DataError("a sample has no source_id", hint="intervals are drawn over sources")
    names, index = np.unique(np.asarray(list(source_ids), dtype=str), return_inverse=True)
    return names.tolist(), index


def cluster_bootstrap(
    statistics: Array, source_ids: Sequence[str], scores_from: ScoresFrom, how: Resampling
) -> dict[str, Array] | None:
    """The interval of every score.

    Args:
        statistics: `[N, ...]` additive statistics of each sample (`mepr_shared.additive`).
        source_ids: `[N]`.
        scores_from: what makes scores of summed statistics, on any leading axes.
        how: number of resamples, level, seed.

    Returns:
        `[..., 2]` low and high per score, NaN where it was defined in no resample (resamples in
        which a score is undefined are left out); None with fewer than `MINIMUM_CLUSTERS` sources.
    """
    names, index = clusters(source_ids)
    if len(names) < MINIMUM_CLUSTERS:
        return None
    drawn = _resampled(cluster_sums(statistics, index, len(names)), scores_from, how)
    return {name: _percentiles(values, how.level) for name, values in drawn.items()}


def paired_cluster_bootstrap(
    statistics: Array,
    other_statistics: Array,
    source_ids: Sequence[str],
    scores_from: ScoresFrom,
    how: Resampling,
) -> dict[str, Array] | None:
    """The interval of the difference other - first, both models on the same resampled sources.

    Arguments and result as in `cluster_bootstrap`.

    Raises:
        DataError: the two models were not scored on the same samples.
    """
    if statistics.shape != other_statistics.shape:
        raise DataError(
            f"a paired interval needs the same samples: {len(statistics)} and"
            f" {len(other_statistics)} were scored"
        )
    names, index = clusters(source_ids)
    if len(names) < MINIMUM_CLUSTERS:
        return None
    both = np.stack([statistics, other_statistics], axis=1)
    drawn = _resampled(cluster_sums(both, index, len(names)), scores_from, how)
    return {
        name: _percentiles(values[:, 1] - values[:, 0], how.level) for name, values in drawn.items()
    }


def per_cluster_scores(
    statistics: Array, source_ids: Sequence[str], scores_from: ScoresFrom
) -> dict[str, dict[str, Array]]:
    """Every score of every source by itself, by the source's name."""
    names, index = clusters(source_ids)
    scores = scores_from(cluster_sums(statistics, index, len(names)))
    return {
        name: {score: values[i] for score, values in scores.items()} for i, name in enumerate(names)
    }


def cluster_sums(statistics: Array, index: Array, count: int) -> Array:
    """Statistics `[N, ...]` summed per cluster `[count, ...]`; every cluster has a sample."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(count))
    return np.add.reduceat(statistics[order], starts, axis=0)


def _resampled(sums: Array, scores_from: ScoresFrom, how: Resampling) -> dict[str, Array]:
    generator = np.random.default_rng(how.seed)
    count = len(sums)
    flat = sums.reshape(count, -1)
    block = max(1, _BLOCK // count)
    totals = []
    for start in range(0, how.resamples, block):
        rows = min(block, how.resamples - start)
        drawn = generator.integers(0, count, (rows, count))
        drawn += np.arange(rows)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        totals.append(counts.astype(float) @ flat)
    return scores_from(np.concatenate(totals).reshape(how.resamples, *sums.shape[1:]))


def _percentiles(values: Array, level: float) -> Array:
    tails = [(1 - level) / 2, (1 + level) / 2]
    flat = values.reshape(len(values), -1)
    bounds = np.full((flat.shape[1], 2), np.nan)
    for column in range(flat.shape[1]):
        defined = flat[~np.isnan(flat[:, column]), column]
        if len(defined):
            bounds[column] = np.quantile(defined, tails)
    return bounds.reshape(*values.shape[1:], 2)
