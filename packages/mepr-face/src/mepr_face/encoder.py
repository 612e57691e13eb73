"""Pretrained image encoder -> one vector per face `[T, D]`."""

from __future__ import annotations

from mepr_face.plugin import FaceEncoderSettings
from mepr_face.preprocess import FaceView
from mepr_shared.errors import ConfigError
from mepr_shared.vision.extractor import open_sight, open_visual
from mepr_shared.vision.faces import FaceDetector
from mepr_shared.vision.sight import Sight
from mepr_shared.vision.together import VisualExtractor


def open_extractor(settings: FaceEncoderSettings, *, device: str) -> VisualExtractor:
    """Load detector and encoder.

    Raises:
        ConfigError: the weights cannot be had, or a setting is out of range.
        MissingDependency: facenet-pytorch is not installed.
    """
    return open_visual(settings, _view(settings, device), fit="letterbox", device=device)


def open_face_sight(settings: FaceEncoderSettings, *, device: str) -> Sight:
    """Load the detector alone. Raises as `open_extractor`."""
    return open_sight(settings, _view(settings, device), fit="letterbox")


def _view(settings: FaceEncoderSettings, device: str) -> FaceView:
    if settings.margin < 0:
        raise ConfigError(f"encoder.margin = {settings.margin:g}: it takes 0 or more")
    return FaceView(FaceDetector.open(settings.faces, device=device), settings.margin)
