"""Stage 3 as something the loop can train, and its predictions for many samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mepr_fusion.answers import predict
from mepr_fusion.data import FusionBatch, prepared
from mepr_fusion.join import Joined
from mepr_fusion.layers import drop_modalities
from mepr_fusion.model import FusionModel
from mepr_fusion.objective import FusionObjective, PseudoLabels
from mepr_fusion.settings import FusionSettings
from mepr_fusion.teaching import Teaching
from mepr_fusion.validation import answers_of_exports, floor, labelled, validation_scores
from mepr_shared.errors import DataError, MeprError
from mepr_shared.labels import EmotionScale
from mepr_shared.train import distributed
from mepr_shared.train.hidden import hidden_rows
from mepr_shared.train.joint import JointObjective, uses_pseudo_labels


class TrainingBatch(NamedTuple):
    """Samples, and the teacher's labels for those without one (None without a teacher).

    Where several processes train, `samples` are this one's part of the batch; `whole`, without
    features, and the pseudo-labels are of the whole batch, over which losses are taken.
    """

    samples: FusionBatch
    pseudo: PseudoLabels | None
    whole: FusionBatch | None = None


class FusionTask:
    """Trains the stage-3 model; a term counts where its label, or pseudo-label, exists.

    Args:
        model: on the device of `data`.
        data: all samples, standardised.
        joined: the table behind `data`.
        scales: corpus name -> how it states its emotions.
        objective: the losses.
        settings: weighting, teacher, hidden labels, batch size, seed.

    Raises:
        DataError: no training sample, or no validation sample, has a label.
    """

    def __init__(
        self,
        model: FusionModel,
        data: FusionBatch,
        joined: Joined,
        scales: Mapping[str, EmotionScale],
        objective: FusionObjective,
        settings: FusionSettings,
    ) -> None:
        self.model: nn.Module = model
        self.fusion = model
        self.joined = joined
        self.scales = scales
        self.objective = objective
        self.settings = settings
        fit = settings.fit
        self.batch_size, self.seed = fit.batch_size, fit.seed
        # Drawn from all training samples, so that the same labels are hidden without `ssl`.
        wanted = joined.select(split="train")
        self.data, hidden = hide_labels(data, wanted, settings.hidden_labels, fit.seed)
        found = has_label(self.data, model.tasks).cpu().numpy()
        self.train_rows = wanted[found[wanted]]
        teaches = uses_pseudo_labels(settings)
        self.unlabelled_rows = wanted[~found[wanted]] if teaches else wanted[:0]
        for split in ("train", "val"):
            if not found[joined.select(split=split)].any():
                raise DataError(
                    f"no sample of split {split!r} has both a label and an export",
                    hint="the coverage table says what is there",
                )
        self.steps_per_epoch = -(-len(self.train_rows) // self.batch_size)
        self.val_rows = labelled(joined, "val")
        start = validation_scores(
            answers_of_exports(joined, self.val_rows, model.tasks),
            joined,
            self.val_rows,
            scales,
        )
        self.start_score = start.pop("score", -math.inf)
        self.floor = floor(start, joined, self.val_rows) if settings.guard else {}
        self.joint: JointObjective | None = JointObjective(
            model,
            model.tasks,
            settings,
            self.steps_per_epoch,
            norms=self._norms,
        )
        self.teaching: Teaching | None = None
        if self.joint.semi and self.joint.teacher is not None:
            here = data.present.device
            self.teaching = Teaching(
                self.joint.teacher.model,
                self.data,
                settings.semi,
                train_rows=torch.from_numpy(self.train_rows).to(here),
                val_rows=torch.from_numpy(joined.select(split="val")).to(here),
                hidden_emotion=hidden.emotion,
                hidden_traits=hidden.traits,
                published=settings.pseudo == "published",
            )

    def batches(self, epoch: int) -> Iterable[TrainingBatch]:
        """The batches of an epoch, determined by seed and epoch.

        An epoch goes once over the samples with a label. Samples without any are drawn anew for
        each epoch and spread over its batches, no more of them than `semi.unlabelled` for each
        labelled one: however many there are, labels do not get rare in a batch.
        """
        device = self.data.present.device
        teaching = self.teaching if epoch > self.settings.semi.warmup else None
        if teaching:
            teaching.begin_epoch()
        batches = [torch.from_numpy(rows).to(device) for rows in self.draw(epoch)]
        refresh = self.settings.semi.refresh
        for start in range(0, len(batches), refresh):
            chunk = batches[start : start + refresh]
            pseudo = teaching.labels(torch.cat(chunk)) if teaching else None
            if pseudo:  # the teacher's passes with dropout differ between processes
                distributed.broadcast(pseudo.emotion)
                distributed.broadcast(pseudo.traits)
            at = 0
            for rows in chunk:
                part = slice(at, at + len(rows))
                at += len(rows)
                mine, whole = rows[distributed.own(len(rows))], None
                if len(mine) < len(rows):
                    whole = replace(self.data, features={})[rows]
                samples = prepared(self.fusion, self.data[mine])
                yield TrainingBatch(samples, pseudo[part] if pseudo else None, whole)

    def draw(self, epoch: int) -> list[np.ndarray]:
        """The rows of every batch of an epoch."""
        generator = np.random.default_rng((self.seed, epoch))
        order = self.train_rows
        if self.settings.balanced_corpora:
            order = balanced_draw(order, self.joined.corpus_of[order], generator)
        order = generator.permutation(order)
        batches = [
            order[start : start + self.batch_size]
            for start in range(0, len(order), self.batch_size)
        ]
        most = int(self.settings.semi.unlabelled * len(order))
        others = generator.permutation(self.unlabelled_rows)[:most]
        if not len(others):
            return batches
        spread = np.array_split(others, len(batches))
        return [np.concatenate(pair) for pair in zip(batches, spread, strict=True)]

    def loss(self, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of all terms; the student sees a view with modalities dropped."""
        assert self.joint is not None
        samples, present = batch.samples, batch.samples.present
        if self.fusion.modality_dropout > 0:
            present = drop_modalities(present, self.fusion.modality_dropout)
        trunk = self.fusion.trunk(samples.features, present)
        views = self.joint.views(trunk.shared_input, trunk.shared)
        output = self.fusion.branches(
            trunk,
            views.get("emotion", trunk.shared),
            views.get("traits", trunk.shared),
            samples.emotion_predictions,
            samples.trait_predictions,
            present,
        )
        if batch.whole is not None:
            samples, count = batch.whole, len(batch.whole)
            output = output._replace(
                emotion_logits=distributed.gather_rows(output.emotion_logits, count),
                trait_logits=distributed.gather_rows(output.trait_logits, count),
                trait_scores=distributed.gather_rows(output.trait_scores, count),
            )
        terms = self.objective.terms(output, samples, batch.pseudo)
        total, log = self.joint.total(terms)
        return total, {**log, **(batch.pseudo.log if batch.pseudo else {})}

    def validate(self) -> dict[str, float]:
        """Scores per corpus of the validation split, and the selection score over all.

        Under `settings.guard` a model that loses on some corpus what its exports' predictions had
        scores below the untrained one; `loss_of_exports` is by how much.

        Raises:
            MeprError: an answer is not finite.
        """
        answers = predict(self.model, self.data, self.val_rows)
        given = {"emotion": answers.emotion_logits, "traits": answers.trait_scores}
        for name in self.fusion.tasks:
            if not np.isfinite(given[name]).all():
                raise MeprError(
                    f"the model's {name} answers to the validation samples are not finite",
                    hint="lower fit.learning_rate, or fit.clip_norm",
                )
        found = validation_scores(answers, self.joined, self.val_rows, self.scales)
        if self.floor:
            short = sum(max(0.0, low - found[name]) for name, low in self.floor.items())
            found["loss_of_exports"] = short
            if short > 0:
                found["score"] = min(found["score"], self.start_score) - short
        # A score that differs in its last digit must not let one process stop and another go on.
        values = torch.tensor(list(found.values()), dtype=torch.float32)
        values = distributed.broadcast(values.to(self.data.present.device))
        return dict(zip(found, values.tolist(), strict=True)) if distributed.size() > 1 else found

    def _norms(self, shared_input: Tensor, cotangents: Tensor, rows: Tensor) -> Tensor:
        """Gradient norms of the whole batch's terms; see `FusionModel.shared_gradient_norms`."""
        if distributed.size() > 1:
            axis, count = 0 if self.fusion.graph is not None else 1, rows.shape[1]
            shared_input = distributed.gather_rows(shared_input, count, axis)
            cotangents = distributed.gather_rows(cotangents, count, axis + 1)
        return self.fusion.shared_gradient_norms(shared_input, cotangents, rows)


def has_label(data: FusionBatch, tasks: Sequence[str]) -> Tensor:
    """`[N]` bool: the sample has a label for one of the tasks."""
    emotion = ~data.emotion.isnan().any(dim=1) & ("emotion" in tasks)
    return emotion | (~data.traits.isnan().all(dim=1) & ("traits" in tasks))


class Hidden(NamedTuple):
    """Labels set aside, NaN elsewhere: `emotion [N, 7]`, `traits [N, 5]`."""

    emotion: Tensor
    traits: Tensor


def hide_labels(
    data: FusionBatch, rows: np.ndarray, share: float, seed: int
) -> tuple[FusionBatch, Hidden]:
    """The same samples with a share of the labels of `rows` set aside, each task by itself.

    Raises:
        ConfigError: `share` is not in [0, 1).
    """
    asked = hidden_rows(len(rows), share, seed)
    visible, hidden = [], []
    for task, labels in (("emotion", data.emotion), ("traits", data.traits)):
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        chosen[torch.from_numpy(rows[asked[task]])] = True
        chosen = chosen.to(labels.device)[:, None]
        hidden.append(torch.where(chosen, labels, torch.nan))
        visible.append(torch.where(chosen, torch.nan, labels))
    return replace(data, emotion=visible[0], traits=visible[1]), Hidden(*hidden)


class Visible(NamedTuple):
    """The labels that training sees, of all samples: `emotion [N, 7]`, `traits [N, 5]`."""

    emotion: np.ndarray
    traits: np.ndarray


def visible_labels(joined: Joined, share: float, seed: int) -> Visible:
    """The labels of a table without those that `hide_labels` sets aside."""
    rows = joined.select(split="train")
    asked = hidden_rows(len(rows), share, seed)
    emotion, traits = joined.emotion_targets.copy(), joined.trait_targets.copy()
    emotion[rows[asked["emotion"]]] = np.nan
    traits[rows[asked["traits"]]] = np.nan
    return Visible(emotion, traits)


def balanced_draw(
    rows: np.ndarray, corpus_of: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """As many rows as given, each corpus equally often.

    A small corpus is repeated as a whole, the rest of its share (and any part of a large one) is
    drawn without replacement.
    """
    corpora = np.unique(corpus_of)
    shares = np.array_split(np.arange(len(rows)), len(corpora))
    drawn = []
    for corpus, share in zip(corpora, shares, strict=True):
        own = rows[corpus_of == corpus]
        whole, rest = divmod(len(share), len(own))
        drawn += [own] * whole + [generator.choice(own, rest, replace=False)]
    return np.concatenate(drawn)
