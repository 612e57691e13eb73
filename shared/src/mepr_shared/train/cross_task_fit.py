"""Stage 2 as something the loop can train: four loss terms, their weights, and a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, TASKS, TRAITS, EmotionScale
from mepr_shared.nn.cross_task import CrossTaskModel
from mepr_shared.objectives.pseudo_labels import (
    TraitScale,
    emotion_pseudo_labels,
    positive_share,
    published_trait_labels,
)
from mepr_shared.train.clip_task import Objectives, validation_scores
from mepr_shared.train.clips import (
    ClipBatch,
    ClipSet,
    ordered_batches,
    shuffled_batches,
    steps_per_epoch,
)
from mepr_shared.train.frozen import answer_frozen, frozen_outputs
from mepr_shared.train.hidden import hidden_rows
from mepr_shared.train.inference import ClipOutputs, collect
from mepr_shared.train.joint import SEMI, JointObjective, Term, uses_pseudo_labels
from mepr_shared.train.moments import Moments
from mepr_shared.train.settings import Stage2Settings


class CrossTaskFit:
    """Trains a stage-2 model on the union of corpora; a term counts where its label exists.

    Args:
        model: on `device`.
        train, val: `frozen_clips`; with `ssl`, `train` holds clips without any label as well.
        scales: how each corpus of `val` states its emotions.
        objectives: the losses of both tasks.
        settings: weighting, teacher, hidden labels, batch size, seed.
        device: where the model is.

    Raises:
        DataError: every label is set aside.
    """

    def __init__(
        self,
        model: CrossTaskModel,
        train: ClipSet,
        val: ClipSet,
        scales: list[EmotionScale],
        objectives: Objectives,
        settings: Stage2Settings,
        device: str,
    ) -> None:
        assert objectives.emotion is not None and objectives.traits is not None
        self.model: nn.Module = model
        self.cross_task = model
        self.val_clips, self.scales, self.device = val, scales, device
        self.emotion, self.traits = objectives.emotion, objectives.traits
        self.settings = settings
        self.train_clips, self.hidden = hide_labels(train, settings)
        self.batch_size = settings.fit.batch_size
        has_label = ~np.isnan(self.train_clips.emotion_targets).any(axis=1)
        has_label |= ~np.isnan(self.train_clips.trait_targets).all(axis=1)
        self.labelled, self.unlabelled = np.flatnonzero(has_label), np.flatnonzero(~has_label)
        most = int(settings.semi.unlabelled * len(self.labelled))
        self.others = min(most, len(self.unlabelled)) if uses_pseudo_labels(settings) else 0
        self.rows = np.arange(len(self.train_clips))
        in_epoch = self.train_clips.subset(self._draw(epoch=0))
        self.steps_per_epoch = steps_per_epoch(in_epoch, self.batch_size)
        self.joint: JointObjective | None = JointObjective(
            model, TASKS, settings, self.steps_per_epoch
        )
        self.teacher = self.joint.teacher if self.joint.semi else None
        with_traits = ~np.isnan(self.train_clips.trait_targets).all(axis=1)
        self.trait_clips = self.train_clips.subset(np.flatnonzero(with_traits))
        self.scale: TraitScale | None = None
        visible = torch.from_numpy(self.train_clips.emotion_targets)
        self.labelled_share = positive_share(visible).to(device)
        self.teaches = False

    def batches(self, epoch: int) -> Iterable[ClipBatch]:
        """The training batches of an epoch."""
        self.teaches = self.teacher is not None and epoch > self.settings.semi.warmup
        if self.teaches:
            self._measure()
        self.rows = self._draw(epoch)
        clips = self.train_clips.subset(self.rows)
        return shuffled_batches(clips, self.batch_size, seed=self.settings.fit.seed, epoch=epoch)

    def _draw(self, epoch: int) -> np.ndarray:
        """Clips of an epoch: all with a label, and as many without as `semi.unlabelled` allows."""
        generator = np.random.default_rng((self.settings.fit.seed, epoch, 1))
        others = generator.permutation(self.unlabelled)[: self.others]
        return np.sort(np.concatenate([self.labelled, others]))

    def loss(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the terms over the rows that carry a label or a pseudo-label."""
        assert self.joint is not None
        batch = batch.to(self.device)
        features = self.cross_task.features(frozen_outputs(self.cross_task, batch), batch.mask)
        views = self.joint.views(features.shared_input, features.shared)
        output = self.cross_task.predict(features, views["emotion"], views["traits"])
        emotion, traits = batch.emotion, batch.traits
        labelled = ~emotion.isnan().any(dim=1)
        with_traits = ~traits.isnan().all(dim=1)
        extra: dict[str, Tensor] = {}
        if self.teaches:
            pseudo_emotion, pseudo_traits, extra = self._pseudo_labels(batch)
            emotion = torch.where(labelled[:, None], emotion, pseudo_emotion)
        losses = self.emotion.row_losses(output.emotion_logits, emotion, batch.multi_label)
        count = labelled.sum().clamp_min(1)
        terms = {
            "emotion": Term(torch.where(labelled, losses, 0.0).sum() / count, labelled),
            "traits": Term(self.traits(output.trait_scores, traits), with_traits),
        }
        if self.teaches:
            rows = ~labelled & ~emotion.isnan().all(dim=1)
            loss = torch.where(labelled, 0.0, losses).sum() / (~labelled).sum().clamp_min(1)
            terms["emotion" + SEMI] = Term(loss, rows)
            rows = ~with_traits & ~pseudo_traits.isnan().all(dim=1)
            targets = torch.where(rows[:, None], pseudo_traits, torch.nan)
            terms["traits" + SEMI] = Term(self.traits(output.trait_scores, targets), rows)
        total, log = self.joint.total(terms)
        return total, {**log, **extra}

    def validate(self) -> dict[str, float]:
        """Scores per corpus of the validation split, and the selection score over all."""
        return validation_scores(self.validation_outputs(), self.val_clips, self.scales)

    def validation_outputs(self) -> ClipOutputs:
        """The model's answers to the validation clips, in their order."""
        self.model.eval()
        return self._outputs(self.cross_task)

    def _outputs(self, model: CrossTaskModel) -> ClipOutputs:
        batches = ordered_batches(self.val_clips, 2 * self.batch_size)
        answer = partial(answer_frozen, model)
        return collect(answer, batches, len(self.val_clips), self.device)

    @torch.no_grad()
    def _pseudo_labels(self, batch: ClipBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The teacher's labels `[B, 7]` and `[B, 5]`, NaN where it is unsure, and a log of them."""
        teacher = self._teacher_model()
        output = answer_frozen(teacher, batch)
        assert output.emotion_logits is not None and output.trait_scores is not None
        several, one = (self.emotion.prior_shift(k).to(batch.frames.device) for k in (True, False))
        shift = torch.where(batch.multi_label[:, None], several, one)
        emotion = emotion_pseudo_labels(
            output.emotion_logits - shift,
            batch.multi_label,
            positive=self.settings.semi.positive,
            negative=self.settings.semi.negative,
        )
        scores = output.trait_scores
        if self.settings.pseudo == "published":
            traits = published_trait_labels(scores)
        elif self.scale is None:
            traits = torch.full_like(scores, torch.nan)
        else:
            traits = self.scale.labels(scores, self._dropout_spread(teacher, batch))
        free = batch.emotion.isnan().any(dim=1)
        without = batch.traits.isnan().all(dim=1)
        sure, confident = ~emotion[free].isnan(), ~traits[without].isnan()
        hidden = {
            name: torch.from_numpy(v[self.rows[batch.indices]]) for name, v in self.hidden.items()
        }
        truth = hidden["emotion"].to(emotion.device)[free]
        known = sure & ~truth.isnan()
        error = (traits - hidden["traits"].to(traits.device))[without].abs()
        return (
            emotion,
            traits,
            {
                "pseudo/emotion_rate": sure.float().mean(),
                "pseudo/trait_rate": confident.float().mean(),
                "pseudo/emotion_agreement": (emotion[free] == truth)[known].float().mean(),
                "pseudo/trait_error": error.nanmean(),
                **_by_class("positive", positive_share(emotion[free])),
                **_by_class("labelled", self.labelled_share),
            },
        )

    @torch.no_grad()
    def _measure(self) -> None:
        """The teacher's trait scores beside labels, and its usual spread over dropout passes."""
        if self.settings.pseudo == "published" or not len(self.trait_clips):
            return
        teacher, moments = self._teacher_model(), Moments(len(TRAITS))
        for batch in ordered_batches(self.trait_clips, 2 * self.batch_size):
            moved = batch.to(self.device)
            moments.add(cast(Tensor, answer_frozen(teacher, moved).trait_scores), moved.traits)
        limits = [
            self._dropout_spread(teacher, batch.to(self.device))
            for batch in ordered_batches(self.val_clips, 2 * self.batch_size)
        ]
        limit = torch.cat(limits).median(dim=0).values
        self.scale = TraitScale(limit, *(m.to(limit) for m in moments.result()))

    def _teacher_model(self) -> CrossTaskModel:
        assert self.teacher is not None
        return cast(CrossTaskModel, self.teacher.model)

    @torch.no_grad()
    def _dropout_spread(self, teacher: CrossTaskModel, batch: ClipBatch) -> Tensor:
        """Standard deviation `[B, 5]` of the teacher's scores over passes with dropout."""
        teacher.train()
        try:
            passes = [
                cast(Tensor, answer_frozen(teacher, batch).trait_scores)
                for _ in range(self.settings.semi.dropout_passes)
            ]
        finally:
            teacher.eval()
        return torch.stack(passes).std(dim=0, correction=0)


def _by_class(name: str, shares: Tensor) -> dict[str, Tensor]:
    """Entries of the log for shares `[7]` by emotion."""
    return {f"pseudo/{name}_{emotion}": shares[i] for i, emotion in enumerate(EMOTIONS)}


def hide_labels(train: ClipSet, settings: Stage2Settings) -> tuple[ClipSet, dict[str, np.ndarray]]:
    """Training clips without the labels to be set aside, and those labels (NaN elsewhere).

    Clips that have no label left stay only with `ssl`.

    Raises:
        ConfigError: `hidden_labels` is not in [0, 1).
        DataError: every label is set aside.
    """
    rows = hidden_rows(len(train), settings.hidden_labels, settings.fit.seed)
    targets = {"emotion": train.emotion_targets, "traits": train.trait_targets}
    visible = {n: np.where(rows[n][:, None], np.nan, v).astype(v.dtype) for n, v in targets.items()}
    hidden = {n: np.where(rows[n][:, None], v, np.nan).astype(v.dtype) for n, v in targets.items()}
    shown = dataclasses.replace(
        train, emotion_targets=visible["emotion"], trait_targets=visible["traits"]
    )
    has_label = ~np.isnan(visible["emotion"]).any(axis=1) | ~np.isnan(visible["traits"]).all(axis=1)
    if not has_label.any():
        raise DataError("no training clip has a label left", hint="lower hidden_labels")
    if settings.ssl:
        return shown, hidden
    keep = np.flatnonzero(has_label)
    return shown.subset(keep), {name: values[keep] for name, values in hidden.items()}
