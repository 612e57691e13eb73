"""Mean and spread of the training split's features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mepr_shared.nn.standardise import StandardisedEncoder
from mepr_shared.nn.unimodal import UnimodalModel
from mepr_shared.train.clips import ClipSet, ordered_batches

# Two thousand clips tell a mean as well as all of a large corpus would.
MOST_CLIPS = 2000


def standardise(model: UnimodalModel, train: ClipSet, *, batch_size: int, seed: int) -> None:
    """Give a model that standardises its input the statistics of the training clips."""
    if isinstance(model.encoder, StandardisedEncoder):
        model.encoder.set_statistics(*frame_statistics(train, batch_size=batch_size, seed=seed))


def frame_statistics(clips: ClipSet, *, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[D]` over all valid frames of the clips (of some, if many)."""
    if len(clips) > MOST_CLIPS:
        chosen = np.random.default_rng(seed).choice(len(clips), MOST_CLIPS, replace=False)
        clips = clips.subset(np.sort(chosen))
    count = 0
    total = squares = torch.zeros((), dtype=torch.float64)
    for batch in ordered_batches(clips, batch_size):
        frames = batch.frames[batch.mask].double()
        count += len(frames)
        total = total + frames.sum(dim=0)
        squares = squares + frames.square().sum(dim=0)
    mean = total / max(1, count)
    spread = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt()
    return mean.float(), spread.float()
