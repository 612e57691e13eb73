"""Frames -> the whole of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mepr_shared.vision.regions import judged
from mepr_shared.vision.types import ClipFrames, Regions


class SceneView:
    """All of every frame."""

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Nothing is detected here."""

    def look(self, clip: ClipFrames) -> Regions:
        """One region per frame; none is ever masked."""
        sides = [(0, 0, image.shape[1], image.shape[0]) for image in clip.images]
        boxes = np.array(sides, np.float32).reshape(-1, 4)
        mask = np.ones(len(boxes), dtype=bool)
        status, reason = judged(clip, mask, nothing="no_video", what="frame")
        return Regions(boxes, mask, np.ones(len(boxes), np.float32), status, reason)
