"""How a run's emotion logits are to be read: activation, prior shift, temperature, thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from mepr_shared.metrics import best_thresholds
from mepr_shared.objectives.emotion import EmotionObjective
from mepr_shared.train.clips import ClipSet
from mepr_shared.train.inference import calibrated_probabilities, fit_temperature


def emotion_outputs(
    logits: np.ndarray, val: ClipSet, objective: EmotionObjective
) -> dict[str, dict[str, Any]]:
    """Per activation that the training data call for (`sigmoid`, `softmax`), how to read logits.

    Temperature minimises the validation log loss; thresholds (sigmoid) maximise balanced accuracy
    on validation, on calibrated probabilities. `default` names the activation of most clips.

    Args:
        logits: `[N, 7]` of the validation clips.
        val: those clips.
        objective: what the model was trained with.
    """
    labelled = ~np.isnan(val.emotion_targets).any(axis=1)
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for multi_label in (True, False):
        here = labelled & (val.multi_label == multi_label)
        if not here.any():
            continue
        kind = objective.activation(multi_label)
        shift = objective.prior_shift(multi_label).numpy().astype(np.float64)
        raw, targets = logits[here], val.emotion_targets[here]
        temperature = fit_temperature(raw - shift, targets, kind == "sigmoid")
        probabilities = calibrated_probabilities(raw, kind == "sigmoid", shift, temperature)
        found[kind] = {
            "kind": kind,
            "prior_shift": shift.tolist(),
            "temperature": temperature,
            "thresholds": best_thresholds(targets, probabilities).tolist()
            if kind == "sigmoid"
            else None,
        }
        counts[kind] = counts.get(kind, 0) + int(here.sum())
    return {**found, "default": max(counts, key=counts.__getitem__)}
