"""The photographs that demo pictures are made of, and how they are sampled.

All ship inside scikit-image's wheel, nothing is downloaded. The licences stand in the docstrings of
`skimage.data`: `astronaut` is NASA's portrait of Eileen Collins (no known copyright restrictions,
public domain), `rocket` and `hubble_deep_field` are public domain, `brick`, `grass` and `gravel`
are CC0. None but the portrait holds a face.

Coordinates are `x, y` in pixels of the portrait, 512 x 512.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from mepr_shared.errors import MissingDependency, require

TEXTURES = ("brick", "grass", "gravel", "hubble_deep_field", "rocket")
FACE_CENTRE = (224.0, 120.0)
NECK = (222.0, 178.0)
SHOULDERS = ((80.0, 250.0), (335.0, 262.0))
BROWS = (
    ((190.0, 91.0), (199.0, 89.0), (207.0, 90.0), (213.0, 92.0)),
    ((238.0, 93.0), (246.0, 92.0), (254.0, 92.0), (262.0, 95.0)),
)
CLASP, CLOTH_BESIDE = (244.0, 316.0), 42
SUIT_TOP = 190  # above it what looks orange is skin or hair
_EDGE = 1.2  # px; the outline moves in by this much, and is twice as soft

# The person with collar and helmet, clockwise from the top of the hair.
OUTLINE = np.array(
    [
        *((230, 16), (243, 18), (255, 23), (268, 29), (278, 34), (287, 42), (293, 52), (297, 64)),
        *((300, 78), (302, 88), (300, 98), (297, 107), (291, 115), (284, 122), (278, 129)),
        *((274, 136), (269, 137), (266, 139), (264, 147), (261, 155), (257, 160), (256, 168)),
        *((255, 174), (271, 184), (284, 196), (293, 209), (300, 223), (304, 235), (322, 242)),
        *((335, 254), (345, 267), (350, 280), (355, 300), (359, 320), (362, 333), (365, 345)),
        *((385, 342), (400, 342), (425, 347), (450, 362), (470, 380), (485, 405), (492, 435)),
        *((500, 450), (508, 470), (514, 480), (514, 514), (30, 514), (25, 490), (24, 460)),
        *((20, 440), (21, 420), (24, 390), (25, 340), (30, 325), (37, 300), (42, 280), (52, 258)),
        *((73, 240), (95, 222), (111, 209), (113, 190), (122, 181), (132, 170), (145, 160)),
        *((160, 152), (175, 149), (185, 148), (182, 140), (181, 132), (178, 132), (174, 128)),
        *((170, 120), (162, 114), (157, 107), (155, 100), (153, 90), (153, 75), (154, 64)),
        *((159, 55), (166, 47), (175, 41), (184, 36), (190, 30), (197, 25), (207, 21), (218, 18)),
    ],
    dtype=float,
)


@dataclass(frozen=True)
class Portrait:
    """The person and where they are.

    Attributes:
        colours: float32 `[3, 512, 512]` in [0, 1].
        person: float32 `[512, 512]`, 1 inside the outline, 0 outside.
        suit: float32 `[512, 512]`, 1 where the cloth of the suit is.
    """

    colours: np.ndarray
    person: np.ndarray
    suit: np.ndarray


def require_photographs() -> Any:
    """`skimage.data`.

    Raises:
        MissingDependency: with the pip command, and how to do without.
    """
    try:
        return require("skimage.data", extra="mepr-shared[demo]")
    except MissingDependency as error:
        raise MissingDependency(
            error.message, hint=f"{error.hint}; --media-clips 0 makes the text corpora alone"
        ) from error


@cache
def portrait() -> Portrait:
    """The portrait, cut out.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    photograph = require_photographs().astronaut().astype(np.float32) / 255
    colours = np.ascontiguousarray(np.moveaxis(photograph, -1, 0))
    height, width = colours.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # The clasp below the collar looks like a face to detectors: cloth from beside it goes over it.
    cover = 1 - ramp(np.hypot((x - CLASP[0]) / 17, (y - CLASP[1]) / 30), 0.8, 1.1)
    colours += cover * (np.roll(colours, CLOTH_BESIDE, axis=2) - colours)
    person = np.clip(0.5 + (_depth(x, y) - _EDGE) / (2 * _EDGE), 0, 1)
    orange = (colours[0] - colours[2] - 0.12) / 0.15
    suit = np.clip(orange, 0, 1) * (y > SUIT_TOP) * person
    return Portrait(_with_darker_brows(colours, x, y), person, suit)


@cache
def texture(name: str) -> np.ndarray:
    """Light and dark of a photograph: float32 `[H, W]`, zero mean, unit spread, within 2.5.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    picture = getattr(require_photographs(), name)().astype(np.float32)
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    return np.clip((grey - grey.mean()) / grey.std(), -2.5, 2.5)


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The image between its pixels; beyond its edges the edge goes on.

    Args:
        image: float32 `[C, H, W]`.
        x, y: `[...]` in pixels.

    Returns:
        float32 `[C, ...]`.
    """
    channels, height, width = image.shape
    x = np.clip(x, 0, width - 1.001).astype(np.float32)
    y = np.clip(y, 0, height - 1.001).astype(np.float32)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right_share, lower_share = x - left, y - top
    corners = [(top + down) * width + left + right for down in (0, 1) for right in (0, 1)]
    between = np.empty((channels, *x.shape), dtype=np.float32)
    # One channel after the other: NumPy is slow at short inner loops.
    for out, plane in zip(between, image.reshape(channels, -1), strict=True):
        upper, upper_right, lower, lower_right = (np.take(plane, at) for at in corners)
        upper += right_share * (upper_right - upper)
        lower += right_share * (lower_right - lower)
        np.add(upper, lower_share * (lower - upper), out=out)
    return between


def enlarged(grid: np.ndarray, cell: int, size: tuple[int, int]) -> np.ndarray:
    """What is known at the nodes of a grid, linear in between.

    No matrix product does this: with threads of their own these are slow on a busy machine.

    Args:
        grid: `[..., r, c]`, a node every `cell` pixels; they reach to the last pixel or beyond.
        cell: in pixels.
        size: height, width in pixels.

    Returns:
        `[..., height, width]`.
    """
    for axis, pixels in zip((-2, -1), size, strict=True):
        place = np.arange(pixels) / cell
        before = np.minimum(place.astype(int), grid.shape[axis] - 2)
        share = (place - before)[:, None] if axis == -2 else place - before
        low = np.take(grid, before, axis=axis)
        grid = low + share * (np.take(grid, before + 1, axis=axis) - low)
    return grid


def bump(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], width: Any) -> np.ndarray:
    """A bell of height 1 at `centre`; `width` is its standard deviation, one or `(x, y)`."""
    wide, high = np.broadcast_to(width, 2)
    return np.exp(-(((x - centre[0]) / wide) ** 2 + ((y - centre[1]) / high) ** 2) / 2)


def ramp(value: Any, low: float, high: float) -> Any:
    """A smooth step: 0 below `low`, 1 above `high`."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`[H, W]` distance to the outline in pixels, positive inside, cut off at 4."""
    inside = np.zeros(x.shape, dtype=bool)
    nearest = np.full(x.shape, 4.0, dtype=np.float32)
    for (x1, y1), (x2, y2) in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        if y1 != y2:
            crossed = (y >= min(y1, y2)) & (y < max(y1, y2))
            inside ^= crossed & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        near = np.s_[
            max(int(min(y1, y2)) - 5, 0) : int(max(y1, y2)) + 6,
            max(int(min(x1, x2)) - 5, 0) : int(max(x1, x2)) + 6,
        ]
        nearest[near] = np.minimum(nearest[near], _to_segment(x[near], y[near], x1, y1, x2, y2))
    return np.where(inside, nearest, -nearest)


def _to_segment(
    x: np.ndarray, y: np.ndarray, x1: float, y1: float, x2: float, y2: float
) -> np.ndarray:
    squared = max((x2 - x1) ** 2 + (y2 - y1) ** 2, 1e-9)
    along = np.clip(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / squared, 0, 1)
    return np.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1))


def _with_darker_brows(colours: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """In the portrait the brows are so faint that their movement would hardly show."""
    distance = np.full(x.shape, 9.0)
    near = np.s_[75:110, 180:275]
    for brow in BROWS:
        for (x1, y1), (x2, y2) in pairwise(brow):
            one = _to_segment(x[near], y[near], x1, y1, x2, y2)
            distance[near] = np.minimum(distance[near], one)
    return colours * (1 - 0.4 * np.exp(-((distance / 1.4) ** 2))).astype(np.float32)
