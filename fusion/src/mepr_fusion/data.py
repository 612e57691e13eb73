"""A joined table as tensors that stay on the device, and batches of them by index."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mepr_fusion.join import Joined
from mepr_fusion.layers import Projector
from mepr_fusion.model import TRAIT_EPS, FusionModel
from mepr_fusion.published.model import PublishedModel

# Values handled at a time where a whole table is read: 128 MB in float64.
CHUNK_VALUES = 1 << 24
CHUNK_ROWS = 1 << 14
# Of the memory that is free, what the features of a table may take.
DEVICE_SHARE = 0.6


@dataclass(frozen=True)
class FusionBatch:
    """`B` samples; labels are NaN where there is none.

    `features` per modality `[B, width]`, `emotion_predictions [B, M, 7]`,
    `trait_predictions [B, M, 5]`, `present [B, M]`, `emotion [B, 7]`, `traits [B, 5]`,
    `multi_label [B]`, `corpus [B]` int64. With `standardised` the features are as the model's
    trunk takes them, else as they were exported. Features that are not `resident` lie in the
    host's memory, or in a memory map, and are brought to the device of all else row by row.
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
    resident: bool = True

    @property
    def inputs(self) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """The arguments of `FusionModel.forward`."""
        return self.features, self.emotion_predictions, self.trait_predictions, self.present

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: Tensor | slice) -> FusionBatch:
        """Some rows, on the device of all but the features."""
        device = self.present.device
        return FusionBatch(
            {name: _gather(value, rows, device) for name, value in self.features.items()},
            self.emotion_predictions[rows],
            self.trait_predictions[rows],
            self.present[rows],
            self.emotion[rows],
            self.traits[rows],
            self.multi_label[rows],
            self.corpus[rows],
            self.standardised,
            self.resident,
        )


def _gather(values: Tensor, rows: Tensor | slice, device: torch.device) -> Tensor:
    if values.device == device:
        return values[rows]
    chosen = values[rows.to(values.device) if isinstance(rows, Tensor) else rows]
    # From pinned memory the copy runs while the device computes.
    chosen = chosen.pin_memory() if device.type == "cuda" else chosen
    return chosen.to(device, non_blocking=True)


def fits(size: int, device: str) -> bool:
    """Whether `size` bytes may stay on a device beside the model and what a step needs."""
    if torch.device(device).type == "cuda":
        return size < DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError, StopIteration):  # not on every system
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return size < DEVICE_SHARE * 1024 * int(line.split()[1])
    return True


def resident(joined: Joined, device: str, *, halves: str = "both") -> FusionBatch:
    """All samples as one batch on `device`; on the CPU the memory is that of `joined`.

    Features that do not fit stay where `joined` has them (see `FusionBatch.resident`).

    Args:
        halves: which embeddings are features: `both`, `emotion` or `traits`.
    """

    size = sum(values.nbytes for values in joined.features.values())
    fitting = fits(size, device)

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    columns = {}
    for name in joined.modalities:
        emotion_width, trait_width = joined.widths[name]
        start = emotion_width if halves == "traits" else 0
        stop = emotion_width if halves == "emotion" else emotion_width + trait_width
        columns[name] = slice(start, stop)
    return FusionBatch(
        {
            name: features if not fitting else features.to(device)
            for name in joined.modalities
            for features in [torch.from_numpy(joined.features[name][:, columns[name]])]
        },
        place(joined.emotion_predictions),
        place(joined.trait_predictions),
        place(joined.present),
        place(joined.emotion_targets),
        place(joined.trait_targets),
        place(joined.multi_label),
        place(joined.corpus_of.astype(np.int64)),
        resident=fitting,
    )


def prepared(model: FusionModel, batch: FusionBatch) -> FusionBatch:
    """The same samples with features as the trunk takes them."""
    if batch.standardised:
        return batch
    features = model.standardise(batch.features, batch.present)
    return replace(batch, features=features, standardised=True)


@torch.no_grad()
def standardise(model: FusionModel, data: FusionBatch) -> FusionBatch:
    """The same samples with features as the trunk takes them, written over the raw ones.

    Done once for the whole table instead of in every step; not where it does not fit, for a
    memory map that is written over takes memory.
    """
    if not data.resident:
        return data
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
        block = values[part.to(values.device)].double()
        count += (~block.isnan()).sum(dim=0)
        total += block.nansum(dim=0)
    mean = total / count.clamp_min(1)
    square = zero.clone()
    for part in parts:
        square += (values[part.to(values.device)].double() - mean).square().nansum(dim=0)
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
