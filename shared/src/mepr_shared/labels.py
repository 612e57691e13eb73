"""The two label spaces. Their order is part of every file this project writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mepr_shared.errors import DataError, did_you_mean

EMOTIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
TRAITS = (
    "openness",
    "conscientiousness",
    "extraversion",
    "agreeableness",
    "emotional_stability",
)
TASKS = ("emotion", "traits")
SPLITS = ("train", "val", "test")

EmotionKind = Literal["intensity", "multi_label", "single_label", "distribution"]
EMOTION_KINDS: tuple[str, ...] = get_args(EmotionKind)

# What other sources call the same thing. FIv2's "neuroticism" column runs in the direction of
# stability (r = +0.88 with the interview score), so its importer maps it itself, unflipped.
EMOTION_ALIASES = {
    "joy": "happiness",
    "happy": "happiness",
    "sad": "sadness",
    "angry": "anger",
    "fearful": "fear",
    "surprised": "surprise",
    "disgusted": "disgust",
    "calm": "neutral",
}


@dataclass(frozen=True)
class EmotionScale:
    """How a corpus states its emotions.

    Attributes:
        kind: one of `EMOTION_KINDS`.
        maximum: largest possible raw value (3 for CMU-MOSEI, 1 otherwise).
        present_above: an emotion of kind `intensity` or `multi_label` is present above this.
    """

    kind: EmotionKind = "single_label"
    maximum: float = 1.0
    present_above: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in EMOTION_KINDS:
            raise DataError(
                f"unknown emotion_kind {self.kind!r}", hint=did_you_mean(self.kind, EMOTION_KINDS)
            )

    @property
    def is_multi_label(self) -> bool:
        """Sigmoid and per-class thresholds (True), or softmax and argmax (False)."""
        return self.kind in ("intensity", "multi_label")


def emotion_name(name: str) -> str:
    """The name used here for an emotion as another source spells it.

    Raises:
        DataError: no such emotion.
    """
    key = name.strip().lower()
    key = EMOTION_ALIASES.get(key, key)
    if key not in EMOTIONS:
        raise DataError(
            f"unknown emotion {name!r}", hint=did_you_mean(key, (*EMOTIONS, *EMOTION_ALIASES))
        )
    return key


def reorder(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Columns `[N, len(names)]` put into the order `wanted`, by name.

    Raises:
        DataError: a wanted name is not among `names`.
    """
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"label columns missing: {', '.join(missing)}")
    return values[:, [list(names).index(name) for name in wanted]]


def emotion_targets(values: np.ndarray, scale: EmotionScale) -> np.ndarray:
    """Raw emotion values to training and scoring targets.

    Args:
        values: `[N, 7]` raw values in the order of `EMOTIONS`; an all-NaN row is unlabelled.
        scale: how the corpus states them.

    Returns:
        `[N, 7]` float32: 0/1 presence for multi-label kinds (`neutral` is 1 exactly where none
        of the six others is present), one-hot for `single_label`, a distribution that sums to 1
        for `distribution`. Unlabelled rows stay NaN.
    """
    values = np.asarray(values, dtype=np.float32)
    labelled = ~np.isnan(values).any(axis=1)
    targets = np.full(values.shape, np.nan, dtype=np.float32)
    known = values[labelled]
    if scale.is_multi_label:
        present = (known > scale.present_above).astype(np.float32)
        present[:, 0] = present[:, 1:].sum(axis=1) == 0
        targets[labelled] = present
    elif scale.kind == "single_label":
        targets[labelled] = np.eye(len(EMOTIONS), dtype=np.float32)[known.argmax(axis=1)]
    else:
        targets[labelled] = known / known.sum(axis=1, keepdims=True)
    return targets
