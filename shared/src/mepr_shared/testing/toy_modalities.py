"""Modalities without pretrained encoders, for tests of what is built on top of modalities.

Their features follow from the bytes of the input, so that the same input has the same features
wherever it is read, and they count what they encode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.plugin import ClipFeatures, ClipInput, Discovered, Speech, UpperLayers, Work
from mepr_shared.vision.types import ClipFrames, Regions

WIDTH = 6


@dataclass(frozen=True)
class ToySettings:
    """The `[encoder]` table."""

    id: str = "toy"
    revision: str = ""
    frames: int = 4


@dataclass
class ToyModality:
    """Reads `text`, or listens to or looks at `media`.

    A file with `nobody` in its name shows nobody, one with `silent` says nothing, one with `german`
    speaks German, and one with `crowd` shows two people.

    Attributes:
        looks: it shares its pass over the files with others that look.
        encoded: ids of the clips that it has encoded, in order.
        heard: names of the files that were transcribed.
        version: a part of the encoder's spec.
    """

    name: str
    inputs: tuple[str, ...] = ("media",)
    looks: bool = False
    version: str = "1"
    encoded: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    encoder_settings: type = ToySettings
    profiles: Mapping[str, Path] = field(default_factory=dict)
    distribution: str = ""

    def __post_init__(self) -> None:
        self.distribution = f"mepr-{self.name}"

    @property
    def discovered(self) -> Discovered:
        """As `mepr_shared.plugin.discover` would give it."""
        return Discovered(self.name, self.distribution, self.version, self)

    def open_extractor(self, settings: ToySettings, *, device: str) -> ToyExtractor:
        """The encoder."""
        return ToyLookingExtractor(self, settings) if self.looks else ToyExtractor(self, settings)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """There are none."""
        raise NotImplementedError

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table."""
        return {"id": encoder}


@dataclass
class ToyTextModality(ToyModality):
    """A modality that reads text, and can hear it as well."""

    inputs: tuple[str, ...] = ("text",)

    def open_speech_reader(self, *, model: str, language: str, device: str) -> ToySpeechReader:
        """A recogniser that knows what is said by the name of the file."""
        return ToySpeechReader(self)


class ToySpeechReader:
    """Hears what the name of a file suggests."""

    spec: Mapping[str, Any] = {"model": "toy"}
    languages: Sequence[str] = ("en", "de")

    def __init__(self, modality: ToyModality) -> None:
        self.modality = modality

    def read(self, media: Path) -> Speech:
        """A few words."""
        self.modality.heard.append(media.name)
        if "silent" in media.name:
            return Speech("", status="no_text", reason="no speech was found")
        if "german" in media.name:
            return Speech("guten Tag", ((0.0, 1.0, "guten Tag"),), "de", 0.97, 0.9)
        return Speech("good day", ((0.0, 1.0, "good"), (1.0, 2.0, "day")), "en", None, 0.8)


class ToyExtractor:
    """Features `[frames, WIDTH]` that follow from the input's bytes."""

    batch_clips = 8

    def __init__(self, modality: ToyModality, settings: ToySettings) -> None:
        self.modality, self.settings = modality, settings
        self.spec: Mapping[str, Any] = {
            "encoder": settings.id,
            "revision": settings.revision,
            "weights_sha256": modality.version,
            "settings": {"frames": settings.frames},
            "schema": 1,
        }

    def cost(self, clip: ClipInput) -> float:
        """All alike."""
        return 1.0

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        """Features of each clip."""
        return [self.features(clip) for clip in clips]

    def features(self, clip: ClipInput) -> ClipFeatures:
        """Features of one clip; a status where there is nothing."""
        if "text" in self.modality.inputs:
            if not clip.text:
                return ClipFeatures(None, "no_text", "the transcript is empty")
            content = clip.text.encode()
        elif clip.media is None:
            return ClipFeatures(None, "no_media", "the corpus names no media file")
        elif self.modality.looks and "nobody" in clip.media.name:
            return ClipFeatures(None, "no_face", "no face in any frame")
        else:
            content = clip.media.read_bytes() + repr((clip.start_s, clip.end_s)).encode()
        self.modality.encoded.append(clip.sample_id)
        seed = int.from_bytes(hashlib.sha256(self.modality.name.encode() + content).digest()[:8])
        frames = np.random.default_rng(seed).normal(size=(self.settings.frames, WIDTH))
        found = ClipFeatures(frames.astype(np.float32))
        if self.modality.looks:
            found.mask = np.arange(self.settings.frames) > 0
            found.score = 0.75
        return found


class ToyLookingExtractor(ToyExtractor):
    """One that shares its pass with others."""

    def one_pass(self, extractors: Mapping[str, ToyExtractor]) -> ToyPass:
        """A pass for these extractors."""
        return ToyPass(extractors)


class ToyPass:
    """Several extractors over the same files."""

    def __init__(self, extractors: Mapping[str, ToyExtractor]) -> None:
        self.extractors = extractors
        self.seconds: Mapping[str, float] = {"wait": 0.0, "look": 0.0, "crop": 0.0, "encode": 0.0}
        self.watch: Any = None

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Work, dict[str, ClipFeatures]]]:
        """Features by extractor's name for every clip, in order."""
        for item in work:
            found = {name: self.extractors[name].features(item.clip) for name in item.names}
            for name in item.names if self.watch else ():
                self.watch(item, name, *_seen(item.clip, found[name]))
            yield item, found


def _seen(clip: ClipInput, features: ClipFeatures) -> tuple[ClipFrames, Regions]:
    """Frames and regions that look like those of a person."""
    count = 0 if features.frames is None else len(features.frames)
    mask = np.zeros(count, bool) if features.mask is None else features.mask
    images = [np.zeros((40, 60, 3), np.uint8) for _ in range(count)]
    more = 1 if clip.media and "crowd" in clip.media.name else 0
    boxes = np.tile(np.array([10, 5, 30, 25], np.float32), (count, 1))
    others = tuple(np.zeros((more, 4), np.float32) for _ in range(count))
    times = np.arange(count, dtype=np.float32) / 10
    regions = Regions(boxes, mask, mask.astype(np.float32), others=others)
    return ClipFrames(images, times), regions
