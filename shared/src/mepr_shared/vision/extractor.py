"""Opens the extractor of a visual modality from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from mepr_shared.errors import ConfigError
from mepr_shared.vision.crop import Fit, Target
from mepr_shared.vision.encoders import Readout, open_image_encoder, preprocessing_of
from mepr_shared.vision.settings import VisualEncoderSettings, spec_settings
from mepr_shared.vision.sight import Sight, View
from mepr_shared.vision.together import VisualExtractor

# Raise this when the same settings would give other features than before.
SCHEMA = 1


def open_sight(settings: VisualEncoderSettings, view: View, *, fit: Fit) -> Sight:
    """What comes before the encoder; its weights are not loaded.

    Raises:
        ConfigError: the encoder cannot be had, or a setting is out of range.
    """
    found = preprocessing_of(settings.id, revision=settings.revision, needs=settings.needs)
    return _sight(settings, view, fit, found)


def open_visual(
    settings: VisualEncoderSettings,
    view: View,
    *,
    fit: Fit,
    device: str,
    detectors: Mapping[str, str] | None = None,
) -> VisualExtractor:
    """A visual modality's extractor; modalities with the same encoder share its weights.

    Args:
        detectors: name -> hash of the weights of what the view looks with, where they are chosen.

    Raises:
        ConfigError: the encoder cannot be had, or a setting is out of range.
    """
    encoder = open_image_encoder(
        settings.id,
        revision=settings.revision,
        needs=settings.needs,
        precision=settings.precision,
        device=device,
    )
    spec = {
        "encoder": settings.id,
        "revision": encoder.revision,
        "weights_sha256": encoder.weights_sha256,
        "settings": spec_settings(settings),
        "schema": SCHEMA,
        **({"detectors": dict(detectors)} if detectors else {}),
    }
    readout = Readout(settings.layers or None, settings.grid)
    sight = _sight(settings, view, fit, encoder)
    return VisualExtractor(sight, encoder, readout, spec, settings.workers, settings.batch)


def _sight(settings: VisualEncoderSettings, view: View, fit: Fit, found: Target) -> Sight:
    for name in ("frames", "frame_size", "grid"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"encoder.{name} = {getattr(settings, name)}: it takes 1 or more")
    return Sight(settings.request, view, found, fit, settings.mirror)
