"""Faces in pictures of any size."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mepr_shared.vision.face_settings import FaceSettings
from mepr_shared.vision.types import ClipFrames, Faces, together

if TYPE_CHECKING:
    from mepr_shared.vision.mtcnn import Mtcnn

# Reduced copies of so many pictures of one size are held at a time.
BATCH = 64
# With a border MTCNN finds 1,192 of 1,217 faces that were cut out closely, without it 1,175. A face
# that fills so much of a picture's longest side was cut out closely.
CLOSE_UP_BORDER, CLOSE_UP_SHARE, CLOSE_UP_LEAST = 0.25, 0.6, 0.3


class FaceDetector:
    """Finds faces.

    Args:
        settings: how.
        networks: the opened detector.
    """

    def __init__(self, settings: FaceSettings, networks: Mtcnn) -> None:
        self.settings = settings
        self.networks = networks

    @classmethod
    def open(cls, settings: FaceSettings, *, device: str = "cpu") -> FaceDetector:
        """A detector; all on one device share the networks.

        Raises:
            MissingDependency: facenet-pytorch is not installed.
        """
        return cls(settings, _networks(device))

    @property
    def key(self) -> Hashable:
        """What was found under one key is what any detector of this key finds."""
        return ("faces", self.settings)

    def look(self, clip: ClipFrames) -> list[Faces]:
        """The faces in a clip's frames, sought once for all who ask.

        A picture that shows no face, or one that fills most of it, is looked at once more with a
        border: of a close crop MTCNN then finds more faces, and their outlines better.
        """
        self.prepare([clip])
        found: list[Faces] = clip.once(self.key, self.find)
        closer = self._closer()
        if closer and _is_close(clip, found):
            closely: list[Faces] = clip.once(closer.key, closer.find)
            return closely if len(closely[0].boxes) else found
        return found

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Look into several clips at once: for single pictures that is much faster."""
        together(clips, self.key, self.find)
        closer = self._closer()
        if closer:
            close = [c for c in clips if _is_close(c, c.once(self.key, self.find))]
            together(close, closer.key, closer.find)

    def _closer(self) -> FaceDetector | None:
        if self.settings.border:
            return None
        least_size = max(CLOSE_UP_LEAST, self.settings.least_size)
        settings = replace(self.settings, border=CLOSE_UP_BORDER, least_size=least_size)
        return FaceDetector(settings, self.networks)

    def find(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """The faces of each picture, best score first.

        Args:
            images: RGB, uint8 `[H, W, 3]` each, of any sizes.

        Returns:
            per picture boxes in its own pixels, possibly a little beyond its edges, with scores
            of `least_score` and more; none in a picture narrower than the smallest face.
        """
        found = [_nothing()] * len(images)
        for places in _batches(images):
            for place, faces in zip(places, self._find([images[i] for i in places]), strict=True):
                found[place] = faces
        return found

    def _find(self, images: list[np.ndarray]) -> list[Faces]:
        """As `find`, of pictures of one size."""
        settings = self.settings
        height, width = images[0].shape[:2]
        working_px = max(1, round(settings.size / (1 + 2 * settings.border)))
        small = resized(images, working_px)
        scale = np.array([width / small.shape[2], height / small.shape[1]] * 2, np.float32)
        edge = round(settings.border * working_px)
        small = np.pad(small, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="edge")
        detected = self.networks.detect(
            small,
            settings.least_size * working_px,
            (settings.propose_score, settings.refine_score, settings.least_score),
        )
        return [Faces(_steady((boxes - edge) * scale), scores) for boxes, scores in detected]


def _steady(boxes: np.ndarray) -> np.ndarray:
    """Boxes on a grid of quarter pixels.

    Float32 sums differ in their last digits with the size of a batch; without this a crop would
    differ by a grey level here and there, and features with it.
    """
    return np.round(boxes * 4) / np.float32(4)


def _is_close(clip: ClipFrames, found: Sequence[Faces]) -> bool:
    """Whether this is a picture, not a video, with no face or one that fills most of it."""
    if len(found) != 1:
        return False
    boxes = found[0].boxes
    longest = (boxes[:, 2:] - boxes[:, :2]).max(initial=0.0)
    return not len(boxes) or bool(longest > CLOSE_UP_SHARE * max(clip.images[0].shape[:2]))


@lru_cache(maxsize=4)
def _networks(device: str) -> Mtcnn:
    from mepr_shared.vision.mtcnn import Mtcnn

    return Mtcnn.open(device)


def resized(images: list[np.ndarray], longest_px: int) -> np.ndarray:
    """Pictures of one size, reduced or enlarged to a longest side.

    Args:
        images: uint8 `[H, W, 3]` each.
        longest_px: of the result.

    Returns:
        uint8 `[B, h, w, 3]`; sides keep their ratio to half a pixel and are 1 at least.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = images[0].shape[:2]
    scale = longest_px / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size == (height, width):
        return np.stack(images)
    small = np.empty((len(images), *size, 3), np.uint8)
    for place, image in enumerate(images):
        # Torch takes no flipped views, and warns of arrays that are not to be written to. On bytes
        # in this layout it is 2 to 10 times as fast as Pillow.
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
        reduced = interpolate(pixels[None], size, mode="bilinear", antialias=True)
        small[place] = reduced[0].permute(1, 2, 0).numpy()
    return small


def _batches(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Positions of pictures of equal size, `BATCH` at most together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    return [
        places[start : start + BATCH]
        for places in groups.values()
        for start in range(0, len(places), BATCH)
    ]


def _nothing() -> Faces:
    return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
