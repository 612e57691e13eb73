"""Stage 1 as something the loop can train: batches of clips, losses, validation scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import (
    best_thresholds,
    multi_label_scores,
    selection_score,
    single_label_scores,
    trait_scores,
)
from mepr_shared.nn.unimodal import UnimodalModel
from mepr_shared.objectives.emotion import (
    EmotionObjective,
    balanced_weights,
    class_shares,
    positive_weights,
)
from mepr_shared.objectives.traits import TraitObjective
from mepr_shared.train.clips import (
    ClipBatch,
    ClipSet,
    ordered_batches,
    shuffled_batches,
    steps_per_epoch,
)
from mepr_shared.train.inference import ClipOutputs, collect, decision_probabilities
from mepr_shared.train.joint import JointObjective
from mepr_shared.train.settings import EmotionLossSettings, FitSettings, TraitLossSettings
from mepr_shared.train.varied import VariedClips


@dataclass
class Objectives:
    """The losses of both tasks; None for a task that is not trained."""

    emotion: EmotionObjective | None
    traits: TraitObjective | None


class ClipTask:
    """Trains a model of one task on the union of corpora.

    Args:
        model: a stage-1 model.
        answer: the model's outputs for a batch on its device.
        train, val: clips with features and labels.
        scales: how each corpus of `val` states its emotions.
        objectives: the losses.
        fit: batch size and seed are read here.
        device: where the model is.
        varied: copies of the training clips to draw from.
    """

    def __init__(
        self,
        model: UnimodalModel,
        answer: Callable[[ClipBatch], ClipOutputs],
        train: ClipSet,
        val: ClipSet,
        scales: list[EmotionScale],
        objectives: Objectives,
        fit: FitSettings,
        device: str,
        varied: VariedClips | None = None,
    ) -> None:
        self.model: nn.Module = model
        self.joint: JointObjective | None = None
        self.answer = answer
        self.train_clips, self.val_clips = train, val
        self.scales = scales
        self.objectives = objectives
        self.settings = fit
        self.device = device
        self.varied = varied
        self.steps_per_epoch = steps_per_epoch(train, fit.batch_size)

    def batches(self, epoch: int) -> Iterable[ClipBatch]:
        """The training batches of an epoch."""
        here = {"seed": self.settings.seed, "epoch": epoch}
        clips = self.varied.drawn(**here) if self.varied else self.train_clips
        return shuffled_batches(clips, self.settings.batch_size, **here)

    def loss(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's loss over the rows that carry its label."""
        batch = batch.to(self.device)
        outputs = self.answer(batch)
        if self.objectives.emotion is not None and outputs.emotion_logits is not None:
            logits = outputs.emotion_logits
            return self.objectives.emotion(logits, batch.emotion, batch.multi_label), {}
        assert self.objectives.traits is not None and outputs.trait_scores is not None
        return self.objectives.traits(outputs.trait_scores, batch.traits), {}

    def validate(self) -> dict[str, float]:
        """Scores per corpus of the validation split, and the selection score over all."""
        return validation_scores(self.validation_outputs(), self.val_clips, self.scales)

    def validation_outputs(self) -> ClipOutputs:
        """The model's answers to the validation clips, in their order."""
        self.model.eval()
        batches = ordered_batches(self.val_clips, 2 * self.settings.batch_size)
        return collect(self.answer, batches, len(self.val_clips), self.device)


def validation_scores(
    outputs: ClipOutputs, clips: ClipSet, scales: list[EmotionScale]
) -> dict[str, float]:
    """`{"meld/uar": ..., "fiv2/ccc": ..., "score": ...}` of a validation split."""
    found: dict[str, float] = {}
    emotion: list[dict[str, Any]] = []
    traits: list[dict[str, Any]] = []
    for index, (corpus, scale) in enumerate(zip(clips.corpora, scales, strict=True)):
        here = clips.store_of == index
        labelled = here & ~np.isnan(clips.emotion_targets).any(axis=1)
        if outputs.emotion_logits is not None and labelled.any():
            logits = outputs.emotion_logits.numpy()[labelled]
            scores = emotion_scores(logits, clips.emotion_targets[labelled], scale)
            emotion.append(scores)
            for name in ("uar", "mwacc", "weighted_f1"):
                if scores[name] is not None:
                    found[f"{corpus}/{name}"] = scores[name]
        labelled = here & ~np.isnan(clips.trait_targets).all(axis=1)
        if outputs.trait_scores is not None and labelled.any():
            scores = trait_scores(
                clips.trait_targets[labelled], outputs.trait_scores.numpy()[labelled]
            )
            traits.append(scores)
            found |= {f"{corpus}/{name}": scores[name] for name in ("ccc", "macc")}
    return {**found, "score": selection_score(emotion, traits)}


def emotion_scores(logits: np.ndarray, targets: np.ndarray, scale: EmotionScale) -> dict[str, Any]:
    """Scores of raw logits `[N, 7]`, multi-label thresholds chosen on these very clips."""
    probabilities = decision_probabilities(logits, scale.is_multi_label)
    if scale.is_multi_label:
        return multi_label_scores(targets, probabilities, best_thresholds(targets, probabilities))
    return single_label_scores(targets, probabilities)


def build_emotion_objective(settings: EmotionLossSettings, train: ClipSet) -> EmotionObjective:
    """The configured emotion loss, with weights counted on the training split.

    Raises:
        DataError: the training split has no emotion labels.
    """
    labelled = ~np.isnan(train.emotion_targets).any(axis=1)
    if not labelled.any():
        raise DataError("the training split has no emotion labels")
    targets, multi = train.emotion_targets, train.multi_label & labelled
    single = labelled & ~train.multi_label
    return EmotionObjective(
        settings.loss,
        pos_weight=positive_weights(targets[multi], settings.pos_weight_cap)
        if settings.pos_weight and multi.any()
        else None,
        class_weight=balanced_weights(targets[single], settings.class_balance)
        if settings.class_balance and single.any()
        else None,
        label_smoothing=settings.label_smoothing,
        logit_adjustment=settings.logit_adjustment if single.any() else 0.0,
        class_prior=class_shares(targets[single]) if single.any() else None,
    )


def build_trait_objective(settings: TraitLossSettings, batch_size: int) -> TraitObjective:
    """The configured trait loss.

    Raises:
        ConfigError: a loss over whole batches (`ccc`) that batches of this size never feed.
    """
    objective = TraitObjective(settings.loss, scale=settings.scale)
    if batch_size < objective.minimum_rows:
        raise ConfigError(
            f"trait_loss.loss = {settings.loss!r} needs batches of {objective.minimum_rows} or "
            f"more, fit.batch_size is {batch_size}"
        )
    return objective


def start_at_training_mean(model: UnimodalModel, train: ClipSet, task: str) -> None:
    """Set the head's bias so that an untrained model predicts the training mean.

    Without it the first epochs go into learning a constant.
    """
    targets = train.trait_targets if task == "traits" else train.emotion_targets
    mean = np.clip(np.nanmean(targets, axis=0), 0.01, 0.99)
    softmax = task == "emotion" and not train.multi_label.any()
    bias = np.log(mean) if softmax else np.log(mean / (1 - mean))
    head = model.head[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias.copy_(torch.from_numpy(bias))
