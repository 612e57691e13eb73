"""Emotion logits of several teams, made comparable.

Teams train with sigmoid or softmax outputs and weight rare classes in their own way; the manifest
says how (`emotion_output`: kind, prior shift, temperature). Here each export's logits become
calibrated log-odds (for multi-label corpora) or centred log-probabilities (for the others), so
that averages over modalities mean something. A decision adds the prior shift of the corpus, the
mean over its exports: an average over one modality then decides exactly as that modality did.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.labels import EMOTIONS

# Beyond this a probability says no more than "certain"; log-odds without bound would let one
# overconfident modality outvote all others.
MAXIMUM_LOG_ODDS = 12.0


def comparable(logits: np.ndarray, output: EmotionOutput, *, multi_label: bool) -> np.ndarray:
    """Logits of one export in the form that all exports of a corpus share.

    Args:
        logits: `[N, 7]` as exported; rows may be NaN.
        output: how to read them.
        multi_label: the corpus's kind.

    Returns:
        `[N, 7]` float32 log-odds `log p / (1 - p)` where `multi_label`, else log-probabilities
        less their mean over classes, which is what a softmax leaves undetermined.
    """
    shift = np.array(output.prior_shift, dtype=np.float32)
    calibrated = (np.asarray(logits, dtype=np.float32) - shift) / np.float32(output.temperature)
    if output.kind == "sigmoid":
        odds = np.clip(calibrated, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)
        if multi_label:
            return odds
        with np.errstate(invalid="ignore"):  # NumPy warns of NaN rows here, and only here
            log_probability = -np.logaddexp(np.float32(0), -odds)
    else:
        top = calibrated.max(axis=1, keepdims=True)
        total = np.log(np.exp(calibrated - top).sum(axis=1, keepdims=True))
        log_probability = np.maximum(calibrated - top - total, -MAXIMUM_LOG_ODDS)
        if multi_label:
            certain = -np.float32(np.exp(-MAXIMUM_LOG_ODDS))
            rest = np.log(-np.expm1(np.minimum(log_probability, certain)))
            return np.clip(log_probability - rest, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)
    return log_probability - log_probability.mean(axis=1, keepdims=True)


def common_shift(outputs: Iterable[EmotionOutput], *, multi_label: bool) -> np.ndarray:
    """`[7]` mean prior shift of the exports that were trained for this kind; 0 without any.

    A shift is divided by its export's temperature, as `comparable` divides the logits.
    """
    kind = "sigmoid" if multi_label else "softmax"
    shifts = [
        np.array(output.prior_shift) / output.temperature
        for output in outputs
        if output.kind == kind
    ]
    if not shifts:
        return np.zeros(len(EMOTIONS), dtype=np.float32)
    return np.mean(shifts, axis=0).astype(np.float32)
