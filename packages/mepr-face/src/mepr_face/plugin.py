"""What the face modality is. Light: torch is imported only when an encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mepr_shared.plugin import Extractor, UpperLayers
from mepr_shared.vision.face_settings import FaceSettings
from mepr_shared.vision.settings import VisualEncoderSettings, no_upper_layers, own_output

if TYPE_CHECKING:
    from mepr_shared.vision.sight import Sight

_CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class FaceEncoderSettings(VisualEncoderSettings):
    """The `[encoder]` table; the other keys are those of every visual modality.

    Attributes:
        margin: what is added to the side of the square around a face, as a share of it.
        faces: how faces are found.
    """

    margin: float = 0.3
    faces: FaceSettings = field(default_factory=FaceSettings)


class FaceModality:
    """Faces of the main person of a video, found by MTCNN and read by an image encoder."""

    name = "face"
    distribution = "mepr-face"
    inputs: tuple[str, ...] = ("media",)
    encoder_settings: type = FaceEncoderSettings
    profiles: Mapping[str, Path] = {
        "paper": _CONFIGS / "paper.toml",
        "small": _CONFIGS / "small.toml",
    }

    def open_extractor(self, settings: FaceEncoderSettings, *, device: str) -> Extractor:
        """Load the encoder; see `mepr_shared.plugin.Modality`."""
        from mepr_face.encoder import open_extractor

        return open_extractor(settings, device=device)

    def open_sight(self, settings: FaceEncoderSettings, *, device: str) -> Sight:
        """What comes before the encoder: frames, faces, crops."""
        from mepr_face.encoder import open_face_sight

        return open_face_sight(settings, device=device)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """Raises `ConfigError`: image encoders are not fine-tuned."""
        raise no_upper_layers(spec)

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table for `--encoder ID_OR_DIR`: its own output, one vector a frame."""
        return own_output(encoder)


FACE = FaceModality()
