"""A stage-3 model's answers to many samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from mepr_fusion.data import FusionBatch
from mepr_fusion.model import FusionModel, FusionOutput

PREDICT_BATCH = 4096


@dataclass(frozen=True)
class Outputs:
    """What was answered to `n` samples: calibrated `emotion_logits [n, 7]`, `trait_scores [n, 5]`;
    NaN for a task that was not answered."""

    emotion_logits: np.ndarray
    trait_scores: np.ndarray


def only(outputs: Outputs, tasks: Sequence[str]) -> Outputs:
    """The same answers, those to other tasks taken out."""
    return Outputs(
        outputs.emotion_logits
        if "emotion" in tasks
        else np.full_like(outputs.emotion_logits, np.nan),
        outputs.trait_scores if "traits" in tasks else np.full_like(outputs.trait_scores, np.nan),
    )


@torch.inference_mode()
def predict(model: nn.Module, data: FusionBatch, rows: np.ndarray) -> Outputs:
    """The model's answers, in eval mode, in the order of `rows` (`[n]` indices)."""
    model.eval()
    index = torch.from_numpy(rows).to(data.present.device)
    logits, scores = [np.empty((0, 7), np.float32)], [np.empty((0, 5), np.float32)]
    for part in index.split(PREDICT_BATCH):
        output = answer(model, data[part])
        logits.append(output.emotion_logits.float().cpu().numpy())
        scores.append(output.trait_scores.float().cpu().numpy())
    return Outputs(np.concatenate(logits), np.concatenate(scores))


def answer(model: nn.Module, batch: FusionBatch) -> FusionOutput:
    """The model's answer to samples whose features are raw or standardised."""
    if not batch.standardised:
        return model(*batch.inputs)
    fusion = cast(FusionModel, model)
    trunk = fusion.trunk(batch.features, batch.present)
    return fusion.branches(trunk, trunk.shared, trunk.shared, *batch.inputs[1:])
