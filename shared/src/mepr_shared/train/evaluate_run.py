"""Evaluate a stage-1 or stage-2 run on a split of a corpus."""

from __future__ import annotations

from typing import Any

import numpy as np

from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.evaluation import evaluate
from mepr_shared.labels import EMOTIONS, TASKS, EmotionScale, emotion_targets
from mepr_shared.scoring import Constants, Predictions
from mepr_shared.train.clips import ClipSet, gather
from mepr_shared.train.inference import (
    ClipOutputs,
    calibrated_probabilities,
    decision_probabilities,
    predict_clips,
)
from mepr_shared.train.models import load_model
from mepr_shared.train.runs import Run

# A third of MOSEI's positives and more have this intensity or less.
STRONG_ABOVE = 1 / 3


def evaluate_run(
    run: Run,
    corpus: Corpus,
    store: FrameStore,
    split: str,
    *,
    by: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """The `evaluate --json` object of one corpus (see `mepr_shared.evaluation`).

    Args:
        by: a corpus column; adds the scores of each of its groups.
    """
    task = run.config.get("task")
    clips = gather([corpus], [store], split=split, labelled_for=[task] if task else TASKS)
    outputs = predict_clips(load_model(run, device), task, clips, device=device)
    return evaluate_outputs(run, corpus, split, clips, outputs, by=by)


def evaluate_outputs(
    run: Run,
    corpus: Corpus,
    split: str,
    clips: ClipSet,
    outputs: ClipOutputs,
    *,
    by: str | None = None,
) -> dict[str, Any]:
    """The same for outputs that are there already; `clips` are of this corpus alone."""
    rows = {sample_id: row for row, sample_id in enumerate(corpus.sample_ids)}
    chosen = [rows[sample_id] for sample_id in clips.sample_ids]
    answers = predictions(run, corpus.meta.scale, outputs)
    seen = run.metrics["train_sources"].get(corpus.name)
    return evaluate(
        corpus.name,
        split,
        source_ids=clips.source_ids.tolist(),
        emotion_targets=clips.emotion_targets,
        emotion_scale=corpus.meta.scale,
        emotion_probabilities=answers.emotion,
        emotion_output=answers.output,
        thresholds=answers.thresholds,
        strong_targets=_strong_targets(corpus, chosen),
        trait_targets=clips.trait_targets,
        trait_scores=answers.traits,
        constants=constants(run),
        n_dropped={
            reason: count for (name, reason), count in clips.dropped.items() if name == corpus.name
        },
        seen_sources=None if seen is None else np.isin(clips.source_ids, seen),
        groups={by: corpus.column(by)[chosen].tolist()} if by else None,
    )


def predictions(run: Run, scale: EmotionScale, outputs: ClipOutputs) -> Predictions:
    """Outputs as they are scored on a corpus of that kind.

    Emotion probabilities are calibrated where thresholds decide, and those of the raw logits where
    the argmax does.
    """
    reading = emotion_reading(run, scale)
    traits = None if outputs.trait_scores is None else outputs.trait_scores.numpy()
    if outputs.emotion_logits is None or reading is None:
        return Predictions(None, None, "softmax", traits)
    logits, sigmoid = outputs.emotion_logits.numpy(), reading["kind"] == "sigmoid"
    if not scale.is_multi_label:
        return Predictions(decision_probabilities(logits, sigmoid), None, reading["kind"], traits)
    shift = np.array(reading["prior_shift"])
    probabilities = calibrated_probabilities(logits, sigmoid, shift, reading["temperature"])
    return Predictions(probabilities, np.array(reading["thresholds"]), reading["kind"], traits)


def emotion_reading(run: Run, scale: EmotionScale) -> dict[str, Any] | None:
    """How the run's emotion logits are read for a corpus of that kind; None without emotions.

    A run that never saw the corpus's kind is read the way it was trained; a multi-label corpus
    then gets the thresholds of a chance-level decision per class.
    """
    readings = run.metrics.get("emotion_outputs")
    if not readings:
        return None
    wanted = "sigmoid" if scale.is_multi_label else "softmax"
    reading = dict(readings.get(wanted) or readings[readings["default"]])
    if scale.is_multi_label and not reading["thresholds"]:
        reading["thresholds"] = [1 / len(EMOTIONS)] * len(EMOTIONS)
    return reading


def constants(run: Run) -> Constants:
    """The constant predictions of the run's training split, for the baseline row."""
    stored = run.metrics["constants"]
    return Constants(
        *(None if stored[k] is None else np.array(stored[k]) for k in stored)  # same order
    )


def _strong_targets(corpus: Corpus, chosen: list[int]) -> np.ndarray | None:
    scale = corpus.meta.scale
    if scale.kind != "intensity" or scale.present_above >= STRONG_ABOVE:
        return None
    strong = EmotionScale(scale.kind, scale.maximum, STRONG_ABOVE)
    return emotion_targets(corpus.emotion_values[chosen], strong)
