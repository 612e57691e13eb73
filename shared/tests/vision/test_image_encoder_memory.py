"""Image encoders halve a batch that does not fit into memory, and say so."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mepr_shared.errors import DataError
from mepr_shared.vision.encoders import Readout
from mepr_shared.vision.encoders.loaded import LoadedEncoder, Preprocessing, States

TOP = Readout()


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


class Narrow:
    """A network that runs out of memory beyond so many pictures."""

    batch_on_cpu = 16

    def __init__(self, fits: int, error: RuntimeError) -> None:
        self.module = nn.Identity()
        self.fits, self.error = fits, error
        self.sizes: list[int] = []

    def states(self, pixels: Tensor, layers: Collection[int | None]) -> dict[int | None, States]:
        self.sizes.append(len(pixels))
        if len(pixels) > self.fits:
            raise self.error
        return {layer: States(pixels) for layer in layers}


def narrow_encoder(network: Narrow) -> LoadedEncoder:
    plain = Preprocessing(8, 8, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 3)
    return LoadedEncoder(network, plain)


CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), CPU_ERROR])
def test_batches_that_do_not_fit_are_halved_once_and_for_all(error: RuntimeError) -> None:
    network = Narrow(3, error)
    encoder = narrow_encoder(network)
    told: list[str] = []
    encoder.notify = told.append
    images = noise(11, 8)
    expected = images.reshape(11, -1, 3).mean(1) / 255
    assert np.abs(encode_with(encoder, images, 8) - expected).max() < 1e-6
    assert network.sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert encoder.batch == 2 and len(told) == 2 and "now 2 at once" in told[1]
    network.sizes.clear()
    encode_with(encoder, images, 8)
    encode_with(encoder, images, "auto")
    assert max(network.sizes) == 2


def encode_with(encoder: LoadedEncoder, images: np.ndarray, batch: int | str) -> np.ndarray:
    return np.stack(encoder.encode(images, [TOP] * len(images), batch=batch))


def test_one_picture_that_does_not_fit_is_an_error_with_a_hint() -> None:
    encoder = narrow_encoder(Narrow(0, torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(DataError, match="choose a smaller encoder"):
        encode_with(encoder, noise(3, 8), "auto")


def test_other_errors_pass() -> None:
    encoder = narrow_encoder(Narrow(0, RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        encode_with(encoder, noise(3, 8), "auto")
