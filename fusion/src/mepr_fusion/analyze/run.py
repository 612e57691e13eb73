"""What a stage-3 run has learned: relations, guide vectors, contributions, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mepr_fusion.analyze.attribution import Baseline, training_baseline
from mepr_fusion.analyze.contributions import contributions, score_changes
from mepr_fusion.analyze.guide_map import guide_map
from mepr_fusion.analyze.relation_analysis import relation_analysis
from mepr_fusion.analyze.relations import Relations
from mepr_fusion.analyze.reliability import (
    emotion_reliability,
    temperature_of,
    trait_calibration,
    trait_half_widths,
)
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.settings import MODES
from mepr_shared.errors import DataError
from mepr_shared.intervals import DEFAULT_RESAMPLING, Resampling

Array = np.ndarray
# Samples whose answers are attributed; gradients of all of a large split take hours.
SAMPLES = 400


@dataclass(frozen=True)
class Analysis:
    """Everything `analyze` finds.

    Attributes:
        record: ready for JSON, see `analyze`.
        relations: answer -> its matrix.
        calibration: on validation, the content of `calibration.json`.
        baseline: of the attributions.
    """

    record: dict[str, Any]
    relations: dict[str, Relations]
    calibration: dict[str, Any]
    baseline: Baseline


def analyze(
    evaluation: Evaluation,
    split: str = "val",
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    how: Resampling = DEFAULT_RESAMPLING,
    on_output: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Analyse a run on a split.

    Args:
        evaluation: the run, reopened.
        split: what is looked at; temperatures and half-widths are fitted on `val` whatever it is.
        samples: how many are attributed, drawn at random where the split has more.
        seed: of that draw.
        how: the bootstrap.
        on_output: is told of every output that has been attributed (done, in all).

    Returns:
        A record with `run, split, n, tasks, relations, guide_map, contributions, score_changes,
        calibration`.

    Raises:
        DataError: the split has no sample.
    """
    joined = evaluation.joined
    rows = joined.select(split=split)
    if not len(rows):
        raise DataError(f"the run's corpora have no sample of split {split!r}")
    outputs = evaluation.outputs("fusion", rows)
    answered = {"emotion": outputs.emotion_logits, "traits": outputs.trait_scores}
    tasks = [task for task, values in answered.items() if np.isfinite(values).any()]
    found, relation_record = relation_analysis(evaluation, split, how)
    chosen = rows
    if len(rows) > samples:
        chosen = np.sort(np.random.default_rng(seed).choice(rows, samples, replace=False))
    baseline = attribution_baseline(evaluation)
    calibration = calibrate(evaluation, "val", tasks, how)
    record = {
        "run": str(evaluation.run.path),
        "split": split,
        "n": len(rows),
        "tasks": tasks,
        "relations": relation_record,
        "guide_map": guide_map(
            evaluation.model,
            evaluation.data,
            rows,
            joined.emotion_targets[rows],
            joined.trait_targets[rows],
        ),
        "contributions": {
            "n": len(chosen),
            "baseline": "mean of the training split",
            **contributions(evaluation, tasks, chosen, baseline, how, on_output),
        },
        "score_changes": score_changes(evaluation, split, how),
        "calibration": calibration if split == "val" else calibrate(evaluation, split, tasks, how),
    }
    return Analysis(record, found, calibration, baseline)


def attribution_baseline(evaluation: Evaluation) -> Baseline:
    """The training mean of a run's inputs."""
    joined, data = evaluation.joined, evaluation.data
    halves, _ = MODES[evaluation.run.config["settings"]["mode"]]
    widths = {
        name: 0 if halves == "traits" else joined.widths[name][0] for name in joined.modalities
    }
    train = torch.from_numpy(joined.select(split="train")).to(data.present.device)
    return training_baseline(data, train, widths)


def calibrate(
    evaluation: Evaluation, split: str, tasks: list[str], how: Resampling = DEFAULT_RESAMPLING
) -> dict[str, Any]:
    """Temperatures and half-widths from validation, and what they do on a split.

    Returns:
        `split`; `temperature` per kind (None without validation labels of the kind); `emotion`
        per corpus (`emotion_reliability`); `traits` per trait, all corpora together
        (`trait_calibration`).
    """
    joined = evaluation.joined
    rows, val = joined.select(split=split), joined.select(split="val")
    outputs, fitted_on = evaluation.outputs("fusion", rows), evaluation.outputs("fusion", val)
    temperature: dict[str, float | None] = {"sigmoid": None, "softmax": None}
    emotion: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    if "emotion" in tasks:
        known = ~np.isnan(joined.emotion_targets[val]).any(axis=1)
        for kind, multi_label in (("sigmoid", True), ("softmax", False)):
            here = known & (joined.multi_label[val] == multi_label)
            if here.any():
                targets = joined.emotion_targets[val[here]]
                temperature[kind] = temperature_of(
                    fitted_on.emotion_logits[here], targets, multi_label
                )
        labelled = ~np.isnan(joined.emotion_targets[rows]).any(axis=1)
        for number, corpus in enumerate(joined.corpora):
            here = labelled & (joined.corpus_of[rows] == number)
            multi_label = bool(evaluation.run.config["multi_label"][corpus])
            fitted = temperature["sigmoid" if multi_label else "softmax"]
            if here.any() and fitted is not None:
                targets = joined.emotion_targets[rows[here]]
                logits = outputs.emotion_logits[here]
                emotion[corpus] = emotion_reliability(logits, targets, multi_label, fitted)
    if "traits" in tasks and not np.isnan(joined.trait_targets[val]).all():
        traits = trait_calibration(
            outputs.trait_scores,
            joined.trait_targets[rows],
            joined.source_ids[rows].tolist(),
            trait_half_widths(fitted_on.trait_scores, joined.trait_targets[val]),
            how,
        )
    return {"split": split, "temperature": temperature, "emotion": emotion, "traits": traits}
