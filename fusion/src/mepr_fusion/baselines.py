"""What stage 3 is compared with: each modality alone, and the mean of their predictions."""

from __future__ import annotations

import numpy as np

from mepr_fusion.answers import Outputs
from mepr_fusion.join import Joined

MEAN = "unimodal_mean"


def unimodal_names(joined: Joined) -> list[str]:
    """The baselines by name: every modality, and their mean where there are several."""
    return [*joined.modalities, *([MEAN] if len(joined.modalities) > 1 else [])]


def unimodal_outputs(joined: Joined, name: str, rows: np.ndarray) -> Outputs:
    """Answers of one modality's exports, or of the mean over the present modalities.

    Args:
        joined: the table.
        name: a modality or `MEAN`.
        rows: `[n]` indices.

    Returns:
        Calibrated emotion logits (`decision_shift` says what decides) and trait scores; rows of
        NaN where there is no prediction.
    """
    present = joined.present[rows]
    emotion = np.where(present[..., None], joined.emotion_predictions[rows], np.nan)
    traits = np.where(present[..., None], joined.trait_predictions[rows], np.nan)
    if name == MEAN:
        return Outputs(_mean(emotion), _mean(traits))
    index = joined.modalities.index(name)
    return Outputs(emotion[:, index], traits[:, index])


def decision_shift(joined: Joined, name: str, rows: np.ndarray) -> np.ndarray:
    """`[n, 7]` to be added to calibrated logits before a decision is taken on them.

    A modality alone decides with its own model's shift; stage 3 and the mean of the modalities
    with that of the sample's corpus.
    """
    by_corpus = joined.prior_shift
    if name in joined.modalities:
        own = [joined.own_shift.get((name, corpus)) for corpus in joined.corpora]
        by_corpus = np.stack([np.zeros(7, np.float32) if one is None else one for one in own])
    return by_corpus[joined.corpus_of[rows]]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the second axis of `[n, M, K]` without NaN; NaN where there is nothing."""
    given = ~np.isnan(values)
    count = given.sum(axis=1)
    total = np.where(given, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
