"""Stage 3 as something the loop can train, and its predictions for many samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mepr_fusion.data import FusionBatch
from mepr_fusion.join import Joined
from mepr_fusion.model import FusionModel
from mepr_shared.errors import DataError
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import selection_score, trait_scores
from mepr_shared.objectives.emotion import EmotionObjective
from mepr_shared.objectives.traits import TraitObjective
from mepr_shared.train.clip_task import emotion_scores

PREDICT_BATCH = 4096


@dataclass(frozen=True)
class Outputs:
    """What was answered to `n` samples: `emotion_logits [n, 7]`, `trait_scores [n, 5]`."""

    emotion_logits: np.ndarray
    trait_scores: np.ndarray


@torch.inference_mode()
def predict(model: nn.Module, data: FusionBatch, rows: np.ndarray) -> Outputs:
    """The model's answers, in eval mode, in the order of `rows` (`[n]` indices)."""
    model.eval()
    index = torch.from_numpy(rows).to(data.present.device)
    logits, scores = [np.empty((0, 7), np.float32)], [np.empty((0, 5), np.float32)]
    for part in index.split(PREDICT_BATCH):
        output = model(*data[part].inputs)
        logits.append(output.emotion_logits.float().cpu().numpy())
        scores.append(output.trait_scores.float().cpu().numpy())
    return Outputs(np.concatenate(logits), np.concatenate(scores))


@dataclass
class Objectives:
    """The losses of both tasks and their fixed weights."""

    emotion: EmotionObjective
    traits: TraitObjective
    emotion_weight: float = 1.0
    trait_weight: float = 1.0


class FusionTask:
    """Trains the stage-3 model on labelled samples; a task's loss counts where its label exists.

    Args:
        model: on the device of `data`.
        data: all samples.
        joined: the table behind `data`.
        scales: corpus name -> how it states its emotions.
        objectives: the losses.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        seed: of the order of samples.
        balanced_corpora: every corpus is drawn equally often.

    Raises:
        DataError: no training sample, or no validation sample, has a label.
    """

    def __init__(
        self,
        model: FusionModel,
        data: FusionBatch,
        joined: Joined,
        scales: Mapping[str, EmotionScale],
        objectives: Objectives,
        *,
        batch_size: int,
        seed: int,
        balanced_corpora: bool = False,
    ) -> None:
        self.model: nn.Module = model
        self.data = data
        self.joined = joined
        self.scales = scales
        self.objectives = objectives
        self.batch_size = batch_size
        self.seed = seed
        self.balanced_corpora = balanced_corpora
        self.train_rows = labelled(joined, "train")
        for split, rows in (("train", self.train_rows), ("val", labelled(joined, "val"))):
            if not len(rows):
                raise DataError(
                    f"no sample of split {split!r} has both a label and an export",
                    hint="the coverage table says what is there",
                )
        self.steps_per_epoch = -(-len(self.train_rows) // batch_size)

    def batches(self, epoch: int) -> Iterable[FusionBatch]:
        """The batches of an epoch, determined by seed and epoch."""
        generator = np.random.default_rng((self.seed, epoch))
        order = self.train_rows
        if self.balanced_corpora:
            order = balanced_draw(order, self.joined.corpus_of[order], generator)
        shuffled = torch.from_numpy(generator.permutation(order)).to(self.data.present.device)
        for rows in shuffled.split(self.batch_size):
            yield self.data[rows]

    def loss(self, batch: FusionBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of both tasks' losses."""
        output = self.model(*batch.inputs)
        emotion = self.objectives.emotion(output.emotion_logits, batch.emotion, batch.multi_label)
        traits = self.objectives.traits(output.trait_scores, batch.traits)
        weighted = self.objectives.emotion_weight * emotion + self.objectives.trait_weight * traits
        return weighted, {"emotion_loss": emotion, "trait_loss": traits}

    def validate(self) -> dict[str, float]:
        """Scores per corpus of the validation split, and the selection score over all."""
        rows = labelled(self.joined, "val")
        outputs = predict(self.model, self.data, rows)
        return validation_scores(outputs, self.joined, rows, self.scales)


def labelled(joined: Joined, split: str) -> np.ndarray:
    """Row indices `[n]` of a split that have a label for either task."""
    rows = joined.select(split=split)
    emotion = ~np.isnan(joined.emotion_targets[rows]).any(axis=1)
    traits = ~np.isnan(joined.trait_targets[rows]).all(axis=1)
    return rows[emotion | traits]


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


def validation_scores(
    outputs: Outputs, joined: Joined, rows: np.ndarray, scales: Mapping[str, EmotionScale]
) -> dict[str, float]:
    """`{"meld/uar": ..., "fiv2/ccc": ..., "score": ...}` of answers to `rows` `[n]`."""
    found: dict[str, float] = {}
    emotion: list[dict[str, Any]] = []
    traits: list[dict[str, Any]] = []
    for number, corpus in enumerate(joined.corpora):
        here = joined.corpus_of[rows] == number
        targets = joined.emotion_targets[rows]
        known = here & ~np.isnan(targets).any(axis=1)
        if known.any():
            scores = emotion_scores(outputs.emotion_logits[known], targets[known], scales[corpus])
            emotion.append(scores)
            names = [name for name in ("uar", "mwacc", "weighted_f1") if scores[name] is not None]
            found |= {f"{corpus}/{name}": scores[name] for name in names}
        targets = joined.trait_targets[rows]
        known = here & ~np.isnan(targets).all(axis=1)
        if known.any():
            scores = trait_scores(targets[known], outputs.trait_scores[known])
            traits.append(scores)
            found |= {f"{corpus}/{name}": scores[name] for name in ("ccc", "macc")}
    return {**found, "score": selection_score(emotion, traits)}
