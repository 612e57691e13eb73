"""Scores on the validation split, by which an epoch is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mepr_fusion.answers import Outputs, only
from mepr_fusion.baselines import MEAN, unimodal_outputs
from mepr_fusion.join import Joined
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import selection_score, trait_scores
from mepr_shared.train.clip_task import emotion_scores

# How much a trained model may lose on a corpus against the mean of its exports' predictions.
TOLERANCE = {"uar": 0.01, "mwacc": 0.01, "weighted_f1": 0.01, "ccc": 0.02, "macc": 0.001}
TRAIT_SCORES = ("ccc", "macc")


def labelled(joined: Joined, split: str) -> np.ndarray:
    """Row indices `[n]` of a split that have a label for either task."""
    rows = joined.select(split=split)
    emotion = ~np.isnan(joined.emotion_targets[rows]).any(axis=1)
    traits = ~np.isnan(joined.trait_targets[rows]).all(axis=1)
    return rows[emotion | traits]


def answers_of_exports(joined: Joined, rows: np.ndarray, tasks: Sequence[str]) -> Outputs:
    """The mean of the exports' predictions for `rows` `[n]`, what a model has to beat.

    Where no modality of a sample has one, the mean over the training samples, as the untrained
    model answers; NaN for other tasks, and where there is no prediction at all.
    """
    answers = unimodal_outputs(joined, MEAN, rows)
    train = unimodal_outputs(joined, MEAN, joined.select(split="train"))

    def filled(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
        given = ~np.isnan(usual)
        middle = np.where(given, usual, 0.0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
        middle[~given.any(axis=0)] = np.nan
        return np.where(np.isnan(values), middle, values).astype(np.float32)

    emotion = filled(answers.emotion_logits, train.emotion_logits)
    return only(Outputs(emotion, filled(answers.trait_scores, train.trait_scores)), tasks)


def floor(start: Mapping[str, float], joined: Joined, rows: np.ndarray) -> dict[str, float]:
    """What a trained model has to reach on each corpus: the scores of the exports' mean
    prediction less `TOLERANCE`, or less what one sample is worth where that is more."""
    found = {}
    for name, value in start.items():
        corpus, _, score = name.rpartition("/")
        here = joined.corpus_of[rows] == joined.corpora.index(corpus)
        targets = joined.trait_targets if score in TRAIT_SCORES else joined.emotion_targets
        known = ~np.isnan(targets[rows[here]]).all(axis=1)
        found[name] = value - max(TOLERANCE[score], 1 / known.sum())
    return found


def validation_scores(
    outputs: Outputs, joined: Joined, rows: np.ndarray, scales: Mapping[str, EmotionScale]
) -> dict[str, float]:
    """`{"meld/uar": ..., "fiv2/ccc": ..., "score": ...}` of answers to `rows` `[n]`."""
    found: dict[str, float] = {}
    emotion: list[dict[str, Any]] = []
    traits: list[dict[str, Any]] = []
    for number, corpus in enumerate(joined.corpora):
        here = joined.corpus_of[rows] == number
        targets = joined.emotion_targets[rows]
        known = here & ~np.isnan(targets).any(axis=1)
        if known.any() and not np.isnan(outputs.emotion_logits[known]).any():
            decided = outputs.emotion_logits[known] + joined.prior_shift[number]
            scores = emotion_scores(decided, targets[known], scales[corpus])
            emotion.append(scores)
            names = [name for name in ("uar", "mwacc", "weighted_f1") if scores[name] is not None]
            found |= {f"{corpus}/{name}": scores[name] for name in names}
        targets = joined.trait_targets[rows]
        known = here & ~np.isnan(targets).all(axis=1)
        if known.any() and not np.isnan(outputs.trait_scores[known]).any():
            scores = trait_scores(targets[known], outputs.trait_scores[known])
            traits.append(scores)
            found |= {f"{corpus}/{name}": scores[name] for name in ("ccc", "macc")}
    if emotion or traits:
        found["score"] = selection_score(emotion, traits)
    return found
