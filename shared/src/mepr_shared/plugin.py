"""What a modality package is, and how installed ones are found.

A package declares one `Modality` in its entry point of the group `mepr.modalities`. The object is
light (no torch at import); its heavy parts are imported inside `open_extractor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mepr_shared.config import build
from mepr_shared.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

GROUP = "mepr.modalities"
PUBLISHED = ("audio", "text", "face", "body", "scene")


@dataclass(frozen=True)
class ClipInput:
    """What a corpus knows of one clip's input. Absent parts are None.

    Attributes:
        sample_id: the clip's id.
        text: its transcript.
        context: transcripts of the preceding turns of its dialogue, oldest first.
        media: its media file.
        start_s, end_s: the segment of `media` in seconds; None means from its start / to its end.
    """

    sample_id: str
    text: str | None = None
    context: tuple[str, ...] = ()
    media: Path | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass
class ClipFeatures:
    """What a modality's encoder makes of one clip.

    Attributes:
        frames: `[T, D]` float32, or None where there is nothing to encode (`status` says why).
        status: one of `mepr_shared.contract.STATUSES`.
        reason: one line for people where status is not `ok`.
        mask: `[T]` bool, True where the frame is valid; None means all are.
        hop_s: seconds between frames where they are evenly spaced.
        score: detection score in [0, 1] where there is a detector.
        time_s, frame_score: `[T]` float32: when each frame appears in the media, in s, and its
            detection score, where they are pictures.
        stream: in place of `frames`, those of a clip too long to be held, as chunks `[t, D]`. It
            is read once; only after that `status` and `reason` are final.
    """

    frames: np.ndarray | None
    status: str = "ok"
    reason: str = ""
    mask: np.ndarray | None = None
    hop_s: float | None = None
    score: float | None = None
    time_s: np.ndarray | None = None
    frame_score: np.ndarray | None = None
    stream: Iterator[np.ndarray] | None = None


class Extractor(Protocol):
    """A loaded pretrained encoder with its preprocessing.

    Attributes:
        spec: everything that changes a feature; its hash names the frame-store folder.
            `encoder` (id), `revision`, `weights_sha256`, `schema`, and `settings`: the rest of
            the `[encoder]` table, enough to open the same encoder again (`reopen`).
        batch_clips: how many clips one call of `extract` should be given.
    """

    spec: Mapping[str, Any]
    batch_clips: int

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        """Features of each clip, in order. Bad input gives a status, never an exception."""

    def cost(self, clip: ClipInput) -> float:
        """Relative cost of a clip, so that clips of like length are batched together."""


@dataclass(frozen=True)
class Work:
    """A clip, and the names of the extractors that want it."""

    clip: ClipInput
    names: tuple[str, ...]


class SharedPass(Protocol):
    """Several extractors over the same files, which are opened and decoded once.

    Attributes:
        seconds: what was spent on what so far.
    """

    seconds: Mapping[str, float]

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Work, dict[str, ClipFeatures]]]:
        """Features by extractor's name for every clip, in order; equal to those of single runs."""


@runtime_checkable
class SharesPass(Protocol):
    """An extractor that can share its pass over the files with others of its kind."""

    def one_pass(self, extractors: Mapping[str, Any]) -> SharedPass:
        """A pass for these extractors by name, this one among them."""


@dataclass(frozen=True)
class Speech:
    """What is said in a recording.

    Attributes:
        text: empty where nobody speaks.
        segments: (start in s, end in s, text), on the file's timeline.
        language: code; None where nobody speaks.
        language_probability: in [0, 1]; None where the language was given, or only one is known.
        confidence: geometric mean of the tokens' probabilities, in [0, 1]; None without text.
        status: one of `mepr_shared.contract.STATUSES`.
        reason: one line for people where something is missing.
    """

    text: str
    segments: tuple[tuple[float, float, str], ...] = ()
    language: str | None = None
    language_probability: float | None = None
    confidence: float | None = None
    status: str = "ok"
    reason: str = ""


class SpeechReader(Protocol):
    """A loaded speech recogniser.

    Attributes:
        spec: what determines its texts; plain JSON.
        languages: codes of the languages it knows.
    """

    spec: Mapping[str, Any]
    languages: Sequence[str]

    def read(self, media: Path) -> Speech:
        """What is said in a media file. Bad media gives a status, never an exception."""


@runtime_checkable
class ReadsSpeech(Protocol):
    """A modality that can turn speech into the text it reads, where no transcript is given."""

    def open_speech_reader(self, *, model: str, language: str, device: str) -> SpeechReader:
        """Load a recogniser.

        Args:
            model: a profile (`small`, `paper`), or a recogniser's id or folder.
            language: code, or `auto`.
        """


@dataclass(frozen=True)
class UpperLayers:
    """The layers of a pretrained encoder above the one whose states a frame store holds.

    Attributes:
        config: the encoder's configuration, reduced to these layers; enough to build them anew.
        weights: their state dict.
    """

    config: dict[str, Any]
    weights: Mapping[str, Any]


@runtime_checkable
class Modality(Protocol):
    """One modality package.

    Attributes:
        name: `"text"`; the folder name in stores and exports.
        distribution: `"mepr-text"`; also the name of its command.
        inputs: which inputs of a corpus it reads: `"text"`, `"media"`.
        encoder_settings: dataclass of the `[encoder]` table.
        profiles: profile name -> TOML file with `[encoder]`, `[emotion]`, `[traits]`, `[stage2]`.
    """

    name: str
    distribution: str
    inputs: tuple[str, ...]
    encoder_settings: type
    profiles: Mapping[str, Path]

    def open_extractor(self, settings: Any, *, device: str) -> Extractor:
        """Load the encoder (imports torch).

        Args:
            settings: an instance of `encoder_settings`.
            device: `"cpu"`, `"cuda"`, ...
        """

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """The `count` layers that follow the extracted features, for `model.kind = pretrained`.

        Raises:
            ConfigError: the features of `spec` are not the states below such layers.
        """

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table that selects an encoder by id or folder (`--encoder`)."""


def reopen(modality: Modality, spec: Mapping[str, Any], *, device: str) -> Extractor:
    """The extractor that features of `spec` came from.

    Raises:
        ConfigError: its weights are not the same any more.
    """
    table = {"id": spec["encoder"], "revision": spec["revision"], **spec["settings"]}
    extractor = modality.open_extractor(build(modality.encoder_settings, table), device=device)
    for name, what in (("weights_sha256", "encoder"), ("detectors", "the detectors of")):
        if extractor.spec.get(name) != spec.get(name):
            raise ConfigError(
                f"the weights of {what} {spec['encoder']} are not those the model was trained with",
                hint="restore that version, or train again",
            )
    return extractor


@dataclass(frozen=True)
class Discovered:
    """One entry of the plugin group: the loaded modality, or why it did not load."""

    name: str
    distribution: str
    version: str
    modality: Modality | None
    problem: str = ""


def discover() -> list[Discovered]:
    """All installed modalities, sorted by name. A broken one carries its reason, hiding none."""
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        distribution = entry.dist.name if entry.dist else "?"
        version = entry.dist.version if entry.dist else "?"
        modality, problem = None, ""
        try:
            loaded = entry.load()
            if isinstance(loaded, Modality):
                modality = loaded
            else:
                problem = f"{entry.value} is not a Modality"
        except Exception as error:  # a plugin may fail in any way, and must not take others down
            problem = f"{type(error).__name__}: {error}"
        found.append(Discovered(entry.name, distribution, version, modality, problem))
    return found


def get_modality(name: str) -> Modality:
    """The installed modality of that name.

    Raises:
        ConfigError: not installed (with the pip command), or installed and broken (with why).
    """
    installed = discover()
    for entry in installed:
        if entry.name == name:
            if entry.modality is None:
                raise ConfigError(f"modality {name!r} does not load: {entry.problem}")
            return entry.modality
    names = [entry.name for entry in installed]
    known = did_you_mean(name, names) if names else "none is installed"
    # Only our own names: the command for a typo would install a stranger's package.
    command = f"pip install mepr-{name}; " if name in PUBLISHED else ""
    raise ConfigError(f"modality {name!r} is not installed", hint=command + known)
