"""From a media file to what an image encoder is given: frames, regions, crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mepr_shared.media.frames import sample_frames
from mepr_shared.plugin import ClipInput
from mepr_shared.vision.crop import Fit, Target, crop_for
from mepr_shared.vision.settings import FrameRequest
from mepr_shared.vision.types import ClipFrames, Regions


class View(Protocol):
    """Where a modality looks."""

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Detect in several clips at once what `look` will ask for."""

    def look(self, clip: ClipFrames) -> Regions:
        """One region per frame. Nothing to look at gives a status, never an exception."""


@dataclass(frozen=True)
class Sight:
    """What a visual modality does before its encoder.

    Attributes:
        request: which frames are decoded.
        view: where it looks in them.
        target: what the pictures must be like that its encoder takes.
        fit: how a region becomes a square.
        mirror: whether left and right are exchanged.
    """

    request: FrameRequest
    view: View
    target: Target
    fit: Fit = "letterbox"
    mirror: bool = False

    def look(self, clip: ClipInput) -> tuple[ClipFrames, Regions]:
        """The sampled frames of a clip and the regions in them."""
        frames = decode(clip, self.request)
        return frames, self.view.look(frames)

    def crops(self, clip: ClipFrames, regions: Regions) -> list[np.ndarray | None]:
        """uint8 `[S, S, 3]` per frame; None where it is masked."""
        return [
            self._crop(image, box) if valid else None
            for image, box, valid in zip(clip.images, regions.boxes, regions.mask, strict=True)
        ]

    def _crop(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        square = crop_for(self.target, image, box, self.fit)
        return square[:, ::-1] if self.mirror else square


def decode(clip: ClipInput, request: FrameRequest) -> ClipFrames:
    """The sampled frames of a clip. Bad media gives a status, never an exception."""
    if clip.media is None:
        reason = "the corpus names no media file"
        return ClipFrames([], np.zeros(0, np.float32), "no_media", reason)
    frames = sample_frames(
        clip.media, request.count, start_s=clip.start_s, end_s=clip.end_s, size=request.size
    )
    return ClipFrames(frames.images, frames.time_s, frames.status, frames.reason)
