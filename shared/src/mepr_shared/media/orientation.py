"""How a stored picture is to be turned before it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """The way from a stored picture to the shown one, in this order.

    Attributes:
        transposed: rows become columns.
        mirrored: left becomes right.
        flipped: top becomes bottom.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise (0, 90, 180, 270), a mirror image aside."""
        if self.transposed:
            return 270 if self.flipped else 90
        return 180 if self.flipped else 0

    def turn(self, image: np.ndarray) -> np.ndarray:
        """A stored picture `[H, W, 3]` as it is shown."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        if self.mirrored:
            image = image[:, ::-1]
        if self.flipped:
            image = image[::-1]
        return np.ascontiguousarray(image)


_ROTATED = {
    0: Orientation(),
    90: Orientation(transposed=True, mirrored=True),
    180: Orientation(mirrored=True, flipped=True),
    270: Orientation(transposed=True, flipped=True),
}


def orientation(frame: VideoFrame) -> Orientation:
    """How a decoded frame is to be turned, from its display matrix."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not list side data that it has no name for (EXIF). It then tells the rotation
        # alone, counterclockwise; mirror images are rare in photos.
        return _ROTATED[round(-frame.rotation / 90) * 90 % 360]
    if matrix is None:
        return Orientation()
    # A point (x, y) of the stored picture is shown at (ax + cy, bx + dy), y downwards.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, c < 0, b < 0)
    return Orientation(False, a < 0, d < 0)
