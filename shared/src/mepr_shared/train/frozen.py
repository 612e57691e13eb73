"""Stage 2 on stage-1 outputs that are computed once.

Both stage-1 models are frozen and in eval mode, so what they say about a clip is the same in every
epoch. It is computed once, into a file without a name (gone when the process ends, however it
ends), and read from there: an epoch then costs the cross-task block alone.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from mepr_shared.nn.cross_task import CrossTaskModel, FrozenOutputs
from mepr_shared.train.clips import ClipBatch, ClipSet, ordered_batches
from mepr_shared.train.inference import ClipOutputs, stage2_outputs


class FrozenFrames:
    """Stage-1 outputs of N clips as their frames: both sequences, then both models' logits.

    The logits of a clip stand on each of its frames, so that a batch of frames is all there is.

    Args:
        model: a stage-2 model; only its stage-1 models are used.
        clips: which clips, in which order; row i of this object is clip i.
        folder: where the file without a name takes its room.
        batch_size: clips per forward pass.
        device: where the model is.
    """

    def __init__(
        self, model: CrossTaskModel, clips: ClipSet, folder: Path, *, batch_size: int, device: str
    ) -> None:
        widths = [part.width + part.outputs for part in (model.emotion_model, model.trait_model)]
        self.width = sum(widths)
        self.lengths = clips.lengths
        self.starts = np.concatenate([[0], np.cumsum(clips.lengths)])
        total = max(1, int(self.starts[-1]))
        with tempfile.TemporaryFile(dir=folder) as file:
            self.frames = np.memmap(file, np.float32, "w+", shape=(total, self.width))
        self.masks = np.zeros(total, dtype=bool)
        model.eval()
        for batch in ordered_batches(clips, batch_size):
            moved = batch.to(device)
            self._keep(batch, model.frozen(moved.frames, moved.mask))

    def _keep(self, batch: ClipBatch, outputs: FrozenOutputs) -> None:
        logits = torch.cat((outputs.emotion_logits, outputs.trait_logits), dim=1)
        spread = logits[:, None].expand(-1, outputs.sequence.shape[1], -1)
        frames = torch.cat((outputs.sequence, spread), dim=2).float().cpu().numpy()
        mask = batch.mask.numpy()
        for place, clip in enumerate(batch.indices):
            start, length = self.starts[clip], self.lengths[clip]
            self.frames[start : start + length] = frames[place, :length]
            self.masks[start : start + length] = mask[place, :length]

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[B, T, width]` float32 padded with zeros, and the mask `[B, T]`."""
        longest = max(1, int(self.lengths[rows].max(initial=0)))
        frames = np.zeros((len(rows), longest, self.width), dtype=np.float32)
        mask = np.zeros((len(rows), longest), dtype=bool)
        for place, row in enumerate(rows):
            start, length = self.starts[row], self.lengths[row]
            frames[place, :length] = self.frames[start : start + length]
            mask[place, :length] = self.masks[start : start + length]
        return frames, mask


def frozen_clips(
    model: CrossTaskModel, clips: ClipSet, folder: Path, *, batch_size: int, device: str
) -> ClipSet:
    """The same clips with stage-1 outputs for frames, to be answered by `answer_frozen`."""
    frames = FrozenFrames(model, clips, folder, batch_size=batch_size, device=device)
    return dataclasses.replace(
        clips, stores=[frames for _ in clips.stores], row_of=np.arange(len(clips))
    )


def frozen_outputs(model: CrossTaskModel, batch: ClipBatch) -> FrozenOutputs:
    """What the stage-1 models said about a batch of `frozen_clips`."""
    emotions, traits = model.emotion_model.outputs, model.trait_model.outputs
    width = batch.frames.shape[2] - emotions - traits
    emotion_logits, trait_logits = batch.frames[:, 0, width:].split((emotions, traits), dim=1)
    return FrozenOutputs(batch.frames[:, :, :width], emotion_logits, trait_logits)


def answer_frozen(model: CrossTaskModel, batch: ClipBatch) -> ClipOutputs:
    """The model's answer to a batch of `frozen_clips`."""
    return stage2_outputs(model.from_frozen(frozen_outputs(model, batch), batch.mask))
