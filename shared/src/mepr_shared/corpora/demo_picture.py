"""What a demo clip looks like: a person before a background, each with part of the content.

The person is an astronaut's portrait (`demo_photo`), cut out. Their face is warped from rest to the
apex of an expression and stays there (`demo_face`), their body takes a posture in a suit of some
colour, the background is painted (`demo_stage`). What the content does to each is in `demo_cues`;
face, body and scene are drawn from random streams of their own.

The face is 60 pixels high or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mepr_shared.corpora import demo_cues, demo_face, demo_stage
from mepr_shared.corpora.demo_photo import FACE_CENTRE, TEXTURES, bump, portrait, ramp
from mepr_shared.labels import EMOTIONS

PICTURES_PER_S = 8
HEIGHT, WIDTH = demo_stage.HEIGHT, demo_stage.WIDTH


@dataclass(frozen=True)
class Looks:
    """What stays the same in all clips of a speaker.

    Attributes:
        skin: `[3]` factors on red, green and blue.
        mirrored: whether left is right.
        suit_value: how light their suits are.
    """

    skin: np.ndarray
    mirrored: bool
    suit_value: float

    @property
    def side(self) -> int:
        """Which way cues that have a side go before mirroring, so that all end on the same."""
        return -1 if self.mirrored else 1

    @classmethod
    def draw(cls, random: np.random.RandomState) -> Looks:
        shade = 1 + 0.06 * random.standard_normal() + 0.03 * random.standard_normal(3)
        return cls(shade, bool(random.randint(2)), 0.62 + 0.05 * random.standard_normal())


@dataclass(frozen=True)
class Chances:
    """The random streams of a clip, one for each part of its pictures."""

    face: np.random.RandomState
    body: np.random.RandomState
    scene: np.random.RandomState


def pictures(
    told: np.ndarray, levels: np.ndarray, looks: Looks, chances: Chances, count: int
) -> Iterator[np.ndarray]:
    """The pictures of a clip, uint8 `[288, 320, 3]`, `PICTURES_PER_S` in each second.

    Args:
        told: `[7]` 0/1, the emotions told of.
        levels: `[5]` trait levels -2 .. 2.
        looks: of the speaker.
        chances: of everything that the content leaves open.
        count: how many.

    Raises:
        MissingDependency: scikit-image, whose photographs these are, is not installed.
    """
    face = demo_cues.FACE.draw(told, levels, chances.face)
    body = demo_cues.BODY.draw(told, levels, chances.body)
    scene = demo_cues.SCENE.draw(told, levels, chances.scene)
    behind = demo_stage.scene(scene, _photograph(told, chances.scene), chances.scene)
    person = demo_stage.dressed(portrait(), body, looks.skin, looks.suit_value)
    person = _lit_head(person, face, looks.side)
    walk = _walk(count, chances.scene)
    motion = _Motion.draw(face, body, looks, chances)
    rest = person.copy()
    left, top, right, bottom = demo_face.PATCH
    for number in range(count):
        time_s = number / PICTURES_PER_S
        person[:, top:bottom, left:right] = demo_face.express(rest, motion.expression(time_s))
        shown = demo_stage.posed(person, motion.posture(time_s), motion.place(time_s), motion.scale)
        if looks.mirrored:
            shown = shown[..., ::-1]
        x, y = walk[number]
        picture = behind[:, y : y + HEIGHT, x : x + WIDTH] * (1 - shown[3]) + shown[:3]
        yield np.moveaxis((255 * np.clip(picture, 0, 1) + 0.5).astype(np.uint8), 0, -1)


@dataclass(frozen=True)
class _Motion:
    """How a person moves through a clip.

    Attributes:
        face, body: their cues.
        onset_s, rise_s: when an expression begins, and how long until its apex.
        phase: `[5]` of what swings, in radians.
        centre: x, y of the middle of the face.
        scale: of the photograph.
        side: as `Looks.side`.
    """

    face: Mapping[str, float]
    body: Mapping[str, float]
    onset_s: float
    rise_s: float
    phase: np.ndarray
    centre: tuple[float, float]
    scale: float
    side: int

    @classmethod
    def draw(
        cls,
        face: Mapping[str, float],
        body: Mapping[str, float],
        looks: Looks,
        chances: Chances,
    ) -> _Motion:
        onset_s, rise_s = 0.05 + 0.25 * chances.face.random_sample(2)
        phase = 2 * np.pi * chances.face.random_sample(5)
        x, y, size = chances.body.random_sample(3) - 0.5
        centre = (WIDTH / 2 + 24 * x, 94 + 12 * y)
        return cls(face, body, onset_s, 0.2 + rise_s, phase, centre, 0.69 + 0.06 * size, looks.side)

    def expression(self, time_s: float) -> dict[str, float]:
        """Action -> strength."""
        reached = float(ramp(time_s, self.onset_s, self.onset_s + self.rise_s))
        reached *= 1 + 0.06 * np.sin(5 * time_s + self.phase[0])
        now = {
            action: demo_cues.REST.get(action, 0.0) + reached * self.face.get(action, 0.0)
            for action in demo_face.ACTIONS
        }
        now["open"] += 0.1 * max(np.sin(14 * time_s + self.phase[1]), 0)
        return now

    def posture(self, time_s: float) -> dict[str, float]:
        shake = np.clip(1.2 + self.face["shake"], 0, 4)
        sway = 0.02 * np.clip(0.8 + self.body["sway"], 0, 3) * np.sin(4 * time_s + self.phase[2])
        return {
            "tilt": self.side * float(np.clip(self.face["tilt"], -10, 10)),
            "turn": shake * np.sin(6 * time_s + self.phase[3]),
            "nod": 0.5 * shake * np.sin(5 * time_s + self.phase[4]),
            "raise": float(np.clip(self.body["raise"], -25, 28)),
            "slope": self.side * float(np.clip(self.body["slope"], -22, 22)),
            "width": float(np.clip(self.body["width"], -0.2, 0.25)),
            "bow": float(np.clip(self.body["bow"], -20, 30)),
            "lean": self.side * float(np.clip(self.body["lean"] + sway, -0.22, 0.22)),
        }

    def place(self, time_s: float) -> tuple[float, float]:
        x, y = self.centre
        swing = 2 * np.sin(1.5 * time_s + self.phase[3:])
        return (float(x + swing[0]), float(y + swing[1]))


def _photograph(told: np.ndarray, random: np.random.RandomState) -> str:
    """Of the background: that of an emotion told of, or any."""
    emotion = EMOTIONS[random.choice(np.flatnonzero(told))]
    anyone = TEXTURES[random.randint(len(TEXTURES))]
    usual = random.random_sample() < demo_cues.USUAL
    return demo_cues.USUAL_TEXTURE[emotion] if usual else anyone


def _lit_head(person: np.ndarray, face: Mapping[str, float], side: int) -> np.ndarray:
    """The person with the light of the face's cues on their head alone."""
    lit = person.copy()
    near = lit[:, :215, 135:320]
    y, x = np.mgrid[:215, 135:320].astype(np.float32)
    head = 1 - ramp(np.hypot((x - 226) / 82, (y - 105) / 95), 0.8, 1.1)
    opacity = near[3]
    colours = near[:3] / np.maximum(opacity, 1e-3)
    cheeks = bump(x, y, (196, 126), 13) + bump(x, y, (252, 128), 13) + bump(x, y, (224, 122), 12)
    flush = float(np.clip(face["flush"], -1.5, 2))
    # Who blushes loses green and blue; who turns pale, red and a little of all.
    tint = np.array([0.5, -0.9, -0.7] if flush > 0 else [0.7, -0.1, -0.3])[:, None, None]
    made = colours * (1 + flush * (0.05 + 0.11 * np.minimum(cheeks, 1)) * tint)
    grey = made.mean(axis=0)
    made = grey + np.clip(1 + face["saturation"], 0.4, 1.7) * (made - grey)
    made = 0.5 + np.clip(1 + face["contrast"], 0.6, 1.4) * (made - 0.5)
    across = np.clip((x - FACE_CENTRE[0]) / 55, -1.3, 1.3)
    light = side * np.clip(face["light"], -0.4, 0.4) * across
    made = np.clip(made * (np.clip(1 + face["exposure"], 0.65, 1.4) + light), 0, 1)
    near[:3] = (colours + head * (made - colours)) * opacity
    return lit


def _walk(count: int, random: np.random.RandomState) -> np.ndarray:
    """`[count, 2]` whole pixels x, y of the scene at the picture's corner: a slow pan."""
    begin, end = random.random_sample((2, 2)) * 2 * demo_stage.PAN
    share = np.linspace(0, 1, max(count, 1))[:, None]
    return np.round(begin + share * (end - begin)).astype(int)
