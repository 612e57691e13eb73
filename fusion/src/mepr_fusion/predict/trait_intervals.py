"""How far trait scores may be off, measured on validation.

Split conformal prediction (Lei et al. 2018, "Distribution-Free Predictive Inference for
Regression"): the half-width is the quantile of the absolute validation errors that holds the score
of a new sample like them with the given probability.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mepr_shared.labels import TRAITS
from mepr_shared.train.predictions import VAL_PREDICTIONS, read_predictions
from mepr_shared.train.runs import Run

LEVEL = 0.9


def trait_intervals(run: Run) -> dict[str, Any] | None:
    """`{level, n, half_width: {trait: score}}` from a run's validation predictions.

    None where no validation sample has trait labels, or the predictions were not kept. A trait
    with too few samples for the level has the half-width None.
    """
    path = run.path / VAL_PREDICTIONS
    if not path.is_file():
        return None
    errors = [
        np.abs(entry.trait_scores - entry.trait_targets)
        for entry in read_predictions(path).values()
        if entry.trait_scores is not None and entry.trait_targets is not None
    ]
    if not errors:
        return None
    absolute = np.concatenate(errors)
    known = absolute[~np.isnan(absolute).any(axis=1)]
    widths = [conformal_half_width(column, LEVEL) for column in known.T]
    return {
        "level": LEVEL,
        "n": len(known),
        "half_width": dict(zip(TRAITS, widths, strict=True)),
    }


def conformal_half_width(errors: np.ndarray, level: float) -> float | None:
    """The `ceil((n + 1) * level)`-th smallest of `n` absolute errors; None beyond the last."""
    place = math.ceil((len(errors) + 1) * level)
    return float(np.sort(errors)[place - 1]) if 0 < place <= len(errors) else None
