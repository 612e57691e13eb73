"""What the body modality is. Light: torch is imported only when an encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mepr_shared.errors import ConfigError
from mepr_shared.plugin import Extractor, UpperLayers
from mepr_shared.vision.face_settings import FaceSettings
from mepr_shared.vision.settings import VisualEncoderSettings, no_upper_layers, own_output

if TYPE_CHECKING:
    from mepr_shared.vision.sight import Sight

_CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class PersonSettings:
    """The `[encoder.persons]` table.

    Attributes:
        detector: Hugging Face id or folder of an object detector that knows persons (RT-DETR,
            YOLOS, ...); empty: boxes are derived from the face.
        revision: hub commit, tag or branch.
        least_score: persons that the detector is less sure of are left out.
    """

    detector: str = ""
    revision: str = ""
    least_score: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.least_score < 1:
            raise ConfigError(
                f"persons.least_score = {self.least_score:g}: it takes a score between 0 and 1"
            )


@dataclass(frozen=True)
class BodyEncoderSettings(VisualEncoderSettings):
    """The `[encoder]` table; the other keys are those of every visual modality.

    Attributes:
        fit: how a person's box becomes a square: `letterbox` shows all of it between bars, `crop`
            its middle, `stretch` changes its proportions.
        faces: how faces are found, to which persons are tied.
        persons: how persons are found.
    """

    fit: Literal["letterbox", "crop", "stretch"] = "letterbox"
    faces: FaceSettings = field(default_factory=FaceSettings)
    persons: PersonSettings = field(default_factory=PersonSettings)


class BodyModality:
    """The main person of a video from head to foot: posture, gesture, clothes."""

    name = "body"
    distribution = "mepr-body"
    inputs: tuple[str, ...] = ("media",)
    encoder_settings: type = BodyEncoderSettings
    profiles: Mapping[str, Path] = {
        "paper": _CONFIGS / "paper.toml",
        "small": _CONFIGS / "small.toml",
    }

    def open_extractor(self, settings: BodyEncoderSettings, *, device: str) -> Extractor:
        """Load the encoder; see `mepr_shared.plugin.Modality`."""
        from mepr_body.encoder import open_extractor

        return open_extractor(settings, device=device)

    def open_sight(self, settings: BodyEncoderSettings, *, device: str) -> Sight:
        """What comes before the encoder: frames, persons, crops."""
        from mepr_body.encoder import open_body_sight

        return open_body_sight(settings, device=device)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """Raises `ConfigError`: image encoders are not fine-tuned."""
        raise no_upper_layers(spec)

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table for `--encoder ID_OR_DIR`: its own output, one vector a frame."""
        return own_output(encoder)


BODY = BodyModality()
