"""The part of the `[encoder]` table that every visual modality has. Light: no NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mepr_shared.config import to_dict
from mepr_shared.errors import ConfigError

# These change the speed and not the features, or are kept beside the settings.
_NOT_IN_SPEC = ("id", "revision", "precision", "batch", "workers")


@dataclass(frozen=True)
class FrameRequest:
    """Which frames of a clip are decoded.

    Attributes:
        count: how many, uniform in time.
        size: larger frames are reduced to this longest side, in pixels.
    """

    count: int
    size: int


@dataclass(frozen=True)
class VisualEncoderSettings:
    """The `[encoder]` table.

    Attributes:
        id: Hugging Face id, a folder, or `package:MODULE/FOLDER` of an image model.
        revision: hub commit, tag or branch.
        needs: distribution that carries a `package:` encoder.
        layers: whose states are read and put side by side, 0 is the input of the first (of the
            first stage, in a convolutional network); empty = the model's own output.
        grid: the states are cut into this many cells in each direction, whose means are put side
            by side; 1 is the mean of all.
        frames: how many frames of a clip are looked at, uniform in time.
        frame_size: larger frames are reduced to this longest side, in pixels.
        mirror: make this a mirrored copy for training (`train stage1 --augment mirror=true`).
        precision: `auto` is bf16 where the hardware multiplies it faster, else float32.
        batch: crops in one forward pass; 0 = a good number for the device, halved whenever
            memory runs out.
        workers: clips decoded side by side; 0 = as many as there are cores, at most 8.
    """

    id: str
    revision: str = ""
    needs: str = ""
    layers: tuple[int, ...] = ()
    grid: int = 1
    frames: int = 30
    frame_size: int = 1280
    mirror: bool = False
    precision: str = "auto"
    batch: int = 0
    workers: int = 0

    @property
    def request(self) -> FrameRequest:
        """The frames to decode."""
        return FrameRequest(self.frames, self.frame_size)


def spec_settings(settings: Any) -> dict[str, Any]:
    """The settings that change a feature, for `Extractor.spec`."""
    table = to_dict(settings)
    return {f.name: table[f.name] for f in fields(settings) if f.name not in _NOT_IN_SPEC}


def no_upper_layers(spec: Mapping[str, Any]) -> ConfigError:
    """The error of `model.kind = pretrained` in a visual modality."""
    return ConfigError(
        f"model.kind = pretrained cannot continue {spec['encoder']}: "
        "image encoders are used as they are",
        hint="model.kind = mamba or transformer",
    )


def own_output(encoder: str) -> Mapping[str, Any]:
    """The part of an `[encoder]` table that selects an encoder and its own vector of a picture."""
    return {"id": encoder, "revision": "", "needs": "", "layers": [], "grid": 1}
