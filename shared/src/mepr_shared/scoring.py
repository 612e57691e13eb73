"""The report of one task on one set of samples: scores, intervals, sources.

`evaluation.py` puts these together; `metrics.py` has the scores and `intervals.py` the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mepr_shared.additive import (
    binary_statistics,
    confusion_statistics,
    multi_label_scores_from,
    single_label_scores_from,
    trait_scores_from,
    trait_statistics,
)
from mepr_shared.errors import DataError
from mepr_shared.intervals import (
    Resampling,
    ScoresFrom,
    cluster_bootstrap,
    clusters,
    per_cluster_scores,
)
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale
from mepr_shared.metrics import (
    EmotionOutput,
    multi_label_scores,
    number,
    single_label_scores,
    trait_scores,
)

Array = np.ndarray


@dataclass(frozen=True)
class Labels:
    """What is known about N samples.

    Attributes:
        source_ids: `[N]` what the bootstrap draws.
        emotion: `[N, 7]` targets (`labels.emotion_targets`), NaN rows unlabelled.
        scale: how the corpus states its emotions.
        traits: `[N, 5]` in [0, 1], NaN where unlabelled.
    """

    source_ids: Sequence[str]
    emotion: Array | None = None
    scale: EmotionScale = field(default_factory=EmotionScale)
    traits: Array | None = None


@dataclass(frozen=True)
class Predictions:
    """What a model says about N samples; a row with NaN has no prediction.

    Attributes:
        emotion: `[N, 7]` probabilities.
        thresholds: `[7]`, needed for multi-label corpora.
        output: what made the probabilities of the logits.
        traits: `[N, 5]` scores in [0, 1].
    """

    emotion: Array | None = None
    thresholds: Array | None = None
    output: EmotionOutput = "sigmoid"
    traits: Array | None = None


@dataclass(frozen=True)
class Constants:
    """What a model that ignores its input would say; taken from the training split.

    Attributes:
        emotion: `[7]` share of the labelled training rows in which each emotion is present.
        trait_mean: `[5]`.
        trait_median: `[5]`, which has the smallest absolute error of all constants.
    """

    emotion: Array | None = None
    trait_mean: Array | None = None
    trait_median: Array | None = None


@dataclass(frozen=True)
class TaskScores:
    """How the scores of a task are named in the report, and how they are computed.

    Attributes:
        headlines: scores of the whole task.
        table: name of the table per class or trait.
        rows: its rows.
        columns: its columns, and the score of `scores_from` each shows.
        scores_from: additive statistics to scores.
    """

    headlines: tuple[str, ...]
    table: str
    rows: tuple[str, ...]
    columns: Mapping[str, str]
    scores_from: ScoresFrom


_EMOTION_HEADLINES = ("uar", "mwacc", "macro_f1", "weighted_f1")
SINGLE_LABEL = TaskScores(
    headlines=(*_EMOTION_HEADLINES, "accuracy"),
    table="per_class",
    rows=EMOTIONS,
    columns={"recall": "recall", "precision": "precision", "f1": "f1"},
    scores_from=single_label_scores_from,
)
MULTI_LABEL = TaskScores(
    headlines=_EMOTION_HEADLINES,
    table="per_class",
    rows=EMOTIONS[1:],
    columns={
        "wacc": "wacc",
        "recall": "recall",
        "specificity": "specificity",
        "f1": "f1",
        "macro_f1": "class_macro_f1",
        "weighted_f1": "class_weighted_f1",
    },
    scores_from=multi_label_scores_from,
)
TRAIT = TaskScores(
    headlines=("macc", "ccc", "ccc_flat", "r2"),
    table="per_trait",
    rows=TRAITS,
    columns={
        "acc": "trait_acc",
        "ccc": "trait_ccc",
        "r2": "trait_r2",
        "signed_error": "signed_error",
    },
    scores_from=trait_scores_from,
)


def emotion_task(scale: EmotionScale) -> TaskScores:
    """Which scores a corpus of this scale has."""
    return MULTI_LABEL if scale.is_multi_label else SINGLE_LABEL


def constants_of(emotion_targets: Array | None, trait_targets: Array | None) -> Constants:
    """The constants of a training split.

    Args:
        emotion_targets: `[N, 7]`, NaN rows unlabelled, or None.
        trait_targets: `[N, 5]`, NaN where unlabelled, or None. A trait without any label gets
            the middle of the scale.
    """
    emotion: Array | None = None
    trait_mean: Array | None = None
    trait_median: Array | None = None
    if emotion_targets is not None:
        known = emotion_targets[~np.isnan(emotion_targets).any(axis=1)]
        emotion = known.mean(axis=0, dtype=np.float64) if len(known) else None
    if trait_targets is not None and not np.isnan(trait_targets).all():
        known = trait_targets.astype(np.float64)
        known[:, np.isnan(known).all(axis=0)] = 0.5  # a trait nobody labelled
        trait_mean = np.asarray(np.nanmean(known, axis=0))
        trait_median = np.asarray(np.nanmedian(known, axis=0))
    return Constants(emotion, trait_mean, trait_median)


def constant_predictions(constants: Constants, labels: Labels) -> Predictions:
    """The constant baseline: for emotions the prevalence (its argmax is the majority class; in
    multi-label, where threshold 1/2 decides, the same answer for all and so a balanced accuracy
    of 1/2), for traits the mean."""
    count = len(labels.source_ids)
    emotion = traits = None
    if constants.emotion is not None:
        emotion = np.tile(constants.emotion, (count, 1))
    if constants.trait_mean is not None:
        traits = np.tile(constants.trait_mean, (count, 1))
    output: EmotionOutput = "sigmoid" if labels.scale.is_multi_label else "softmax"
    return Predictions(emotion, np.full(len(EMOTIONS), 0.5), output, traits)


def take(labels: Labels, predictions: Predictions, rows: Array) -> tuple[Labels, Predictions]:
    """The samples `rows` (bool `[N]` or indices) of both."""

    def some(values: Array | None) -> Array | None:
        return None if values is None else np.asarray(values)[rows]

    return (
        replace(
            labels,
            source_ids=np.asarray(list(labels.source_ids), dtype=object)[rows].tolist(),
            emotion=some(labels.emotion),
            traits=some(labels.traits),
        ),
        replace(predictions, emotion=some(predictions.emotion), traits=some(predictions.traits)),
    )


def emotion_labelled(labels: Labels) -> Array:
    """`[N]` bool: the sample has an emotion label."""
    if labels.emotion is None:
        return np.zeros(len(labels.source_ids), dtype=bool)
    return ~np.isnan(labels.emotion).any(axis=1)


def traits_labelled(labels: Labels) -> Array:
    """`[N]` bool: the sample has a label for some trait."""
    if labels.traits is None:
        return np.zeros(len(labels.source_ids), dtype=bool)
    return ~np.isnan(labels.traits).all(axis=1)


def answered_only(labels: Labels, predictions: Predictions) -> Labels:
    """The labels of what the model answered, so that a baseline is scored on the same samples."""
    count = len(labels.source_ids)

    def of(targets: Array | None, said: Array | None) -> Array | None:
        if targets is None:
            return None
        return np.where(predicted(said, count)[:, None], targets, np.nan)

    return replace(
        labels,
        emotion=of(labels.emotion, predictions.emotion),
        traits=of(labels.traits, predictions.traits),
    )


def predicted(values: Array | None, count: int) -> Array:
    """`[N]` bool: the row of `[N, K]` predictions is there."""
    return np.zeros(count, dtype=bool) if values is None else np.isfinite(values).all(axis=1)


def emotion_report(
    labels: Labels, predictions: Predictions, how: Resampling
) -> dict[str, Any] | None:
    """Scores and intervals over the rows with label and prediction, None where there is none.

    Raises:
        DataError: a multi-label corpus without thresholds.
    """
    rows = emotion_labelled(labels) & predicted(predictions.emotion, len(labels.source_ids))
    if not rows.any():
        return None
    labels, predictions = take(labels, predictions, rows)
    assert labels.emotion is not None and predictions.emotion is not None
    none_here = dict.fromkeys(
        ("mwacc_published_rule", "auroc", "average_precision", "accuracy", "confusion")
    )
    if labels.scale.is_multi_label:
        scores = multi_label_scores(
            labels.emotion,
            predictions.emotion,
            _thresholds(predictions),
            output=predictions.output,
        )
    else:
        scores = single_label_scores(labels.emotion, predictions.emotion)
    statistics = emotion_statistics(labels, predictions)
    report = {"kind": labels.scale.kind, **none_here, **scores}
    return report | _uncertainty(statistics, labels.source_ids, emotion_task(labels.scale), how)


def trait_report(
    labels: Labels, predictions: Predictions, how: Resampling
) -> dict[str, Any] | None:
    """Scores and intervals over the rows with label and prediction, None where there is none."""
    rows = traits_labelled(labels) & predicted(predictions.traits, len(labels.source_ids))
    if not rows.any():
        return None
    labels, predictions = take(labels, predictions, rows)
    assert labels.traits is not None and predictions.traits is not None
    scores = trait_scores(labels.traits, predictions.traits)
    statistics = trait_statistics_of(labels, predictions)
    return scores | _uncertainty(statistics, labels.source_ids, TRAIT, how)


def emotion_statistics(labels: Labels, predictions: Predictions) -> Array:
    """Additive statistics `[N, ...]` of complete rows, for `emotion_task(scale).scores_from`."""
    assert labels.emotion is not None and predictions.emotion is not None
    if not labels.scale.is_multi_label:
        return confusion_statistics(labels.emotion, predictions.emotion)
    return binary_statistics(labels.emotion, predictions.emotion >= _thresholds(predictions))[:, 1:]


def trait_statistics_of(labels: Labels, predictions: Predictions) -> Array:
    """Additive statistics `[N, 5, 7]` of complete rows, for `TRAIT.scores_from`."""
    assert labels.traits is not None and predictions.traits is not None
    targets = np.asarray(labels.traits, dtype=np.float64)
    return trait_statistics(
        targets, np.asarray(predictions.traits, dtype=np.float64), float(np.nanmean(targets))
    )


def interval_table(intervals: Mapping[str, Array], task: TaskScores) -> dict[str, Any]:
    """Intervals `[..., 2]` by score as `[low, high]` lists under the names of the report."""
    return {
        **{name: pair(intervals[name]) for name in task.headlines},
        task.table: {
            row: {column: pair(intervals[score][i]) for column, score in task.columns.items()}
            for i, row in enumerate(task.rows)
        },
    }


def pair(bounds: Array) -> list[float] | None:
    """`[low, high]`, None where undefined."""
    return None if np.isnan(bounds).any() else [float(bounds[0]), float(bounds[1])]


def headline_table(
    statistics: Array, source_ids: Sequence[str], task: TaskScores
) -> dict[str, dict[str, float | None]]:
    """The headline scores of every source by itself."""
    scores = per_cluster_scores(statistics, source_ids, task.scores_from)
    return {
        source: {name: number(values[name]) for name in task.headlines}
        for source, values in scores.items()
    }


def _uncertainty(
    statistics: Array, source_ids: Sequence[str], task: TaskScores, how: Resampling
) -> dict[str, Any]:
    intervals = cluster_bootstrap(statistics, source_ids, task.scores_from, how)
    found: dict[str, Any] = {"n_sources": len(clusters(source_ids)[0])}
    if intervals is None:
        table = headline_table(statistics, source_ids, task)
        return found | {"ci": None, "per_source": table}
    return found | {"ci": interval_table(intervals, task)}


def _thresholds(predictions: Predictions) -> Array:
    if predictions.thresholds is None:
        raise DataError(
            "a multi-label corpus is scored with per-class thresholds, and there are none",
            hint="choose them on the validation split: metrics.best_thresholds",
        )
    return np.asarray(predictions.thresholds, dtype=np.float64)
