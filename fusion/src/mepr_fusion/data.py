"""A joined table as tensors that stay on the device, and batches of them by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mepr_fusion.join import Joined
from mepr_fusion.layers import Projector
from mepr_fusion.model import TRAIT_EPS, FusionModel

# Values handled at a time where a whole table is read: 128 MB in float64.
CHUNK_VALUES = 1 << 24


@dataclass(frozen=True)
class FusionBatch:
    """`B` samples; labels are NaN where there is none.

    `features` per modality `[B, width]`, `emotion_predictions [B, M, 7]`,
    `trait_predictions [B, M, 5]`, `present [B, M]`, `emotion [B, 7]`, `traits [B, 5]`,
    `multi_label [B]`.
    """

    features: dict[str, Tensor]
    emotion_predictions: Tensor
    trait_predictions: Tensor
    present: Tensor
    emotion: Tensor
    traits: Tensor
    multi_label: Tensor

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
        )


def resident(joined: Joined, device: str) -> FusionBatch:
    """All samples as one batch on `device`; on the CPU the memory is that of `joined`."""

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return FusionBatch(
        {name: place(joined.features[name]) for name in joined.modalities},
        place(joined.emotion_predictions),
        place(joined.trait_predictions),
        place(joined.present),
        place(joined.emotion_targets),
        place(joined.trait_targets),
        place(joined.multi_label),
    )


def moments(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation `[C]` of `values[rows]` (`[N, C]`), NaN left out.

    Computed part by part in float64: a large table is never copied. A column without any value
    gets mean 0 and deviation 0.
    """
    width = values.shape[1]
    parts = rows.split(max(1, CHUNK_VALUES // width))
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
    for index, (name, values) in enumerate(data.features.items()):
        chosen = rows[data.present[rows, index]]
        projector = cast(Projector, model.projector.projectors[name])
        projector.standardise.fit(*moments(values, chosen))
    for branch, predictions in (
        (model.emotion, data.emotion_predictions),
        (model.traits, torch.logit(data.trait_predictions, eps=TRAIT_EPS)),
    ):
        if branch.predict_projector is not None:
            given = predictions.masked_fill(~data.present.unsqueeze(-1), torch.nan)
            averages = given.nanmean(dim=1)
            branch.predict_projector.standardise.fit(*moments(averages, rows))
