"""What each modality contributes on a split: attribution and leaving it out, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mepr_fusion.analyze.attribution import (
    GROUPS,
    Baseline,
    Target,
    deletion_test,
    integrated_gradients,
    leave_one_out,
    without_modality,
)
from mepr_fusion.answers import Outputs, predict
from mepr_fusion.baselines import decision_shift
from mepr_fusion.data import FusionBatch
from mepr_fusion.evaluate import Evaluation
from mepr_shared.additive import ratio
from mepr_shared.corpora.index import Corpus
from mepr_shared.evaluation import compare
from mepr_shared.intervals import DEFAULT_RESAMPLING, Resampling, cluster_bootstrap
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.scoring import Labels, Predictions
from mepr_shared.train.inference import decision_probabilities

Array = np.ndarray
TASK_TARGETS = {
    "emotion": [Target("emotion_probability", index) for index in range(len(EMOTIONS))],
    "traits": [Target("trait_score", index) for index in range(len(TRAITS))],
}
NAMES = {"emotion": EMOTIONS, "traits": TRAITS}
# Residuals are judged against differences of at least this size: below it there is nothing to
# attribute.
NOTHING = 0.005


def contributions(
    evaluation: Evaluation,
    tasks: Sequence[str],
    rows: Array,
    baseline: Baseline,
    how: Resampling = DEFAULT_RESAMPLING,
    on_output: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Per task and modality: how much of the answers comes from it.

    Args:
        evaluation: the run.
        tasks: those the model answers.
        rows: `[n]` samples.
        baseline: where the attribution starts.
        how: the bootstrap.
        on_output: is told (outputs done, outputs in all).

    Returns:
        `attribution` records (`task, output, modality, n, mean_size, mean_signed` with `_ci`;
        output `all` is the mean over the task's outputs, with `share` per group of inputs),
        `leave_one_out` records of the same form (the change of the answer that the modality
        makes), `deletion` per task (`top, random, difference, ci, n`) and `completeness`
        (largest and median residual as a share of the difference, steps).
    """
    joined = evaluation.joined
    batch = evaluation.data[torch.from_numpy(rows).to(evaluation.data.present.device)]
    sources = joined.source_ids[rows].tolist()
    present = joined.present[rows]
    found: dict[str, Any] = {"attribution": [], "leave_one_out": [], "deletion": {}}
    residuals, steps = [np.zeros(1)], 0
    for task in tasks:
        inputs, without, tops, randoms = [], [], [], []
        tested = np.flatnonzero(present.sum(axis=1) > 1)
        for target in TASK_TARGETS[task]:
            attribution = integrated_gradients(evaluation.model, batch, baseline, target)
            inputs.append(attribution.values.double().cpu().numpy())
            without.append(leave_one_out(evaluation.model, batch, target).cpu().numpy())
            test = deletion_test(evaluation.model, batch, attribution, target)
            tops.append(test.top)
            randoms.append(test.random)
            size = attribution.difference.abs().clamp_min(NOTHING)
            residuals.append((attribution.residual.abs() / size).cpu().numpy())
            steps = max(steps, attribution.steps)
            if on_output:
                on_output(len(residuals) - 1, sum(len(TASK_TARGETS[name]) for name in tasks))
        values = np.stack(inputs, axis=1)  # [n, K, M, groups]
        found["attribution"] += _table(
            task, joined.modalities, values.sum(axis=-1), present, sources, how
        )
        _add_shares(found["attribution"], task, joined.modalities, values)
        changes = np.stack(without, axis=1)  # [n, K, M]
        there = ~np.isnan(changes[:, 0])
        found["leave_one_out"] += _table(
            task, joined.modalities, np.nan_to_num(changes), there, sources, how
        )
        found["deletion"][task] = _deletion(
            np.stack(tops, axis=1), np.stack(randoms, axis=1), [sources[row] for row in tested], how
        )
    shares = np.concatenate(residuals)
    found["completeness"] = {
        "largest": float(shares.max()),
        "median": float(np.median(shares)),
        "steps": steps,
    }
    return found


def score_changes(
    evaluation: Evaluation, split: str, how: Resampling = DEFAULT_RESAMPLING
) -> list[dict[str, Any]]:
    """Scores with all modalities less scores without one, paired on samples that have another.

    Returns:
        Per corpus, modality and score `corpus, modality, task, score, n, with, without,
        difference, ci`.
    """
    joined, found = evaluation.joined, []
    for corpus in evaluation.inputs.corpora:
        rows = joined.select(split=split, corpus=corpus.name)
        batch = evaluation.data[torch.from_numpy(rows).to(evaluation.data.present.device)]
        for index, modality in enumerate(joined.modalities):
            chosen, part = without_modality(batch, index)
            if not len(chosen):
                continue
            here = rows[chosen.cpu().numpy()]
            without = _predictions(evaluation, corpus, here, _answers(evaluation, part))
            whole = evaluation.outputs("fusion", here)
            labels = Labels(
                joined.source_ids[here].tolist(),
                joined.emotion_targets[here],
                corpus.meta.scale,
                joined.trait_targets[here],
            )
            report = compare(labels, without, _predictions(evaluation, corpus, here, whole), how)
            found += _score_records(report, corpus.name, modality)
    return found


def _table(
    task: str,
    modalities: Sequence[str],
    values: Array,
    present: Array,
    sources: Sequence[str],
    how: Resampling,
) -> list[dict[str, Any]]:
    """Means of contributions `[n, K, M]` over the samples that have the modality `[n, M]`."""
    there = np.broadcast_to(present[:, None], values.shape).astype(float)
    counted = np.stack([there, np.abs(values) * there, values * there], axis=-1)
    # The mean over outputs stands beside them as one more.
    statistics = np.concatenate([counted, counted.mean(axis=1, keepdims=True)], axis=1)

    def means(sums: Array) -> dict[str, Array]:
        return {
            "mean_size": ratio(sums[..., 1], sums[..., 0]),
            "mean_signed": ratio(sums[..., 2], sums[..., 0]),
        }

    total, drawn = means(statistics.sum(axis=0)), cluster_bootstrap(statistics, sources, means, how)
    records = []
    for output, name in enumerate((*NAMES[task], "all")):
        for place, modality in enumerate(modalities):
            n = int(present[:, place].sum())
            if not n:
                continue
            record = {"task": task, "output": name, "modality": modality, "n": n}
            for score, value in total.items():
                record[score] = float(value[output, place])
                bounds = None if drawn is None else drawn[score][output, place].tolist()
                record[f"{score}_ci"] = bounds
            records.append(record)
    return records


def _add_shares(
    records: list[dict[str, Any]], task: str, modalities: Sequence[str], values: Array
) -> None:
    """Share of the mean size that each group of inputs has, to the records of all outputs."""
    sizes = np.abs(values).mean(axis=(0, 1))  # [M, groups]
    shares = ratio(sizes, sizes.sum(axis=1, keepdims=True) * np.ones_like(sizes))
    for record in records:
        if record["task"] == task and record["output"] == "all":
            own = shares[list(modalities).index(record["modality"])]
            record["share"] = dict(zip(GROUPS, own.tolist(), strict=True))


def _deletion(
    top: Array, random: Array, sources: Sequence[str], how: Resampling
) -> dict[str, Any] | None:
    """Mean changes `[n, K]` without the modality ranked first and without any one."""
    if not len(top):
        return None
    pairs = np.stack([np.ones(len(top)), top.mean(axis=1), random.mean(axis=1)], axis=-1)

    def means(sums: Array) -> dict[str, Array]:
        return {"difference": ratio(sums[..., 1] - sums[..., 2], sums[..., 0])}

    drawn = cluster_bootstrap(pairs, sources, means, how)
    return {
        "n": len(top),
        "top": float(pairs[:, 1].mean()),
        "random": float(pairs[:, 2].mean()),
        "difference": float((pairs[:, 1] - pairs[:, 2]).mean()),
        "ci": None if drawn is None else drawn["difference"].tolist(),
    }


def _answers(evaluation: Evaluation, batch: FusionBatch) -> Outputs:
    return predict(evaluation.model, batch, np.arange(len(batch)))


def _predictions(
    evaluation: Evaluation, corpus: Corpus, rows: Array, outputs: Outputs
) -> Predictions:
    """What is decided of calibrated outputs, as the run decides."""
    multi_label = corpus.meta.scale.is_multi_label
    thresholds = evaluation.run.metrics["thresholds"].get("fusion") if multi_label else None
    logits = outputs.emotion_logits + decision_shift(evaluation.joined, "fusion", rows)
    decided = np.isfinite(logits).all() and (thresholds is not None or not multi_label)
    return Predictions(
        decision_probabilities(logits, multi_label) if decided else None,
        None if thresholds is None else np.array(thresholds),
        "sigmoid" if multi_label else "softmax",
        outputs.trait_scores if np.isfinite(outputs.trait_scores).all() else None,
    )


def _score_records(report: dict[str, Any], corpus: str, modality: str) -> list[dict[str, Any]]:
    records = []
    for task, scores in (("emotion", ("uar", "mwacc", "weighted_f1")), ("traits", ("ccc", "macc"))):
        for score in scores:
            found = (report[task] or {}).get(score)
            if not isinstance(found, dict) or found.get("difference") is None:
                continue
            records.append(
                {
                    "corpus": corpus,
                    "modality": modality,
                    "task": task,
                    "score": score,
                    "n": report[task]["n"],
                    "with": found["second"],
                    "without": found["first"],
                    "difference": found["difference"],
                    "ci": found.get("ci"),
                }
            )
    return records
