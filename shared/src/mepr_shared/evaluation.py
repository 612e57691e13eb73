"""`evaluate`: the JSON object that every `evaluate --json` prints, one per corpus.

    {"corpus", "split", "n", "n_dropped",
     "emotion": {"n", "n_sources", "uar", "mwacc", "macro_f1", "weighted_f1", ...,
                 "per_class": {...}, "ci": {...}} or null,
     "traits": {"n", "n_sources", "macc", "ccc", "ccc_flat", "r2", "per_trait": {...},
                "ci": {...}} or null,
     "baseline": {"emotion", "traits"}}

and, where asked for, `dropped` (reasons), `unseen_sources` and `groups`. Intervals stand in the
task they belong to: `result["traits"]["ci"]["ccc"]` is `[low, high]` and
`result["traits"]["ci"]["per_trait"]["openness"]["ccc"]` that of one trait. With fewer than 20
sources `ci` is null and `per_source` holds the headline scores of each. Undefined is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mepr_shared.errors import DataError
from mepr_shared.intervals import DEFAULT_RESAMPLING, Resampling, paired_cluster_bootstrap
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import EmotionOutput, number
from mepr_shared.scoring import (
    TRAIT,
    Array,
    Constants,
    Labels,
    Predictions,
    TaskScores,
    answered_only,
    constant_predictions,
    emotion_labelled,
    emotion_report,
    emotion_statistics,
    emotion_task,
    headline_table,
    interval_table,
    predicted,
    take,
    trait_report,
    trait_statistics_of,
    traits_labelled,
)

# A gap between groups smaller than this says more about chance than about the model.
MINIMUM_GROUP = 20


def evaluate(
    corpus_name: str,
    split: str,
    *,
    source_ids: Sequence[str],
    emotion_targets: Array | None = None,
    emotion_scale: EmotionScale | None = None,
    emotion_probabilities: Array | None = None,
    emotion_output: EmotionOutput = "sigmoid",
    thresholds: Array | None = None,
    strong_targets: Array | None = None,
    trait_targets: Array | None = None,
    trait_scores: Array | None = None,
    constants: Constants | None = None,
    n_dropped: int | Mapping[str, int] = 0,
    seen_sources: Array | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Any]:
    """Scores of one model on one split of one corpus, ready for JSON.

    Args:
        corpus_name: as the corpus names itself.
        split: `train`, `val` or `test`.
        source_ids: `[N]` what the bootstrap draws.
        emotion_targets: `[N, 7]` of `labels.emotion_targets`, NaN rows unlabelled.
        emotion_scale: the corpus's; single-label when not given.
        emotion_probabilities: `[N, 7]`; rows with NaN have no prediction.
        emotion_output: what made them of the logits.
        thresholds: `[7]`, for multi-label corpora.
        strong_targets: `[N, 7]` of the same corpus with a higher `present_above` (MOSEI: 1/3);
            scored with the same thresholds under `emotion["strong"]`.
        trait_targets: `[N, 5]`, NaN where unlabelled.
        trait_scores: `[N, 5]`; rows with NaN have no prediction.
        constants: of the training split (`scoring.constants_of`), for the baseline.
        n_dropped: samples that never got here, or their number by reason. Labelled rows whose
            prediction is NaN are added to it.
        seen_sources: `[N]` bool, the sample's source occurs in training: adds `unseen_sources`.
        groups: per column `[N]` values: adds a `group_report` for each.
        resampling: of the intervals.

    Raises:
        DataError: arrays of different lengths, or a multi-label corpus without thresholds.
    """
    labels = Labels(source_ids, emotion_targets, emotion_scale or EmotionScale(), trait_targets)
    predictions = Predictions(emotion_probabilities, thresholds, emotion_output, trait_scores)
    other_columns = {"strong_targets": strong_targets, "seen_sources": seen_sources}
    _check_lengths(labels, predictions, {**other_columns, **(groups or {})})

    count = len(source_ids)
    emotion_rows = emotion_labelled(labels)
    trait_rows = traits_labelled(labels)
    with_emotion = emotion_rows & predicted(predictions.emotion, count)
    with_traits = trait_rows & predicted(predictions.traits, count)
    # A task the model does not have drops nothing; a row it should have answered does.
    wanted = emotion_rows & (predictions.emotion is not None)
    wanted |= trait_rows & (predictions.traits is not None)
    unanswered = int((wanted & ~(with_emotion | with_traits)).sum())
    before = sum(n_dropped.values()) if isinstance(n_dropped, Mapping) else n_dropped

    result: dict[str, Any] = {
        "corpus": corpus_name,
        "split": split,
        "n": int((with_emotion | with_traits).sum()),
        "n_dropped": int(before) + unanswered,
        **_tasks(labels, predictions, constants, resampling),
    }
    if isinstance(n_dropped, Mapping):
        result["dropped"] = {reason: int(rows) for reason, rows in n_dropped.items()}
        if unanswered:
            result["dropped"]["no_prediction"] = unanswered
    if strong_targets is not None and result["emotion"] is not None:
        strong = replace(labels, emotion=strong_targets)
        result["emotion"]["strong"] = emotion_report(strong, predictions, resampling)
    if seen_sources is not None:
        unseen = ~np.asarray(seen_sources, dtype=bool)
        result["unseen_sources"] = {
            "n": int((unseen & (with_emotion | with_traits)).sum()),
            **_tasks(*take(labels, predictions, unseen), constants, resampling),
        }
    if groups is not None:
        result["groups"] = {
            column: group_report(values, labels, predictions, resampling)
            for column, values in groups.items()
        }
    return result


def group_report(
    values: Sequence[str | None],
    labels: Labels,
    predictions: Predictions,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Any]:
    """The same scores per group of samples, and the gaps between groups.

    Args:
        values: `[N]` the group of each sample; None is reported as `"(none)"` and enters no gap.
        labels: of the same samples.
        predictions: of the same samples.
        resampling: of the intervals.

    Returns:
        `groups`: per value `n, emotion, traits` (`per_trait` has the mean signed error, score
        minus label); `gap`: per task and headline score `gap, lowest, highest` over groups of at
        least `MINIMUM_GROUP` samples, and under `signed_error` the same per trait; `too_small`:
        groups that entered no gap for that reason.
    """
    names = np.array(["(none)" if value is None else str(value) for value in values], dtype=object)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names)):
        mine, said = take(labels, predictions, names == name)
        emotion = emotion_report(mine, said, resampling)
        traits = trait_report(mine, said, resampling)
        scored = max(task["n"] if task else 0 for task in (emotion, traits))
        found[name] = {"n": scored, "emotion": emotion, "traits": traits}
    return {
        "groups": found,
        "gap": {
            "emotion": _gaps(found, "emotion", emotion_task(labels.scale)),
            "traits": _gaps(found, "traits", TRAIT),
        },
        "too_small": [name for name, group in found.items() if group["n"] < MINIMUM_GROUP],
    }


def compare(
    labels: Labels,
    first: Predictions,
    second: Predictions,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Any]:
    """Two models on the same samples: each score, the difference, and its paired interval.

    Returns:
        `n`, and per task (null where a model lacks it) `n, n_sources`, and per headline score
        `first, second, difference` (second - first) and `ci` `[low, high]`, null with fewer than
        20 sources, when `per_source` holds the scores of both.

    Raises:
        DataError: one model answered samples that the other did not.
    """
    _check_lengths(labels, first, {})
    _check_lengths(labels, second, {})
    count = len(labels.source_ids)
    report: dict[str, Any] = {}
    scored = np.zeros(count, dtype=bool)
    for task_name, task, labelled, statistics_of in (
        ("emotion", emotion_task(labels.scale), emotion_labelled(labels), emotion_statistics),
        ("traits", TRAIT, traits_labelled(labels), trait_statistics_of),
    ):
        said = [getattr(predictions, task_name) for predictions in (first, second)]
        report[task_name] = None
        if any(values is None for values in said) or not labelled.any():
            continue
        rows = [labelled & predicted(values, count) for values in said]
        if (rows[0] != rows[1]).any():
            raise DataError(
                f"{task_name}: the two models were not scored on the same samples:"
                f" n = {rows[0].sum()} and {rows[1].sum()}, {(rows[0] != rows[1]).sum()} differ",
                hint="compare them on the samples both have",
            )
        if not rows[0].any():
            continue
        scored |= rows[0]
        statistics = (
            statistics_of(*take(labels, first, rows[0])),
            statistics_of(*take(labels, second, rows[0])),
        )
        sources = np.asarray(list(labels.source_ids), dtype=object)[rows[0]].tolist()
        report[task_name] = _comparison(statistics, sources, task, resampling)
    return {"n": int(scored.sum()), **report}


def _tasks(
    labels: Labels, predictions: Predictions, constants: Constants | None, how: Resampling
) -> dict[str, Any]:
    emotion = emotion_report(labels, predictions, how)
    traits = trait_report(labels, predictions, how)
    baseline: dict[str, Any] = {"emotion": None, "traits": None}
    if constants is not None:
        answered = answered_only(labels, predictions)
        constant = constant_predictions(constants, labels)
        baseline["emotion"] = emotion_report(answered, constant, how)
        baseline["traits"] = trait_report(answered, constant, how)
        if baseline["traits"] is not None and constants.trait_median is not None:
            median = np.tile(constants.trait_median, (len(labels.source_ids), 1))
            of_median = trait_report(answered, replace(constant, traits=median), how)
            baseline["traits"]["macc_median"] = of_median and of_median["macc"]
    return {"emotion": emotion, "traits": traits, "baseline": baseline}


def _comparison(
    statistics: tuple[Array, Array], source_ids: Sequence[str], task: TaskScores, how: Resampling
) -> dict[str, Any]:
    first, second = (task.scores_from(values.sum(axis=0)) for values in statistics)
    intervals = paired_cluster_bootstrap(
        statistics[0], statistics[1], source_ids, task.scores_from, how
    )
    table = None if intervals is None else interval_table(intervals, task)
    found: dict[str, Any] = {
        "n": len(source_ids),
        "n_sources": len(set(source_ids)),
        **{
            name: {
                "first": number(first[name]),
                "second": number(second[name]),
                "difference": number(second[name] - first[name]),
                "ci": None if table is None else table[name],
            }
            for name in task.headlines
        },
    }
    if table is None:
        found["per_source"] = {
            which: headline_table(values, source_ids, task)
            for which, values in zip(("first", "second"), statistics, strict=True)
        }
    return found


def _gaps(groups: Mapping[str, Any], task_name: str, task: TaskScores) -> dict[str, Any]:
    large = {
        name: group[task_name]
        for name, group in groups.items()
        if name != "(none)" and group[task_name] and group[task_name]["n"] >= MINIMUM_GROUP
    }
    gaps: dict[str, Any] = {
        score: _gap({name: scores[score] for name, scores in large.items()})
        for score in task.headlines
    }
    if task is TRAIT:
        gaps["signed_error"] = {
            trait: _gap(
                {name: scores["per_trait"][trait]["signed_error"] for name, scores in large.items()}
            )
            for trait in task.rows
        }
    return gaps


def _gap(values: Mapping[str, float | None]) -> dict[str, Any] | None:
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < 2:
        return None
    lowest, highest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return {"gap": known[highest] - known[lowest], "lowest": lowest, "highest": highest}


def _check_lengths(labels: Labels, predictions: Predictions, others: Mapping[str, Any]) -> None:
    columns = {
        "emotion_targets": labels.emotion,
        "trait_targets": labels.traits,
        "emotion_probabilities": predictions.emotion,
        "trait_scores": predictions.traits,
        **others,
    }
    count = len(labels.source_ids)
    for name, values in columns.items():
        if values is not None and len(values) != count:
            raise DataError(f"{name} has {len(values)} rows, there are {count} samples")
