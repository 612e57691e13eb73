"""Two runs side by side: configuration, validation scores, and the paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mepr_shared.evaluation import compare
from mepr_shared.labels import EmotionScale
from mepr_shared.scoring import Array, Labels, Predictions
from mepr_shared.train.predictions import VAL_PREDICTIONS, SplitPredictions, read_predictions
from mepr_shared.train.runs import Run

# Names of the run itself, not of what determines its result.
_NOT_COMPARED = ("exports_root",)


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """What differs between two runs, ready for JSON.

    Returns:
        `runs`: the two folders; `config`: key -> two values, where they differ (None: not there);
        `val`: validation score -> two values; `corpora`: per corpus of both runs `corpus`,
        `only` (validation samples that just one of them scored) and what
        `mepr_shared.evaluation.compare` says of the common samples; `notes`: why something could
        not be compared.

    Raises:
        ContractError: a file of a run is damaged.
    """
    notes: list[str] = []
    found: list[dict[str, SplitPredictions]] = []
    for run in (first, second):
        path = run.path / VAL_PREDICTIONS
        if path.exists():
            found.append(read_predictions(path))
        else:
            state = "is not finished" if not run.metrics else f"has no {VAL_PREDICTIONS}"
            notes.append(f"{run.path} {state}: no paired interval")
    corpora = []
    if len(found) == 2:
        common = [name for name in found[0] if name in found[1]]
        if not common:
            notes.append("the runs were validated on different corpora: no paired interval")
        for name in common:
            corpora.append(_compare_corpus(found[0][name], found[1][name], notes))
    scores = [run.metrics.get("val", {}) for run in (first, second)]
    return {
        "runs": [str(first.path), str(second.path)],
        "config": config_difference(first.config, second.config),
        "val": {name: [s.get(name) for s in scores] for name in {**scores[0], **scores[1]}},
        "corpora": corpora,
        "notes": notes,
    }


def config_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> the two values, for every key whose values differ."""
    flat = [dict(_flat(config)) for config in (first, second)]
    return {
        key: [values.get(key) for values in flat]
        for key in sorted({*flat[0], *flat[1]})
        if flat[0].get(key) != flat[1].get(key) and key not in _NOT_COMPARED
    }


def compare_answers(labels: Labels, first: Predictions, second: Predictions) -> dict[str, Any]:
    """`evaluation.compare` over the samples that both models answered, task by task."""
    return compare(labels, *_answered_by_both(first, second))


def _compare_corpus(
    first: SplitPredictions, second: SplitPredictions, notes: list[str]
) -> dict[str, Any]:
    rows = {sample_id: row for row, sample_id in enumerate(second.sample_ids)}
    common = [row for row, sample_id in enumerate(first.sample_ids) if sample_id in rows]
    theirs = [rows[first.sample_ids[row]] for row in common]
    entry: dict[str, Any] = {
        "corpus": first.corpus,
        "only": [len(first.sample_ids) - len(common), len(rows) - len(common)],
        **dict.fromkeys(("n", "emotion", "traits")),
    }
    if not common:
        notes.append(f"{first.corpus}: the runs have no validation sample in common")
        return entry
    for name in ("emotion_targets", "trait_targets"):
        pair = _taken(getattr(first, name), common), _taken(getattr(second, name), theirs)
        if not _same(*pair):
            notes.append(f"{first.corpus}: {name} differ between the runs, which were not compared")
            return entry
    if first.emotion_kind != second.emotion_kind:
        notes.append(f"{first.corpus}: emotion_kind differs between the runs")
        return entry
    labels = Labels(
        [first.source_ids[row] for row in common],
        _taken(first.emotion_targets, common),
        EmotionScale(first.emotion_kind),
        _taken(first.trait_targets, common),
    )
    report = compare_answers(labels, _answers(first, common), _answers(second, theirs))
    if report["emotion"] is None and report["traits"] is None:
        notes.append(f"{first.corpus}: the runs have no task in common")
    return {**entry, **report}


def _answers(predictions: SplitPredictions, rows: list[int]) -> Predictions:
    thresholds = predictions.thresholds
    return Predictions(
        _taken(predictions.emotion_probabilities, rows),
        None if thresholds is None else np.asarray(thresholds, dtype=np.float64),
        predictions.emotion_output,
        _taken(predictions.trait_scores, rows),
    )


def _answered_by_both(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    def masked(mine: Array | None, other: Array | None) -> Array | None:
        if mine is None or other is None:
            return None
        return np.where(np.isfinite(other).all(axis=1, keepdims=True), mine, np.nan)

    pairs = ((first, second), (second, first))
    one, two = (
        Predictions(
            masked(mine.emotion, other.emotion),
            mine.thresholds,
            mine.output,
            masked(mine.traits, other.traits),
        )
        for mine, other in pairs
    )
    return one, two


def _taken(values: Array | None, rows: list[int]) -> Array | None:
    return None if values is None else values[rows]


def _same(first: Array | None, second: Array | None) -> bool:
    if first is None or second is None:
        # A task that one run does not have is not compared, so its labels do not matter.
        return True
    return np.array_equal(first, second, equal_nan=True)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs
