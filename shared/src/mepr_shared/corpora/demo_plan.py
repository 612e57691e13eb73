"""What both demo generators share: their arguments on record, speakers, splits, random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np

from mepr_shared.errors import DataError

GENERATOR_VERSION = 1
GENERATOR = "mepr-demo"
CLIPS_PER_SOURCE = (3, 7)  # from, up to but without
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
FEWEST_CLIPS = 30


@dataclass(frozen=True)
class DemoPlan:
    """The arguments a demo corpus was made with; stored in its JSON, enough to make it again."""

    part: str
    clips: int
    seed: int
    relations: bool
    shuffle_labels: bool
    emotion_kind: str
    media_clips: int = 0

    def __post_init__(self) -> None:
        if self.clips < FEWEST_CLIPS:
            raise DataError(
                f"a demo corpus of {self.clips} clips cannot fill three splits",
                hint=f"at least {FEWEST_CLIPS} clips in each corpus",
            )
        if not 0 <= self.media_clips <= self.clips:
            raise DataError(
                f"{self.media_clips} clips with media cannot be had of {self.clips} clips",
                hint=f"0 to {self.clips}, or more clips",
            )
        if not 0 <= self.seed < 2**32:
            raise DataError(
                "the seed of a demo corpus is out of range", hint=f"0 to {2**32 // 3 - 1}"
            )

    def to_report(self) -> dict[str, Any]:
        return {"importer": GENERATOR, "generator_version": GENERATOR_VERSION, **asdict(self)}

    @classmethod
    def from_report(cls, report: Mapping[str, Any], name: str) -> DemoPlan:
        """Raises `DataError` where the report is not that of a demo corpus of this version."""
        version = report.get("generator_version")
        if report.get("importer") != GENERATOR or version != GENERATOR_VERSION:
            raise DataError(
                f"corpus {name!r} was not made by demo generator {GENERATOR_VERSION}",
                hint=f"its generator version: {version}",
            )
        # Reports of earlier releases lack what has a default.
        given = {
            field.name: report[field.name]
            for field in fields(cls)
            if field.name in report or field.default is MISSING
        }
        return cls(**given)


@dataclass(frozen=True)
class Content:
    """What clips tell, whatever shows it: words, a voice.

    Attributes:
        sources: `[N]` number of each clip's speaker.
        told: `[N, 7]` 1 where an emotion is told of, else 0.
        levels: `[N, 5]` trait levels -2 .. 2.
    """

    sources: np.ndarray
    told: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class Expected:
    """The best possible predictions.

    Attributes:
        emotion_probability: `[N, 7]` probability of each label.
        trait_mean: `[N, 5]` expected score.
    """

    emotion_probability: np.ndarray
    trait_mean: np.ndarray


def random_state(seed: int | Sequence[int]) -> np.random.RandomState:
    """NumPy's legacy generator: its stream is promised never to change, the new ones' is not."""
    return np.random.RandomState(seed)


def source_layout(clips: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Speakers of 3 to 6 clips each, and whole speakers to splits, 70/15/15.

    Returns:
        `[N]` int source and `[N]` object split of each clip.
    """
    sizes = random.randint(*CLIPS_PER_SOURCE, size=clips)
    sources = np.repeat(np.arange(clips), sizes)[:clips]
    count = int(sources[-1]) + 1
    place = (random.permutation(count) + 0.5) / count
    edges = np.cumsum(list(SHARES.values()))[:-1]
    names = np.array(list(SHARES), dtype=object)
    return sources, names[np.searchsorted(edges, place)][sources]
