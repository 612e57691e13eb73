"""Predictions of stage-1 and stage-2 models for many clips, and how to read the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mepr_shared.nn.cross_task import CrossTaskModel, CrossTaskOutput
from mepr_shared.nn.unimodal import UnimodalModel
from mepr_shared.train.clips import ClipBatch, ClipSet, ordered_batches


@dataclass
class ClipOutputs:
    """A model's answer to B or N clips; None for a task that it does not have.

    `emotion_logits [N, 7]`, `trait_logits [N, 5]` (score = sigmoid), `emotion_embedding [N, De]`,
    `trait_embedding [N, Dp]`.
    """

    emotion_logits: Tensor | None = None
    trait_logits: Tensor | None = None
    emotion_embedding: Tensor | None = None
    trait_embedding: Tensor | None = None

    @property
    def trait_scores(self) -> Tensor | None:
        """`[N, 5]` in [0, 1]."""
        return None if self.trait_logits is None else torch.sigmoid(self.trait_logits)

    def take(self, rows: np.ndarray) -> ClipOutputs:
        """The outputs at the given indices."""
        index = torch.from_numpy(rows)
        values = (getattr(self, name) for name in FIELDS)
        return ClipOutputs(*(None if value is None else value[index] for value in values))


FIELDS = ("emotion_logits", "trait_logits", "emotion_embedding", "trait_embedding")


def run_model(
    model: UnimodalModel | CrossTaskModel, task: str | None, frames: Tensor, mask: Tensor
) -> ClipOutputs:
    """One forward pass.

    Args:
        task: `emotion` or `traits` of a stage-1 model; None for a stage-2 model.
        frames: `[B, T, D]`.
        mask: `[B, T]`, True = valid.
    """
    output = model(frames, mask)
    if task == "emotion":
        return ClipOutputs(emotion_logits=output.logits, emotion_embedding=output.embedding)
    if task == "traits":
        return ClipOutputs(trait_logits=output.logits, trait_embedding=output.embedding)
    return stage2_outputs(output)


def stage2_outputs(output: CrossTaskOutput) -> ClipOutputs:
    """What a stage-2 model gave."""
    return ClipOutputs(
        output.emotion_logits,
        output.trait_logits,
        output.emotion_embedding,
        output.trait_embedding,
    )


def predict_clips(
    model: UnimodalModel | CrossTaskModel,
    task: str | None,
    clips: ClipSet,
    *,
    batch_size: int = 64,
    device: str = "cpu",
) -> ClipOutputs:
    """Outputs for every clip, on the CPU in float32, in the set's order."""
    model.eval()
    answer = partial(answer_frames, model, task)
    return collect(answer, ordered_batches(clips, batch_size), len(clips), device)


def answer_frames(
    model: UnimodalModel | CrossTaskModel, task: str | None, batch: ClipBatch
) -> ClipOutputs:
    """The model's answer to a batch of encoder frames."""
    return run_model(model, task, batch.frames, batch.mask)


@torch.no_grad()
def collect(
    answer: Callable[[ClipBatch], ClipOutputs],
    batches: Iterable[ClipBatch],
    count: int,
    device: str,
) -> ClipOutputs:
    """Outputs of batches put where their `indices` say: `[count, ...]`, on the CPU in float32."""
    collected: dict[str, Tensor] = {}
    for batch in batches:
        outputs = answer(batch.to(device))
        for name in FIELDS:
            value = getattr(outputs, name)
            if value is None:
                continue
            if name not in collected:
                collected[name] = torch.empty(count, value.shape[1])
            collected[name][torch.from_numpy(batch.indices)] = value.float().cpu()
    return ClipOutputs(**collected)


def decision_probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Probabilities `[N, 7]` that decisions are taken from: sigmoid or softmax of raw logits.

    Class weights in training shift these on purpose (towards balanced recall); what is shown or
    averaged over teams is `calibrated_probabilities`.
    """
    return _activate(logits, multi_label)


def calibrated_probabilities(
    logits: np.ndarray, multi_label: bool, prior_shift: np.ndarray, temperature: float
) -> np.ndarray:
    """Probabilities `[N, 7]` with the training weights' shift taken out: act((z - shift) / T)."""
    return _activate((logits - prior_shift) / temperature, multi_label)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, multi_label: bool) -> float:
    """The T in [0.05, 20] that minimises the validation log loss of act(z / T).

    Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        logits: `[N, 7]`, prior shift already taken out.
        targets: `[N, 7]`, no NaN.
    """
    from scipy.optimize import minimize_scalar

    def log_loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        if multi_label:
            return float(np.mean(np.logaddexp(0, z) - targets * z))
        return float(np.mean(np.logaddexp.reduce(z, axis=1) - (targets * z).sum(axis=1)))

    found = minimize_scalar(log_loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def _activate(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    if multi_label:
        return 0.5 * (1 + np.tanh(0.5 * logits))
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
