"""What a Hugging Face image processor does to a picture, read from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.errors import ConfigError, require
from mepr_shared.vision.crop import Fit, crop
from mepr_shared.vision.encoders.hugging_face import loaded
from mepr_shared.vision.encoders.loaded import Preprocessing

# ConvNeXt's processor stretches from this size on, and cuts a margin off below it.
_CONVNEXT_STRETCHES = 384
_TOLERANCE = 0.03


def read_preprocessing(folder: Path) -> Preprocessing:
    """The preprocessing that a model's folder asks for.

    What was understood of it is tried on one picture beside the processor itself.

    Raises:
        ConfigError: the folder has no image processor, or one that does something else than to
            resize, cut and normalise to a square.
    """
    transformers = require("transformers", extra="mepr-shared[vision]")
    # PIL's resampling is what the published models were trained with, and needs no torchvision.
    new = int(transformers.__version__.split(".")[0]) >= 5
    backend: dict[str, Any] = {"backend": "pil"} if new else {"use_fast": False}
    kind = transformers.AutoImageProcessor
    processor = loaded(kind, folder, "processor", trust_remote_code=False, **backend)
    try:
        found = _understood(processor)
        difference = _difference(found, processor)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise _strange(folder, processor, reason) from None
    if not difference < _TOLERANCE:
        raise _strange(folder, processor, "its pixels come out differently")
    return found


def _strange(folder: Path, processor: Any, reason: str) -> ConfigError:
    return ConfigError(
        f"{folder}: a {type(processor).__name__} of these settings is not supported: {reason}"
    )


def _understood(processor: Any) -> Preprocessing:
    if not processor.do_resize:
        raise ValueError("do_resize = false, the model would see pictures of any size")
    size, fit = _shape(processor.size)
    shortest = size
    if getattr(processor, "crop_pct", None) and size < _CONVNEXT_STRETCHES:
        shortest = int(size / processor.crop_pct)
    elif getattr(processor, "crop_pct", None):
        fit = "stretch"
    elif getattr(processor, "do_center_crop", False):
        size, _ = _shape(processor.crop_size)
    normalised = bool(processor.do_normalize)
    return Preprocessing(
        size=size,
        shortest=shortest,
        fit=fit,
        mean=_three(processor.image_mean) if normalised else (0.0, 0.0, 0.0),
        std=_three(processor.image_std) if normalised else (1.0, 1.0, 1.0),
        resample=int(processor.resample),
        scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
    )


def _shape(size: Any) -> tuple[int, Fit]:
    """The side of a square, and how pictures come to it."""
    sides = {name: side for name, side in dict(size).items() if side is not None}
    if set(sides) == {"shortest_edge"}:
        return int(sides["shortest_edge"]), "crop"
    if set(sides) == {"height", "width"} and sides["height"] == sides["width"]:
        return int(sides["height"]), "stretch"
    raise ValueError(f"size {sides} is no square")


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _difference(found: Preprocessing, processor: Any) -> float:
    """Mean difference from the processor's own pixels, on a smooth picture."""
    down, across = np.mgrid[0:60, 0:90]
    picture = np.stack([across * 2.8, down * 4.2, (across + down) * 1.7], axis=-1).astype(np.uint8)
    theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
    values = crop(
        picture,
        (0, 0, 90, 60),
        found.size,
        fit=found.fit,
        resample=found.resample,
        shortest=found.shortest,
    )
    ours = (values * found.scale - np.array(found.mean)) / np.array(found.std)
    if theirs.shape != (3, found.size, found.size):
        raise ValueError(f"it gives pixels of shape {theirs.shape}")
    return float(np.abs(ours.transpose(2, 0, 1) - theirs).mean())
