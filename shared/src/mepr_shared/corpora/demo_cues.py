"""What a demo picture shows of its clip's content: three parts, each with cues of its own.

Face, body and scene each carry the emotions and the trait levels in part. A cue is what the
content makes of it plus chance, and the chance of one part is independent of the others': together
they tell more than any of them. Effects of several emotions are added. What the pictures leave to
the speaker (tone of skin, which side is left) is in `demo_picture`.

Frozen like the rest of the generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mepr_shared.labels import EMOTIONS, TRAITS

COLOURED = 0.45  # how far an emotion's colour is from grey


@dataclass(frozen=True)
class Part:
    """A part of the picture.

    Attributes:
        chance: cue -> how far it varies between clips of the same content.
        emotions: emotion -> cue -> effect.
        traits: trait -> cue -> effect of one level.
    """

    chance: dict[str, float]
    emotions: dict[str, dict[str, float]]
    traits: dict[str, dict[str, float]]

    def draw(
        self, told: np.ndarray, levels: np.ndarray, random: np.random.RandomState
    ) -> dict[str, float]:
        """Each cue of a clip.

        Args:
            told: `[7]` 0/1, the emotions told of.
            levels: `[5]` trait levels -2 .. 2.
            random: of this part and clip alone.
        """
        drawn = random.standard_normal(len(self.chance))
        cues = {}
        for (cue, chance), one in zip(self.chance.items(), drawn, strict=True):
            emotions = [self.emotions[emotion].get(cue, 0.0) for emotion in EMOTIONS]
            traits = [self.traits[trait].get(cue, 0.0) for trait in TRAITS]
            cues[cue] = float(told @ emotions + levels @ traits + chance * one)
        return cues


def _with_colours(emotions: dict[str, dict[str, float]], turn: int) -> dict[str, dict[str, float]]:
    """The six emotions get colours around grey, turned by so many sixths; neutral has none."""
    coloured = {"neutral": emotions["neutral"]}
    for number, emotion in enumerate(EMOTIONS[1:]):
        angle = (number + turn) * np.pi / 3
        red, blue = COLOURED * float(np.cos(angle)), COLOURED * float(np.sin(angle))
        coloured[emotion] = {**emotions[emotion], "red": red, "blue": blue}
    return coloured


# Strengths of `demo_face.ACTIONS` at the apex; `flush` reddens the cheeks; `tilt` is in degrees;
# `light` is from the side, `exposure` of the head, `contrast` of its light and dark, `shake` in px.
FACE = Part(
    chance={
        "smile": 0.34,
        "stretch": 0.34,
        "open": 0.34,
        "brows": 0.34,
        "inner": 0.34,
        "frown": 0.34,
        "eyes": 0.35,
        "nose": 0.34,
        "shut": 0.2,
        "flush": 0.6,
        "tilt": 2.5,
        "light": 0.11,
        "exposure": 0.07,
        "contrast": 0.09,
        "shake": 0.6,
        "saturation": 0.18,
    },
    emotions={
        "neutral": {},
        "anger": {"smile": -0.4, "frown": 1.2, "eyes": 0.3, "flush": 1.0},
        "disgust": {
            "nose": 1.3,
            "eyes": -0.8,
            "smile": -0.4,
            "shut": -0.4,
            "frown": 0.4,
            "flush": -0.3,
        },
        "fear": {
            "stretch": 1.0,
            "open": 0.5,
            "shut": -0.8,
            "inner": 1.0,
            "brows": 0.5,
            "eyes": 1.0,
            "flush": -1.0,
        },
        "happiness": {"smile": 1.6, "shut": -1.1, "eyes": -0.4, "flush": 0.4},
        "sadness": {"smile": -0.8, "inner": 1.2, "eyes": -0.7, "flush": -0.5},
        "surprise": {"open": 1.3, "shut": -0.8, "brows": 1.2, "eyes": 0.9, "stretch": -0.4},
    },
    traits={
        "openness": {"saturation": 0.2},
        "conscientiousness": {"contrast": 0.09},
        "extraversion": {"exposure": 0.07, "smile": 0.1},
        "agreeableness": {"tilt": 2.6},
        "emotional_stability": {"light": 0.12, "shake": -0.5},
    },
)

# The suit's colour is (red, blue) on its axes; `value` is how light it is, `stripes` how strong its
# pattern; `creases` are in the cloth, `shade` darkens it downwards. Shoulders go up by `raise` px
# and wide by `width`; one is higher by `slope` px; `lean` is to the side, `bow` px down.
BODY = Part(
    chance={
        "red": 0.24,
        "blue": 0.24,
        "raise": 5.0,
        "width": 0.05,
        "slope": 7.0,
        "bow": 6.0,
        "sway": 0.4,
        "lean": 0.06,
        "value": 0.14,
        "stripes": 0.5,
        "creases": 0.35,
        "shade": 0.2,
    },
    emotions=_with_colours(
        {
            "neutral": {},
            "anger": {"raise": 4.0, "width": 0.08, "sway": 0.5},
            "disgust": {"slope": 8.0, "width": -0.03},
            "fear": {"raise": 14.0, "width": -0.08, "sway": 0.4},
            "happiness": {"raise": 2.0, "width": 0.06, "sway": 0.8},
            "sadness": {"raise": -12.0, "bow": 12.0, "sway": -0.4},
            "surprise": {"raise": 8.0, "bow": -10.0},
        },
        turn=0,
    ),
    traits={
        "openness": {"stripes": 0.5},
        "conscientiousness": {"bow": -4.0, "creases": -0.35},
        "extraversion": {"value": 0.13, "width": 0.03},
        "agreeableness": {"lean": 0.07},
        "emotional_stability": {"slope": -6.0, "sway": -0.2, "shade": -0.2},
    },
)

# The background's colour is (red, blue); it is lighter on one side by `slant`. Shapes lie on it,
# `count` of them, off a grid by `disorder`, round or with corners, `bold` or faint; the wall has
# `lines`, and the photograph on it is as strong as `texture`.
SCENE = Part(
    chance={
        "red": 0.26,
        "blue": 0.26,
        "value": 0.10,
        "slant": 0.25,
        "texture": 0.05,
        "count": 2.2,
        "disorder": 0.25,
        "roundness": 0.7,
        "size": 0.15,
        "lines": 0.07,
        "bold": 0.2,
    },
    emotions=_with_colours(
        {
            "neutral": {},
            "anger": {"texture": 0.05, "disorder": 0.2},
            "disgust": {"size": -0.1},
            "fear": {"value": -0.15, "texture": 0.04},
            "happiness": {"value": 0.15, "size": 0.1},
            "sadness": {"value": -0.12, "texture": -0.04},
            "surprise": {"size": 0.2},
        },
        turn=2,
    ),
    traits={
        "openness": {"count": 2.2},
        "conscientiousness": {"disorder": -0.22, "lines": 0.07},
        "extraversion": {"value": 0.10},
        "agreeableness": {"roundness": 0.9},
        "emotional_stability": {"slant": 0.15, "texture": -0.02, "bold": -0.22},
    },
)
# Which photograph lies in the background more often than others.
USUAL_TEXTURE = {
    "neutral": "brick",
    "anger": "rocket",
    "disgust": "gravel",
    "fear": "hubble_deep_field",
    "happiness": "grass",
    "sadness": "gravel",
    "surprise": "hubble_deep_field",
}
USUAL = 0.45  # of clips have the usual one, the others any
REST = {"smile": -0.4, "shut": 1.2}  # a face that tells nothing; the photograph smiles


def colour(red: float, blue: float, value: float) -> np.ndarray:
    """`[3]` RGB around grey of the given lightness, within [0, 1]."""
    # Beyond this, colours would be cut to the same few.
    red, blue = np.array([red, blue]) * min(1.0, 0.8 / max(float(np.hypot(red, blue)), 1e-9))
    tint = red * np.array([1.0, -0.5, -0.5]) + blue * np.array([0.0, -0.87, 0.87])
    return np.clip(value * (1 + tint), 0.02, 1)
