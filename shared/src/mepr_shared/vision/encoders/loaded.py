"""What all image encoders share: normalisation, batches that fit into memory, readouts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, DataError
from mepr_shared.vision.crop import Fit
from mepr_shared.vision.encoders import Readout

_BATCH_ON_GPU = 256
# Measured: beyond these, activations leave a processor's cache and nothing is gained, and with
# maps of high resolution (EfficientNet-Lite0, 16 pictures at once) a third of the speed is lost.
BATCH_OF_TOKENS, BATCH_OF_MAPS = 16, 4


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become the input of a network.

    Attributes:
        size, shortest, fit, mean, std, resample: as `ImageEncoder` has them.
        scale: what a value of a pixel is multiplied with before the mean is taken off.
    """

    size: int
    shortest: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int
    scale: float = 1 / 255


class Network(Protocol):
    """A network on its own.

    Attributes:
        batch_on_cpu: how many pictures at once suit a processor.
    """

    batch_on_cpu: int

    @property
    def module(self) -> nn.Module:
        """Its weights, to be moved and converted."""

    def states(self, pixels: Tensor, layers: Collection[int | None]) -> dict[int | None, States]:
        """What the layers asked for say of `[B, 3, S, S]`; those above are not computed.

        Raises:
            ConfigError: there is no such layer.
        """


@dataclass(frozen=True)
class States:
    """One layer.

    Attributes:
        map: `[B, D, h, w]`: by place.
        summary: `[B, D']`: the model's own vector; None for all but the top.
    """

    map: Tensor
    summary: Tensor | None = None

    def read(self, readout: Readout) -> Tensor:
        """float32 `[B, width]`.

        Raises:
            ConfigError: the grid is finer than the map.
        """
        if readout.grid == 1 and self.summary is not None:
            return self.summary.float()
        side = min(self.map.shape[-2:])
        if readout.grid > side:
            raise ConfigError(
                f"a readout of {readout.grid} x {readout.grid} cells: the layer has {side} x {side}"
            )
        cells = nn.functional.adaptive_avg_pool2d(self.map.float(), readout.grid)
        return cells.flatten(2).transpose(1, 2).flatten(1)


class LoadedEncoder:
    """An `ImageEncoder` around a network.

    Args:
        network: takes normalised pixels.
        preprocessing: that the network was trained with.
        device: where it runs.
        bf16: keep weights and activations in bfloat16.
        revision, weights_sha256: what identifies the weights.

    Attributes:
        batch: as many pictures go through it at once; smaller after memory ran out.
        notify: is told, in one line, when `batch` becomes smaller; logs it unless replaced.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        *,
        device: str = "cpu",
        bf16: bool = False,
        revision: str = "",
        weights_sha256: str = "",
    ) -> None:
        self.size, self.shortest = preprocessing.size, preprocessing.shortest
        self.fit, self.resample = preprocessing.fit, preprocessing.resample
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.revision, self.weights_sha256 = revision, weights_sha256
        self.device = torch.device(device)
        self.batch = network.batch_on_cpu if self.device.type == "cpu" else _BATCH_ON_GPU
        self.notify: Callable[[str], None] = logging.getLogger(__name__).warning
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        module = network.module.eval().requires_grad_(False).to(self.device, self._dtype)
        # The order in which pixels lie in memory: half of a convolution's time on a processor.
        module.to(memory_format=torch.channels_last)
        self._network = network
        self._largest: int | None = None
        self._widths: dict[Readout, int] = {}
        std, mean = np.array(preprocessing.std), np.array(preprocessing.mean)
        self._factor = self._per_channel(preprocessing.scale / std)
        self._shift = self._per_channel(-mean / std)

    def width(self, readout: Readout) -> int:
        """`D` of a readout. Raises ConfigError where there is no such layer or grid."""
        if readout not in self._widths:
            blank = np.zeros((1, self.size, self.size, 3), np.uint8)
            self._widths[readout] = len(self.encode(blank, [readout])[0])
        return self._widths[readout]

    def pixels(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 `[B, S, S, 3]` -> the network's input, float32 `[B, 3, S, S]`."""
        # A picture as it lies in memory is what torch calls channels_last, and stays so.
        batch = torch.as_tensor(images).to(self.device).permute(0, 3, 1, 2).float()
        return batch.mul_(self._factor).add_(self._shift)

    def encode(
        self,
        images: np.ndarray | Tensor,
        readouts: Sequence[Readout],
        *,
        batch: int | Literal["auto"] = "auto",
    ) -> list[np.ndarray]:
        """See `ImageEncoder.encode`."""
        shape = (len(readouts), self.size, self.size, 3)
        if tuple(images.shape) != shape or images.dtype not in (np.uint8, torch.uint8):
            raise ValueError(
                f"images are uint8 {list(shape)}, these are {images.dtype} {list(images.shape)}"
            )
        # Pictures that are done low in the network are put together, and spared the rest of it.
        order = sorted(range(len(readouts)), key=lambda i: _height(readouts[i]))
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(order)
        first = 0
        while first < len(order):
            limit = self.batch if batch == "auto" else min(batch, self._largest or batch)
            chosen = order[first : first + max(1, limit)]
            try:
                rows = self._forward(images[chosen], [readouts[i] for i in chosen])
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                reason = _first_line(error)
            else:
                for index, row in zip(chosen, rows, strict=True):
                    found[index] = row
                first += len(chosen)
                continue
            # Not inside `except`: the error holds on to what the forward pass had allocated.
            self._shrink(len(chosen), reason)
        return found

    @torch.inference_mode()
    def _forward(
        self, images: np.ndarray | Tensor, readouts: Sequence[Readout]
    ) -> list[np.ndarray]:
        pixels = self.pixels(images).to(self._dtype)
        wanted = dict.fromkeys(readouts)
        states = self._network.states(pixels, {layer for r in wanted for layer in r.layers})
        values = {
            r: torch.cat([states[layer].read(r) for layer in r.layers], dim=1).cpu().numpy()
            for r in wanted
        }
        return [values[readout][row].copy() for row, readout in enumerate(readouts)]

    def _shrink(self, failed: int, reason: str) -> None:
        if failed == 1:
            raise DataError(
                f"one picture of {self.size} x {self.size} does not fit into the memory of "
                f"{self.device}: {reason}",
                hint="choose a smaller encoder, precision bf16, or another device",
            )
        self._largest = self.batch = failed // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notify(
            f"{failed} pictures at once did not fit into the memory of {self.device}: "
            f"now {self.batch} at once"
        )

    def _per_channel(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(3, 1, 1)


def _height(readout: Readout) -> float:
    return max(float("inf") if layer is None else layer for layer in readout.layers)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: on the CPU torch has no error of its own for that."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
