"""A joined table as tensors that stay on the device, and batches of them by index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mepr_fusion.join import Joined
from mepr_fusion.layers import Projector
from mepr_fusion.model import TRAIT_EPS, FusionModel
from mepr_fusion.published import PublishedModel

# Values handled at a time where a whole table is read: 128 MB in float64.
CHUNK_VALUES = 1 << 24
CHUNK_ROWS = 1 << 14


@dataclass(frozen=True)
class FusionBatch:
    """`B` samples; labels are NaN where there is none.

    `features` per modality `[B, width]`, `emotion_predictions [B, M, 7]`,
    `trait_predictions [B, M, 5]`, `present [B, M]`, `emotion [B, 7]`, `traits [B, 5]`,
    `multi_label [B]`, `corpus [B]` int64. With `standardised` the features are as the model's
    trunk takes them, else as they were exported.
    """

    features: dict[str, Tensor]
    emotion_predictions: Tensor
    trait_predictions: Tensor
    present: Tensor
    emotion: Tensor
    traits: Tensor
    multi_label: Tensor
    corpus: Tensor
    standardised: bool = False

    @property
    def inputs(self) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """The arguments of `FusionModel.forward`."""
        return self.features, self.emotion_predictions, self.trait_predictions, self.present

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: Tensor | slice) -> FusionBatch:
        """Some rows, gathered where the tensors lie."""
        return FusionBatch(
            {name: value[rows] for name, value in self.features.items()},
            self.emotion_predictions[rows],
            self.trait_predictions[rows],
            self.present[rows],
            self.emotion[rows],
            self.traits[rows],
            self.multi_label[rows],
            self.corpus[rows],
            self.standardised,
        )


def resident(joined: Joined, device: str, *, halves: str = "both") -> FusionBatch:
    """All samples as one batch on `device`; on the CPU the memory is that of `joined`.

    Args:
        halves: which embeddings are features: `both`, `emotion` or `traits`.
    """

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    columns = {}
    for name in joined.modalities:
        emotion_width, trait_width = joined.widths[name]
        start = emotion_width if halves == "traits" else 0
        stop = emotion_width if halves == "emotion" else emotion_width + trait_width
        columns[name] = slice(start, stop)
    return FusionBatch(
        {name: place(joined.features[name][:, columns[name]]) for name in joined.modalities},
        place(joined.emotion_predictions),
        place(joined.trait_predictions),
        place(joined.present),
        place(joined.emotion_targets),
        place(joined.trait_targets),
        place(joined.multi_label),
        place(joined.corpus_of.astype(np.int64)),
    )


@torch.no_grad()
def standardise(model: FusionModel, data: FusionBatch) -> FusionBatch:
    """The same samples with features as the trunk takes them, written over the raw ones.

    Done once for the whole table instead of in every step.
    """
    for start in range(0, len(data), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        block = {name: values[part] for name, values in data.features.items()}
        for name, values in model.standardise(block, data.present[part]).items():
            data.features[name][part] = values
    return replace(data, standardised=True)


def moments(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation `[C]` of `values[rows]` (`[N, C]`), NaN left out.

    Computed part by part in float64: a large table is never copied. A column without any value
    gets mean 0 and deviation 0.
    """
    width = values.shape[1]
    parts = rows.split(max(1, CHUNK_VALUES // max(1, width)))
    zero = torch.zeros(width, dtype=torch.float64, device=values.device)
    count, total = zero.clone(), zero.clone()
    for part in parts:
        block = values[part].double()
        count += (~block.isnan()).sum(dim=0)
        total += block.nansum(dim=0)
    mean = total / count.clamp_min(1)
    square = zero.clone()
    for part in parts:
        square += (values[part].double() - mean).square().nansum(dim=0)
    return mean.float(), (square / count.clamp_min(1)).sqrt().float()


@torch.no_grad()
def fit_statistics(model: FusionModel, data: FusionBatch, rows: Tensor) -> None:
    """Store the statistics of the training rows (`[n]` indices) in the model's buffers."""
    if isinstance(model, PublishedModel):  # takes features as they are
        return
    for index, (name, values) in enumerate(data.features.items()):
        chosen = rows[data.present[rows, index]]
        projector = cast(Projector, model.projector.projectors[name])
        projector.standardise.fit(*moments(values, chosen))
    for branch, predictions in (
        (model.emotion, data.emotion_predictions),
        (model.traits, torch.logit(data.trait_predictions, eps=TRAIT_EPS)),
    ):
        if branch is not None and branch.predict_projector is not None:
            given = predictions.masked_fill(~data.present.unsqueeze(-1), torch.nan)
            averages = given.nanmean(dim=1)
            branch.predict_projector.standardise.fit(*moments(averages, rows))
