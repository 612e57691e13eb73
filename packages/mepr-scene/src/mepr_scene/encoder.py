"""Pretrained image encoder -> one vector per frame `[T, D]`."""

from __future__ import annotations

from mepr_scene.plugin import SceneEncoderSettings
from mepr_scene.preprocess import SceneView
from mepr_shared.vision.extractor import open_sight, open_visual
from mepr_shared.vision.sight import Sight
from mepr_shared.vision.together import VisualExtractor


def open_extractor(settings: SceneEncoderSettings, *, device: str) -> VisualExtractor:
    """Load the encoder.

    Raises:
        ConfigError: the weights cannot be had, or a setting is out of range.
    """
    return open_visual(settings, SceneView(), fit=settings.fit, device=device)


def open_scene_sight(settings: SceneEncoderSettings) -> Sight:
    """Without the encoder's weights. Raises as `open_extractor`."""
    return open_sight(settings, SceneView(), fit=settings.fit)
