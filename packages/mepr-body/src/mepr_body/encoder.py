"""Pretrained image encoder -> one vector per person `[T, D]`."""

from __future__ import annotations

from mepr_body.plugin import BodyEncoderSettings
from mepr_body.preprocess import BodyView
from mepr_shared.vision.extractor import open_sight, open_visual
from mepr_shared.vision.faces import FaceDetector
from mepr_shared.vision.sight import Sight
from mepr_shared.vision.together import VisualExtractor


def open_extractor(settings: BodyEncoderSettings, *, device: str) -> VisualExtractor:
    """Load detectors and encoder.

    Raises:
        ConfigError: the weights cannot be had, or a setting is out of range.
        MissingDependency: facenet-pytorch is not installed.
    """
    view, detectors = _view(settings, device)
    return open_visual(settings, view, fit=settings.fit, device=device, detectors=detectors)


def open_body_sight(settings: BodyEncoderSettings, *, device: str) -> Sight:
    """Load the detectors alone. Raises as `open_extractor`."""
    return open_sight(settings, _view(settings, device)[0], fit=settings.fit)


def _view(settings: BodyEncoderSettings, device: str) -> tuple[BodyView, dict[str, str]]:
    """The view, and hashes of the weights that it looks with."""
    faces = FaceDetector.open(settings.faces, device=device)
    if not settings.persons.detector:
        return BodyView(faces), {}
    from mepr_body.persons import PersonDetector

    persons = PersonDetector.open(settings.persons, device=device)
    return BodyView(faces, persons), {"persons": persons.weights_sha256}
