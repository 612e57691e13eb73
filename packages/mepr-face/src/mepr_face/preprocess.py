"""Frames -> the face of the main person in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mepr_shared.vision.boxes import squared
from mepr_shared.vision.faces import FaceDetector
from mepr_shared.vision.regions import judged, picked
from mepr_shared.vision.track import follow
from mepr_shared.vision.types import ClipFrames, Regions


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
        return replace(regions, boxes=boxes, status=status, reason=reason)
