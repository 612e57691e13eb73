"""The stage of a demo picture: the person's posture and suit, and what is behind them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mepr_shared.corpora.demo_cues import colour
from mepr_shared.corpora.demo_photo import (
    FACE_CENTRE,
    NECK,
    SHOULDERS,
    Portrait,
    bilinear,
    bump,
    enlarged,
    ramp,
    texture,
)

HEIGHT, WIDTH = 288, 320
CELL = 8  # px; postures are smooth: their fields are known on a grid and interpolated
PAN = 12  # px that the scene reaches beyond the picture on each side
_STEPS = 6


def dressed(
    portrait: Portrait, cues: Mapping[str, float], skin: np.ndarray, suit_value: float
) -> np.ndarray:
    """The person in colours of this clip.

    Args:
        portrait: the photograph.
        cues: of the body.
        skin: `[3]` factors on red, green and blue of all but the suit.
        suit_value: how light the speaker's suits are.

    Returns:
        float32 `[4, 512, 512]`: colours times opacity, opacity.
    """
    y, x = np.mgrid[:512, :512].astype(np.float32)
    red, green, blue = portrait.colours
    light = (0.5 * red + 0.4 * green + 0.1 * blue) / 0.55
    light = 0.85 + np.clip(1.1 + cues["creases"], 0.2, 2.2) * (light - 0.85)
    light = np.maximum(light * (1 - np.clip(cues["shade"], -0.7, 0.7) * (y - 300) / 110), 0)
    stripes = np.clip(0.25 + 0.17 * cues["stripes"], 0, 0.6)
    light *= 1 - stripes * (0.5 + 0.5 * np.sin(2 * np.pi * (x + 0.15 * y) / 26))
    value = np.clip(suit_value + cues["value"], 0.2, 1.2)
    cloth = np.multiply.outer(colour(cues["red"], cues["blue"], value), light)
    worn = portrait.colours * skin[:, None, None]
    worn += portrait.suit * (cloth - worn)
    whole = np.concatenate([np.clip(worn, 0, 1) * portrait.person, portrait.person[None]])
    return whole.astype(np.float32)


def posed(
    person: np.ndarray, posture: Mapping[str, float], place: tuple[float, float], scale: float
) -> np.ndarray:
    """The person as they stand in the picture.

    Args:
        person: float32 `[4, 512, 512]`, with the face of the moment.
        posture: `tilt` of the head in degrees, `nod` and `turn` of it in px; `raise`, `slope`,
            `width`, `lean`, `bow` as in `demo_cues.BODY`.
        place: x, y of the middle of the face in the picture, were the person upright.
        scale: of the photograph.

    Returns:
        float32 `[4, HEIGHT, WIDTH]`.
    """
    rows, columns = HEIGHT // CELL + 1, WIDTH // CELL + 1
    y, x = np.mgrid[:rows, :columns].astype(np.float64) * CELL
    x = (x - place[0]) / scale + FACE_CENTRE[0]
    y = (y - place[1]) / scale + FACE_CENTRE[1]
    from_x, from_y = x, y
    for _ in range(_STEPS):
        move_x, move_y = _moves(from_x, from_y, posture)
        from_x, from_y = x - move_x, y - move_y
    grid = np.stack([from_x, from_y]).astype(np.float32)
    return bilinear(person, *enlarged(grid, CELL, (HEIGHT, WIDTH)))


def _moves(
    x: np.ndarray, y: np.ndarray, posture: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each place of the photograph goes, in its pixels."""
    head = (1 - ramp(y, 145, 205)) * (
        1 - ramp(y, 135, 152) * ramp(np.abs(x - FACE_CENTRE[0]), 42, 75)
    )
    angle = np.deg2rad(posture["tilt"]) * head
    move_x = -angle * (y - NECK[1]) + posture["turn"] * head
    move_y = angle * (x - NECK[0]) + posture["nod"] * head
    for side, shoulder in zip((-1, 1), SHOULDERS, strict=True):
        up = posture["raise"] + side * posture["slope"]
        move_y = move_y - up * bump(x, y, shoulder, (60, 70))
    torso = ramp(y, 170, 260)
    move_x = move_x + torso * posture["width"] * (x - NECK[0])
    # Feet stay, who leans moves above; who bows comes down with head and chest.
    move_x = move_x + posture["lean"] * (400 - y)
    move_y = move_y + posture["bow"] * (1 - ramp(y, 200, 480))
    return move_x, move_y


def scene(cues: Mapping[str, float], picture: str, random: np.random.RandomState) -> np.ndarray:
    """What is behind the person.

    Args:
        cues: of the scene.
        picture: one of `demo_photo.TEXTURES`.
        random: of what the cues leave open.

    Returns:
        float32 `[3, HEIGHT + 2 PAN, WIDTH + 2 PAN]` in [0, 1].
    """
    height, width = HEIGHT + 2 * PAN, WIDTH + 2 * PAN
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    value = np.clip(0.5 + cues["value"], 0.15, 0.85)
    light = 1 + np.clip(0.35 * cues["slant"], -0.6, 0.6) * x - 0.15 * y
    photograph = texture(picture)
    top = random.randint(photograph.shape[0] - height + 1)
    left = random.randint(photograph.shape[1] - width + 1)
    grain = photograph[top : top + height, left : left + width]
    light *= 1 + np.clip(0.12 + cues["texture"], 0.02, 0.3) * grain
    lines = np.clip(0.14 + cues["lines"], 0, 0.4)
    light *= 1 - lines * (np.arange(width) % 16 < 8)
    canvas = np.multiply.outer(colour(cues["red"], cues["blue"], value), light)
    _draw_shapes(canvas, cues, value, random)
    return np.clip(canvas, 0, 1).astype(np.float32)


def _draw_shapes(
    canvas: np.ndarray, cues: Mapping[str, float], value: float, random: np.random.RandomState
) -> None:
    """Onto `[3, H, W]`: beside the person and above."""
    height, width = canvas.shape[1:]
    slots = [(at, row) for row in (-0.8, -0.45, -0.1, 0.25) for at in (-0.88, -0.62, 0.62, 0.88)]
    count = int(np.clip(np.round(8 + cues["count"]), 1, len(slots)))
    jitter = np.clip(0.35 + 0.8 * cues["disorder"], 0, 1.2) * 0.16
    # 2 is a circle, more is nearer to a square, 1 a diamond.
    exponent = 2 ** np.clip(1.8 - cues["roundness"], 0.9, 4)
    radius = 18 * np.exp(np.clip(cues["size"], -0.5, 0.5))
    for slot in random.permutation(len(slots))[:count]:
        place = np.array(slots[slot]) + jitter * random.standard_normal(2)
        left, top = np.round((place + 1) / 2 * (width, height) - radius - 1).astype(int)
        rows = slice(max(top, 0), max(top + int(2 * radius) + 4, 0))
        columns = slice(max(left, 0), max(left + int(2 * radius) + 4, 0))
        near = canvas[:, rows, columns]
        y, x = np.indices(near.shape[1:])
        x, y = x + columns.start - left, y + rows.start - top
        wide, high = np.abs(x - radius - 1) / radius, np.abs(y - radius - 1) / radius
        reach = (wide**exponent + high**exponent) ** (1 / exponent)
        opacity = np.clip(0.5 + cues["bold"], 0.1, 1) * np.clip(
            (1 - reach) * radius / 2 + 0.5, 0, 1
        )
        shade = 1.55 if random.randint(2) else 0.55
        ink = colour(cues["red"] * shade, cues["blue"] * shade, np.clip(value * shade, 0.1, 1))
        near += opacity * (ink[:, None, None] - near)
