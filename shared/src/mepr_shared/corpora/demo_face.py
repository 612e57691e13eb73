"""A face that moves: the portrait's features pushed along smooth fields, like muscles do.

Each action of `ACTIONS` is a sum of bells around landmarks that were read off the photograph once.
Where the features go is known (a forward field); which pixel comes to a place is found by damped
fixed point iteration, which converges as no field within `LIMITS` folds the face.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from mepr_shared.corpora.demo_photo import bilinear, bump, enlarged, ramp

# Left, top, right, bottom of what can move, in pixels of the portrait; nothing moves at its edge.
PATCH = (168, 74, 282, 190)
_STEPS, _DAMPING = 6, 0.7
_CELL = 2  # px; the fields are smooth: they are known on a grid and interpolated

Point = tuple[float, float]
# Action -> bells of (centre, width in x and y, movement in pixels at strength 1).
_LEFT_CORNER, _RIGHT_CORNER = (203.0, 140.0), (245.0, 140.0)
ACTIONS: dict[str, list[tuple[Point, Point, Point]]] = {
    "smile": [  # corners of the mouth up and out, cheeks a little
        (_LEFT_CORNER, (10, 8), (-3.5, -5.5)),
        (_RIGHT_CORNER, (10, 8), (3.5, -5.5)),
        ((224.0, 150.0), (10, 6), (0.0, 1.5)),
        ((193.0, 122.0), (9, 8), (0.0, -2.0)),
        ((256.0, 124.0), (9, 8), (0.0, -2.0)),
    ],
    "stretch": [(_LEFT_CORNER, (10, 9), (-6.0, 1.5)), (_RIGHT_CORNER, (10, 9), (6.0, 1.5))],
    "open": [((224.0, 157.0), (19, 8.5), (0.0, 8.0)), ((224.0, 172.0), (26, 9), (0.0, 5.0))],
    "brows": [
        ((201.0, 89.0), (12, 7), (0.0, -4.2)),
        ((251.0, 91.0), (12, 7), (0.0, -4.2)),
    ],
    "inner": [((212.0, 91.0), (7, 7), (0.0, -4.6)), ((239.0, 92.0), (7, 7), (0.0, -4.6))],
    "frown": [
        ((210.0, 91.0), (9, 5.5), (3.5, 4.5)),
        ((241.0, 92.5), (9, 5.5), (-3.5, 4.5)),
        ((192.0, 90.0), (6, 5), (0.0, -2.0)),
        ((261.0, 94.0), (6, 5), (0.0, -2.0)),
    ],
    "eyes": [  # wider; below 0 narrower
        ((203.0, 96.5), (9, 3.6), (0.0, -2.6)),
        ((247.0, 99.0), (9, 3.6), (0.0, -2.6)),
        ((203.0, 105.5), (9, 3.6), (0.0, 1.6)),
        ((247.0, 108.0), (9, 3.6), (0.0, 1.6)),
    ],
    "nose": [  # wrinkled, the upper lip up
        ((224.0, 128.0), (13, 9), (0.0, -4.0)),
        ((224.0, 138.5), (14, 5), (0.0, -3.0)),
        ((213.0, 118.0), (5, 6), (2.0, -2.0)),
        ((236.0, 118.0), (5, 6), (-2.0, -2.0)),
    ],
    "shut": [  # the smile of the photograph shows teeth; this brings the lips together
        ((224.0, 151.5), (17, 4.6), (0.0, -4.6)),
        ((224.0, 141.0), (16, 4.0), (0.0, 2.6)),
    ],
}
LIMITS = {
    "smile": (-1.4, 1.9),
    "stretch": (-1.0, 1.5),
    "open": (-0.1, 1.6),
    "brows": (-1.0, 1.5),
    "inner": (-1.0, 1.6),
    "frown": (-1.0, 1.4),
    "eyes": (-1.2, 1.2),
    "nose": (-1.0, 1.6),
    "shut": (-0.2, 1.3),
}


@cache
def _fields() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x `[r, c]`, y `[r, c]` of the grid in cells, and the fields `[actions, 2, r, c]` in px."""
    left, top, right, bottom = PATCH
    y, x = np.mgrid[: (bottom - top) // _CELL + 1, : (right - left) // _CELL + 1] * float(_CELL)
    rim = np.minimum.reduce([x, right - left - 1 - x, y, bottom - top - 1 - y])
    fields = np.zeros((len(ACTIONS), 2, *x.shape))
    for field, bells in zip(fields, ACTIONS.values(), strict=True):
        for centre, width, move in bells:
            field += np.multiply.outer(move, bump(x + left, y + top, centre, width))
    return x / _CELL, y / _CELL, (fields * ramp(rim, 0, 8)).astype(np.float32)


def express(photograph: np.ndarray, strengths: Mapping[str, float]) -> np.ndarray:
    """The patch of a photograph with a face that does something.

    Args:
        photograph: float32 `[C, 512, 512]`, the portrait in any colours.
        strengths: action -> strength, cut off at `LIMITS`; those left out are 0.

    Returns:
        float32 `[C, h, w]`, to be put at `PATCH`.
    """
    x, y, fields = _fields()
    amount = {
        action: float(np.clip(strengths.get(action, 0.0), *LIMITS[action])) for action in ACTIONS
    }
    amounts = np.array(list(amount.values()), dtype=np.float32)
    field = (amounts[:, None, None, None] * fields).sum(axis=0)
    moved = field
    for _ in range(_STEPS):
        there = bilinear(field, x - moved[0] / _CELL, y - moved[1] / _CELL)
        moved = moved + _DAMPING * (there - moved)
    left, top, right, bottom = PATCH
    move_x, move_y = enlarged(moved, _CELL, (bottom - top, right - left))
    y, x = np.mgrid[top:bottom, left:right]
    patch = bilinear(photograph, x - move_x, y - move_y)
    shown = max(amount["open"] - max(amount["shut"], 0.0), 0.0)
    if shown > 0:
        # A mouth that is pulled open would have long teeth: below the upper ones it is dark.
        height = 4.2 * shown
        hole = 1 - ramp(np.hypot((x - 224) / 16, (y - 146.5 - height) / (height + 0.5)), 0.7, 1.1)
        dark = np.array([0.22, 0.06, 0.06], dtype=np.float32)[:, None, None]
        patch[:3] += (min(shown, 0.9) * hole).astype(np.float32) * (dark - patch[:3])
    return patch
