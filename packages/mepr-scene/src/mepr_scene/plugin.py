"""What the scene modality is. Light: torch is imported only when an encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mepr_shared.plugin import Extractor, UpperLayers
from mepr_shared.vision.settings import VisualEncoderSettings, no_upper_layers, own_output

if TYPE_CHECKING:
    from mepr_shared.vision.sight import Sight

_CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class SceneEncoderSettings(VisualEncoderSettings):
    """The `[encoder]` table; the other keys are those of every visual modality.

    Attributes:
        fit: how a frame becomes a square: `letterbox` shows all of it between bars, `crop` takes
            its centre. One or the other.
    """

    fit: Literal["letterbox", "crop"] = "letterbox"


class SceneModality:
    """Whole frames of a video, read by an image encoder: place, light, people around."""

    name = "scene"
    distribution = "mepr-scene"
    inputs: tuple[str, ...] = ("media",)
    encoder_settings: type = SceneEncoderSettings
    profiles: Mapping[str, Path] = {
        "paper": _CONFIGS / "paper.toml",
        "small": _CONFIGS / "small.toml",
    }

    def open_extractor(self, settings: SceneEncoderSettings, *, device: str) -> Extractor:
        """Load the encoder; see `mepr_shared.plugin.Modality`."""
        from mepr_scene.encoder import open_extractor

        return open_extractor(settings, device=device)

    def open_sight(self, settings: SceneEncoderSettings, *, device: str) -> Sight:
        """What comes before the encoder: frames and crops. Needs no device."""
        from mepr_scene.encoder import open_scene_sight

        return open_scene_sight(settings)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """Raises `ConfigError`: image encoders are not fine-tuned."""
        raise no_upper_layers(spec)

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table for `--encoder ID_OR_DIR`: its own output, one vector a frame."""
        return own_output(encoder)


SCENE = SceneModality()
