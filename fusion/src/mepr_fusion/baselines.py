"""What stage 3 is compared with: each modality alone, and the mean of their predictions."""

from __future__ import annotations

import numpy as np

from mepr_fusion.join import Joined
from mepr_fusion.task import Outputs

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
        Emotion logits on which an argmax decides as the modality's own model does, and trait
        scores; rows of NaN where there is no prediction.
    """
    present = joined.present[rows]
    emotion = np.where(present[..., None], joined.emotion_predictions[rows], np.nan)
    traits = np.where(present[..., None], joined.trait_predictions[rows], np.nan)
    if name == MEAN:
        return Outputs(_mean(emotion), _mean(traits))
    index = joined.modalities.index(name)
    logits = emotion[:, index]
    for number, corpus in enumerate(joined.corpora):
        here = joined.corpus_of[rows] == number
        logits[here] += joined.own_shift.get((name, corpus), np.float32(0))
    return Outputs(logits, traits[:, index])


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the second axis of `[n, M, K]` without NaN; NaN where there is nothing."""
    given = ~np.isnan(values)
    count = given.sum(axis=1)
    total = np.where(given, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
