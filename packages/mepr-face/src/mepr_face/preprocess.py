"""Frames -> the face of the main person in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mepr_shared.vision.boxes import overlap, squared
from mepr_shared.vision.faces import FaceDetector
from mepr_shared.vision.regions import judged, picked
from mepr_shared.vision.track import follow
from mepr_shared.vision.types import ClipFrames, Regions

# A picture and the face in it agree so far (intersection over union): it is a close crop.
CLOSE_CROP = 0.5


@dataclass(frozen=True)
class FaceView:
    """The main person's face, as a square with a margin.

    Attributes:
        detector: finds faces.
        margin: what is added to the side of the square, as a share of it.
    """

    detector: FaceDetector
    margin: float

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Find the faces of several clips at once."""
        self.detector.prepare(clips)

    def look(self, clip: ClipFrames) -> Regions:
        """One face per frame; frames without it are masked, never filled in."""
        found = self.detector.look(clip)
        regions = picked(found, follow(found, clip.time_s))
        status, reason = judged(clip, regions.mask, nothing="no_face", what="face")
        boxes = squared(regions.boxes, self.margin)
        if len(boxes) == 1 and regions.mask[0]:
            boxes = _as_cut_out(regions.boxes, boxes, clip)
        return replace(regions, boxes=boxes, status=status, reason=reason)


def _as_cut_out(faces: np.ndarray, squares: np.ndarray, clip: ClipFrames) -> np.ndarray:
    """The whole of a picture that is a close crop already.

    Whoever cut it out had a rule of their own; a second cut would move its edges by the error of
    another detector, and fill in what is not there.

    Args:
        faces, squares: `[1, 4]`, the face and the square around it.
    """
    height, width = clip.images[0].shape[:2]
    whole = np.array([0, 0, width, height], np.float32)
    if overlap(faces, whole)[0] < CLOSE_CROP:
        return squares
    return squared(whole[None])
