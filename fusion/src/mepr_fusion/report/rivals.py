"""Stage 3 beside each of what it must beat, with paired intervals on the samples both answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mepr_fusion.baselines import MEAN
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.report.embedding_baselines import NAME, LinearModel
from mepr_shared.corpora.index import Corpus
from mepr_shared.evaluation import evaluate
from mepr_shared.scoring import Constants, Labels, Predictions, constant_predictions
from mepr_shared.train.compare_runs import compare_answers
from mepr_shared.train.inference import decision_probabilities

TASKS = ("emotion", "traits")


def with_rivals(
    evaluation: Evaluation, record: Mapping[str, Any], linear: LinearModel
) -> dict[str, Any]:
    """An `evaluate --json` record with the linear baseline and all paired differences.

    Args:
        record: of `Evaluation.scores`.
        linear: the baseline on the embeddings.

    Returns:
        The record; under `modalities` also `embeddings_linear`, and under `differences` per task
        rival -> what `mepr_shared.evaluation.compare` says of stage 3 less it.
    """
    corpus = next(c for c in evaluation.inputs.corpora if c.name == record["corpus"])
    rows = evaluation.joined.select(split=record["split"], corpus=corpus.name)
    labels, said = evaluation.labels_of(corpus, rows), evaluation.answers_of(corpus, "fusion", rows)
    answers = linear_answers(evaluation, corpus, linear, rows)
    rivals = {
        "constant": constant_predictions(_constants(evaluation, corpus), labels),
        NAME: answers,
    }
    if MEAN in record["modalities"]:
        rivals[MEAN] = evaluation.answers_of(corpus, MEAN, rows)
    differences: dict[str, dict[str, Any]] = {task: {} for task in TASKS}
    for name, predictions in rivals.items():
        found = compare_answers(labels, predictions, said)
        for task in TASKS:
            if found[task]:
                differences[task][name] = found[task]
    return {
        **record,
        "modalities": {**record["modalities"], NAME: _scores(labels, answers)},
        "differences": differences,
    }


def linear_answers(
    evaluation: Evaluation, corpus: Corpus, linear: LinearModel, rows: np.ndarray
) -> Predictions:
    """What the linear baseline says of a corpus's `rows` `[n]`, on its decision probabilities."""
    multi_label = corpus.meta.scale.is_multi_label
    outputs = linear.outputs(evaluation.joined, rows)
    logits = outputs.emotion_logits + linear.decision_shift(evaluation.joined, rows)
    probabilities = np.full(logits.shape, np.nan)
    given = np.isfinite(logits).all(axis=1)
    thresholds = linear.thresholds if multi_label else None
    if not multi_label or thresholds is not None:
        probabilities[given] = decision_probabilities(logits[given], multi_label)
    return Predictions(
        probabilities,
        None if thresholds is None else np.array(thresholds),
        "sigmoid" if multi_label else "softmax",
        outputs.trait_scores,
    )


def _scores(labels: Labels, answers: Predictions) -> dict[str, Any]:
    found = evaluate(
        "",
        "",
        source_ids=labels.source_ids,
        emotion_targets=labels.emotion,
        emotion_scale=labels.scale,
        emotion_probabilities=answers.emotion,
        emotion_output=answers.output,
        thresholds=answers.thresholds,
        trait_targets=labels.traits,
        trait_scores=answers.traits,
    )
    return {task: found[task] for task in TASKS}


def _constants(evaluation: Evaluation, corpus: Corpus) -> Constants:
    stored = evaluation.run.metrics["constants"][corpus.name]
    return Constants(*(None if stored[k] is None else np.array(stored[k]) for k in stored))
