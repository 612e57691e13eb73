"""What `predict` answers, as dataclasses that turn into JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NOTE = (
    "Traits are apparent personality: how strangers would judge this person from this recording, "
    "not a diagnosis. Emotions are those shown, not those felt."
)
# Statuses of a modality that was not even tried; the others are those of the contract.
SWITCHED_OFF, LEFT_OUT, NOT_INSTALLED = "switched_off", "left_out", "not_installed"


@dataclass(frozen=True)
class EmotionAnswer:
    """Emotions of a sample.

    Attributes:
        probabilities: emotion -> calibrated probability in [0, 1].
        present: the emotions that are decided on. Decisions weight rare emotions as training did,
            so they may differ from the largest probability.
        output: `softmax` (probabilities sum to 1, one emotion is present) or `sigmoid` (each for
            itself, any number is).
    """

    probabilities: dict[str, float]
    present: tuple[str, ...]
    output: Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class TraitScore:
    """An apparent trait: `score` in [0, 1], and the interval around it; None where unknown."""

    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ModalityAnswer:
    """What one modality says by itself.

    Attributes:
        status: one of `mepr_shared.contract.STATUSES`, or `switched_off`, `left_out` (the bundle
            has no model of it), `not_installed`.
        reason: one line for people where something is missing.
        frames, masked: encoder frames, and those among them without anything to see.
        score: mean detection score in [0, 1] where there is a detector.
        encoder: id of its pretrained encoder.
        windows: in how many windows it had something to say.
    """

    status: str
    reason: str = ""
    emotion: EmotionAnswer | None = None
    traits: dict[str, TraitScore] | None = None
    frames: int = 0
    masked: int = 0
    score: float | None = None
    encoder: str | None = None
    windows: int = 0


@dataclass(frozen=True)
class TranscriptAnswer:
    """What is said.

    Attributes:
        source: `given`, `srt` or `asr`; None where nothing was read.
        segments: (start in s, end in s, text) where times are known.
        language_probability: None where the language was given, or the recogniser knows only one.
        model: the recogniser.
        status, reason: as those of a modality.
    """

    text: str = ""
    source: Literal["given", "srt", "asr"] | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    language: str | None = None
    language_probability: float | None = None
    confidence: float | None = None
    model: str | None = None
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class WindowAnswer:
    """The answer to a stretch of a long recording; None where no modality has anything there."""

    start_s: float
    end_s: float
    emotion: EmotionAnswer | None
    traits: dict[str, TraitScore] | None
    modalities: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class InputFacts:
    """Key facts of the input; None where there is no such stream or nobody says."""

    path: str
    name: str
    bytes: int
    sha256: str
    kind: Literal["video", "audio", "image"]
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer to one file.

    Attributes:
        emotion, traits: of stage 3, over all windows; None for a task that the model does not have.
        modalities: what each modality says by itself, with its status.
        windows: the timeline of a recording longer than a window; empty otherwise.
        seconds: wall time per part, and `total`.
        corpus: the corpus as whose samples the input was read.
        bundle: id of the bundle.
        interval_level: the share of validation errors that the traits' intervals hold.
        warnings: what a reader of the numbers should know.
    """

    input: InputFacts
    emotion: EmotionAnswer | None
    traits: dict[str, TraitScore] | None
    modalities: dict[str, ModalityAnswer]
    transcript: TranscriptAnswer
    windows: tuple[WindowAnswer, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    corpus: str = ""
    bundle: str = ""
    interval_level: float | None = None
    warnings: tuple[str, ...] = ()
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; no NaN."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
