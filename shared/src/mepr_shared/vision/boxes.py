"""Geometry of boxes: left, top, right, bottom in pixels, `[..., 4]` float32."""

from __future__ import annotations

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas `[...]` of boxes `[..., 4]`; 0 for those turned inside out."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def centre(boxes: np.ndarray) -> np.ndarray:
    """Centres `[..., 2]` (x, y) of boxes `[..., 4]`."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union `[N]` of boxes `[N, 4]` with one box `[4]`."""
    inner = np.concatenate(
        [np.maximum(boxes[..., :2], other[:2]), np.minimum(boxes[..., 2:], other[2:])], axis=-1
    )
    shared = area(inner)
    union = area(boxes) + area(other) - shared
    return shared / np.maximum(union, 1e-9)


def contains(boxes: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Whether each box `[N, 4]` holds a point (x, y): bool `[N]`."""
    return np.asarray(((boxes[..., :2] <= point) & (point <= boxes[..., 2:])).all(-1))


def squared(boxes: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Squares around the same centres, on the longer side plus a margin.

    Args:
        boxes: `[..., 4]`.
        margin: what is added to the side, as a share of it: half on each end.
    """
    side = (boxes[..., 2:] - boxes[..., :2]).max(-1, keepdims=True) * (1 + margin)
    middle = centre(boxes)
    return np.concatenate([middle - side / 2, middle + side / 2], axis=-1).astype(np.float32)


def clipped(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The parts of boxes `[..., 4]` that lie inside a picture."""
    return np.clip(boxes, 0, np.array([width, height, width, height])).astype(np.float32)
