"""What predictions say about the people, not only about the model.

The predictions of an emotion and a trait come from the same inputs, so they correlate whether or
not emotion and trait do: a perfect model of two unrelated things that look alike answers with a
correlation (its errors share a cause). A correlation of predictions by itself is therefore a
statement about the model's answers. Two statements about people are possible:

* where some rows have both labels, the labels' correlation, corrected by how the predictions of
  all other rows differ from the predictions of these rows (a control variate; prediction-powered
  inference, Angelopoulos et al. 2023, with the weight of PPI++): `rectified_relations`;
* without any such row, nothing but a range: the covariance that the predictions share plus an
  unknown rest between two bounds (statistical matching, D'Orazio et al. 2006; Cauchy-Schwarz):
  `possible_range`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mepr_fusion.analyze.relations import (
    MINIMUM_ROWS,
    Relations,
    correlation_influence,
    correlations_from,
    holm,
    mean_over_traits,
    pair_moments,
    robust_p_values,
)
from mepr_shared.additive import ratio
from mepr_shared.intervals import (
    DEFAULT_RESAMPLING,
    MINIMUM_CLUSTERS,
    Resampling,
    cluster_bootstrap,
    cluster_sums,
    clusters,
)

Array = np.ndarray


def rectified_relations(
    labels: tuple[Array, Array],
    predictions: tuple[Array, Array],
    source_ids: Sequence[str],
    corpus_of: Array,
    how: Resampling = DEFAULT_RESAMPLING,
) -> Relations | None:
    """`r(labels) + w (r(predictions elsewhere) - r(predictions of the labelled rows))`.

    The weight `w` of a cell is that of least variance, so that the estimate is not less certain
    than the labels alone; it is 0 where no other rows exist. It holds if rows with both labels
    differ from the others of their corpus by chance alone; corpora without such rows are left out.

    Args:
        labels: emotions `[N, 7]` and traits `[N, 5]`, NaN where there is none.
        predictions: probabilities `[N, 7]` and scores `[N, 5]`.
        source_ids: `[N]`.
        corpus_of: `[N]`.
        how: the bootstrap.

    Returns:
        None where fewer than 20 sources have rows with both labels.
    """
    both = ~np.isnan(labels[0]).any(axis=1) & ~np.isnan(labels[1]).all(axis=1)
    use = np.isin(corpus_of, np.unique(corpus_of[both]))
    both, groups = both[use], corpus_of[use]
    names, index = clusters(np.asarray(source_ids)[use].tolist()) if use.any() else ([], groups)
    if len(np.unique(index[both])) < MINIMUM_CLUSTERS:
        return None
    gold = [values[use] for values in labels]
    said = [values[use] for values in predictions]

    def blanked(keep: Array) -> Array:
        return pair_moments(np.where(keep[:, None], said[0], np.nan), said[1], groups)

    parts = np.stack([pair_moments(gold[0], gold[1], groups), blanked(both), blanked(~both)])
    influence = [cluster_sums(correlation_influence(part), index, len(names)) for part in parts]
    difference = influence[2] - influence[1]
    enough = parts[2][..., 0].sum(axis=0) >= MINIMUM_ROWS
    weight = -ratio((influence[0] * difference).sum(axis=0), np.square(difference).sum(axis=0))
    weight = np.where(enough, np.nan_to_num(weight), 0.0)

    def scores_from(moments: Array) -> dict[str, Array]:
        # [..., 3, 7, 5, 6]: the three parts of each resample.
        first, here, elsewhere = np.moveaxis(correlations_from(moments)["correlation"], -3, 0)
        moved = np.where(weight == 0, 0.0, weight * (elsewhere - here))
        value = np.clip(first + moved, -1, 1)
        return {"correlation": value, "mean": mean_over_traits(value)}

    stacked = np.moveaxis(parts, 0, 1)
    found = scores_from(stacked.sum(axis=0))
    drawn = cluster_bootstrap(stacked, np.asarray(source_ids)[use].tolist(), scores_from, how)
    assert drawn is not None  # there are enough sources
    total = influence[0] + np.where(weight == 0, 0.0, weight * difference)
    defined = np.where(np.isnan(found["correlation"]), np.nan, total)
    return Relations(
        found["correlation"],
        drawn["correlation"],
        holm(robust_p_values(found["correlation"], total)),
        parts[0][..., 0].sum(axis=0).astype(int),
        len(np.unique(index[both])),
        found["mean"],
        drawn["mean"],
        holm(robust_p_values(found["mean"], mean_over_traits(defined))),
    )


def possible_range(probabilities: Array, scores: Array, trait_variance: Array) -> Array:
    """`[7, 5, 2]` correlations of the labels that calibrated predictions leave possible.

    `cov(e, t) = cov(p, s) + E cov(e, t | inputs)`, and the last term is at most
    `sqrt(E var(e | inputs) E var(t | inputs))` in size.

    Args:
        probabilities: `[N, 7]` calibrated, so that a label's variance is `m (1 - m)` with their
            mean `m`.
        scores: `[N, 5]`.
        trait_variance: `[5]` of the labels.
    """
    mean = probabilities.mean(axis=0)
    emotion_variance = mean * (1 - mean)
    centred, moved = probabilities - mean, scores - scores.mean(axis=0)
    shared = centred.T @ moved / len(scores)
    emotion_rest = np.maximum(emotion_variance - np.square(centred).mean(axis=0), 0)
    trait_rest = np.maximum(trait_variance - np.square(moved).mean(axis=0), 0)
    slack = np.sqrt(emotion_rest[:, None] * trait_rest)
    scale = np.sqrt(emotion_variance[:, None] * trait_variance)
    bounds = np.stack([ratio(shared - slack, scale), ratio(shared + slack, scale)], axis=-1)
    return np.clip(bounds, -1, 1)
