"""Pretrained image encoders behind one protocol: square pictures in, one vector each out.

Two kinds: any vision model of `transformers` (a folder or a hub id), and EfficientNet-Lite0, whose
weights come inside a Python package. Modalities that ask for the same encoder get the same object,
so that their crops can go through it in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from mepr_shared.errors import ConfigError, require
from mepr_shared.extract.weights import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from mepr_shared.vision.crop import Fit
    from mepr_shared.vision.encoders.loaded import Network, Preprocessing

# One for each modality that looks, and a spare; each stays in memory until it is pushed out.
_KEPT = 4
PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class Readout:
    """What is read off an encoder for one picture.

    Attributes:
        layer: None for the top; else the number of a layer (transformers, their tokens) or of a
            stage (convolutional networks, their map), 0 being the input of the first; several are
            put side by side. Layers above the highest one that a batch asks for are not computed.
        grid: 1 for one vector; n for the means of n x n cells side by side, row by row from the
            upper left, each as wide as the layer. Cells are those of adaptive pooling: equal in
            size, overlapping by one place where n does not divide the side.

    `Readout()` is the model's own vector of a picture, see `hugging_face`: CLIP's image
    embedding, a ViT's pooled output, the global mean of a convolutional network. Every other
    readout takes means over places; tokens that stand for no place (class, registers) are left out.
    """

    layer: int | tuple[int, ...] | None = None
    grid: int = 1

    def __post_init__(self) -> None:
        if self.grid < 1 or not self.layers or any((layer or 0) < 0 for layer in self.layers):
            raise ConfigError(
                f"readout with layer {self.layer} and grid {self.grid}",
                hint="layer is 0 or more (none: the top), grid is 1 or more",
            )

    @property
    def layers(self) -> tuple[int | None, ...]:
        """The layers that are read, None being the top."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)


class ImageEncoder(Protocol):
    """A loaded encoder.

    Attributes:
        size: side of the pictures it reads, in pixels.
        shortest: side to which its own image processor brings the shorter edge of a whole picture
            before it cuts out the centre; `size` or more.
        fit: how that processor makes a whole picture square.
        mean, std: of the normalisation, per channel, for values in [0, 1].
        resample: number of PIL's filter that the processor resizes with.
        weights_sha256, revision: what identifies the weights.
        batch: as many pictures go through it at once; smaller after memory ran out.
        notify: is told, in one line, when `batch` becomes smaller; logs it unless replaced.
    """

    size: int
    shortest: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int
    weights_sha256: str
    revision: str
    batch: int
    notify: Callable[[str], None]

    def width(self, readout: Readout) -> int:
        """`D` of a readout. Raises ConfigError where there is no such layer or grid."""

    def encode(
        self,
        images: np.ndarray | Tensor,
        readouts: Sequence[Readout],
        *,
        batch: int | Literal["auto"] = "auto",
    ) -> list[np.ndarray]:
        """Encode pictures, each with a readout of its own, in shared forward passes.

        Args:
            images: RGB, uint8 `[N, size, size, 3]`.
            readouts: one for each picture.
            batch: pictures at once; `auto` is what suits the device.

        Returns:
            Of each picture float32 `[D]`.

        Raises:
            ConfigError: a readout that the encoder does not have.
            DataError: not even one picture fits into memory.
        """


def open_image_encoder(
    id: str,
    *,
    revision: str = "",
    needs: str = "",
    precision: str = "auto",
    device: str = "cpu",
) -> ImageEncoder:
    """Load an encoder, or give the one that was loaded with equal arguments.

    Args:
        id: a folder, `package:MODULE/FOLDER`, or a Hugging Face id.
        revision: hub branch, tag or commit.
        needs: distribution that carries a `package:` encoder, for the hint.
        precision: `float32`, `bf16`, or `auto`: bf16 where the device multiplies it faster.
        device: where it runs.

    Raises:
        MissingDependency: the package with the weights, torch or transformers is not installed.
        ConfigError: the weights cannot be had, or are no image encoder.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}", hint="it is " + ", ".join(PRECISIONS))
    require("torch", extra="mepr-shared[vision]")
    from mepr_shared.train.loop import uses_bf16

    return _opened(id, revision, needs, uses_bf16(precision, device), device)


def preprocessing_of(id: str, *, revision: str = "", needs: str = "") -> Preprocessing:
    """What an encoder wants its pictures to be like, without loading its weights.

    Args and raises as `open_image_encoder`.
    """
    folder = resolve(id, revision=revision, needs=needs).path
    if (folder / "config.json").is_file():
        from mepr_shared.vision.encoders.processor import read_preprocessing

        return read_preprocessing(folder)
    from mepr_shared.vision.encoders import efficientnet

    efficientnet.weights_file(folder)
    return efficientnet.PREPROCESSING


@lru_cache(maxsize=_KEPT)
def _opened(id: str, revision: str, needs: str, bf16: bool, device: str) -> ImageEncoder:
    from mepr_shared.vision.encoders.loaded import LoadedEncoder

    folder = resolve(id, revision=revision, needs=needs)
    network, preprocessing = _network(folder.path)
    return LoadedEncoder(
        network,
        preprocessing,
        device=device,
        bf16=bf16,
        revision=folder.revision,
        weights_sha256=folder.weights_sha256,
    )


def _network(folder: Path) -> tuple[Network, Preprocessing]:
    """The network of a folder, and how it likes its pictures."""
    if not (folder / "config.json").is_file():
        from mepr_shared.vision.encoders import efficientnet

        file = efficientnet.weights_file(folder)
        return efficientnet.open_efficientnet(file), efficientnet.PREPROCESSING
    from mepr_shared.vision.encoders.hugging_face import open_hugging_face
    from mepr_shared.vision.encoders.processor import read_preprocessing

    return open_hugging_face(folder), read_preprocessing(folder)
