"""The cascade of MTCNN on a batch of pictures of equal size.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
2016 (arXiv 1604.02878), with the networks and the arithmetic of facenet-pytorch. What that package
does per call is done here per stage and in blocks of pictures, on the memory layout that its small
convolutions run fastest in; the boxes and scores are those of `facenet_pytorch.MTCNN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mepr_shared.errors import require

# The first network looks at cells of 12 pixels, 2 pixels apart.
CELL, STRIDE = 12, 2
# From one scale of the pyramid to the next: half the area.
SHRINK = 0.709
# Pictures and crops that go through a network at once: larger blocks leave the cache of a CPU.
BLOCK_PIXELS = 1_000_000
BLOCK_CROPS = 64
# Overlaps (intersection over union) above which the weaker of two boxes goes: within one scale,
# within one picture.
SCALE_OVERLAP, PICTURE_OVERLAP = 0.5, 0.7


class Mtcnn:
    """The three networks: propose, refine, output.

    Args:
        propose, refine, output: they give offsets first and probabilities last.
        device: where they run.
    """

    def __init__(
        self, propose: nn.Module, refine: nn.Module, output: nn.Module, device: str
    ) -> None:
        for network in (propose, refine, output):
            network.eval().requires_grad_(False).to(device)
            network.to(memory_format=torch.channels_last)
        self.propose, self.refine, self.output = propose, refine, output
        self.device = device

    @classmethod
    def open(cls, device: str) -> Mtcnn:
        """The networks with the weights that facenet-pytorch brings.

        Raises:
            MissingDependency: facenet-pytorch is not installed.
        """
        package = require("facenet_pytorch", extra="mepr-shared[faces]")
        weights = Path(str(package.__file__)).parent / "data"

        def network(name: str) -> nn.Module:
            built: nn.Module = getattr(package, name)(pretrained=False)
            path = weights / f"{name.lower()}.pt"
            built.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            return built

        return cls(network("PNet"), network("RNet"), network("ONet"), device)

    @torch.inference_mode()
    def detect(
        self, images: np.ndarray, least_px: float, thresholds: tuple[float, float, float]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Faces of each picture, best score first.

        Args:
            images: uint8 `[B, H, W, 3]`.
            least_px: the smallest face that is looked for, in pixels.
            thresholds: the least score after each network.

        Returns:
            Per picture boxes float32 `[n, 4]` (left, top, right, bottom in pixels) and scores
            float32 `[n]`.
        """
        height, width = images.shape[1:3]
        step = max(1, BLOCK_PIXELS // (height * width))
        found = []
        for start in range(0, len(images), step):
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + step]))
            pixels = block.to(self.device).permute(0, 3, 1, 2).float().contiguous()
            found += self._block(pixels, least_px, thresholds)
        return found

    def _block(
        self, pixels: Tensor, least_px: float, thresholds: tuple[float, float, float]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        boxes, owner = self._proposals(pixels, least_px, thresholds[0])
        crops, boxes, owner = cut(pixels, boxes, owner, 24)
        offsets, scores = _in_blocks(self.refine, crops)
        kept = (scores > thresholds[1]).nonzero()[:, 0]
        boxes, owner, offsets, scores = boxes[kept], owner[kept], offsets[kept], scores[kept]
        kept = without_overlaps(boxes, scores, owner, PICTURE_OVERLAP)
        boxes, owner = square(moved(boxes[kept], offsets[kept], 1)), owner[kept]

        crops, boxes, owner = cut(pixels, boxes, owner, 48)
        offsets, scores = _in_blocks(self.output, crops)
        kept = scores > thresholds[2]
        boxes, owner, scores = moved(boxes[kept], offsets[kept], 1), owner[kept], scores[kept]
        return [_without_nested(boxes[owner == i], scores[owner == i]) for i in range(len(pixels))]

    def _proposals(
        self, pixels: Tensor, least_px: float, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Squares `[N, 4]` where a face may be, and whose picture each is in, `[N]`."""
        height, width = pixels.shape[2:]
        boxes, offsets = [pixels.new_zeros(0, 4)], [pixels.new_zeros(0, 4)]
        scores, owner = [pixels.new_zeros(0)], [pixels.new_zeros(0, dtype=torch.long)]
        for scale in scales(min(height, width), least_px):
            size = (int(height * scale + 1), int(width * scale + 1))
            small = normal(interpolate(pixels, size=size, mode="area"))
            moves, probabilities = self.propose(small.contiguous(memory_format=torch.channels_last))
            probable = probabilities[:, 1]
            place = (probable >= threshold).nonzero()
            picture, row, column = place.unbind(1)
            corner = place[:, 1:].flip(1) * STRIDE + 1
            here = torch.cat([corner / scale, (corner + CELL - 1) / scale], dim=1).floor()
            score = probable[picture, row, column]
            kept = without_overlaps(here, score, picture, SCALE_OVERLAP)
            boxes.append(here[kept])
            scores.append(score[kept])
            offsets.append(moves[picture, :, row, column][kept])
            owner.append(picture[kept])
        all_boxes, all_owner = torch.cat(boxes), torch.cat(owner)
        kept = without_overlaps(all_boxes, torch.cat(scores), all_owner, PICTURE_OVERLAP)
        return square(moved(all_boxes[kept], torch.cat(offsets)[kept], 0)), all_owner[kept]


def scales(shorter_px: int, least_px: float) -> Iterator[float]:
    """By what a picture is reduced so that faces of ever larger sizes fill one cell."""
    scale = CELL / least_px
    while shorter_px * scale >= CELL:
        yield scale
        scale *= SHRINK


def normal(pixels: Tensor) -> Tensor:
    """0 to 255 -> about -1 to 1, as the networks were trained on."""
    return (pixels - 127.5) * 0.0078125


def moved(boxes: Tensor, offsets: Tensor, extra: int) -> Tensor:
    """Boxes `[N, 4]` with their edges moved by shares of their sides (plus `extra` pixels)."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + offsets * sides.repeat(1, 2)


def square(boxes: Tensor) -> Tensor:
    """Squares on the longer side, about the same centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(1, keepdim=True).values
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([corner, corner + longer], dim=1)


def cut(pixels: Tensor, boxes: Tensor, owner: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is inside of boxes, averaged to `[N, 3, side, side]`; boxes outside are left out.

    Args:
        pixels: `[B, 3, H, W]`, 0 to 255.
        boxes: `[N, 4]`.
        owner: whose picture each is in, `[N]`.
        side: of the crops.
    """
    height, width = pixels.shape[2:]
    whole = boxes.trunc().long()
    first = (whole[:, :2] - 1).clamp(min=0)
    last = torch.minimum(whole[:, 2:], whole.new_tensor([width, height]))
    kept = (last > first).all(1)
    boxes, owner = boxes[kept], owner[kept]
    edges = torch.cat([owner[:, None], first[kept], last[kept]], dim=1).tolist()
    crops = [
        interpolate(pixels[picture : picture + 1, :, top:bottom, left:right], side, mode="area")
        for picture, left, top, right, bottom in edges
    ]
    return torch.cat(crops) if crops else pixels.new_zeros(0, 3, side, side), boxes, owner


def without_overlaps(boxes: Tensor, scores: Tensor, owner: Tensor, limit: float) -> Tensor:
    """Non-maximum suppression within each picture: the positions that stay, picture by picture."""
    nms = require("torchvision.ops", extra="mepr-shared[faces]").nms
    kept = [owner.new_zeros(0)]
    for picture in owner.unique().tolist():
        here = (owner == picture).nonzero()[:, 0]
        kept.append(here[nms(boxes[here], scores[here], limit)])
    return torch.cat(kept)


def _in_blocks(network: nn.Module, crops: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets `[N, 4]` and probabilities of a face `[N]` of crops `[N, 3, side, side]`."""
    offsets, scores = [crops.new_zeros(0, 4)], [crops.new_zeros(0)]
    for block in crops.split(BLOCK_CROPS) if len(crops) else ():
        outputs = network(normal(block).contiguous(memory_format=torch.channels_last))
        offsets.append(outputs[0])
        scores.append(outputs[-1][:, 1])
    return torch.cat(offsets), torch.cat(scores)


def _without_nested(boxes: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Faces of one picture, best first, without those that mostly lie in a better one."""
    order = scores.argsort(descending=True, stable=True)
    left, found = boxes[order].cpu().numpy(), scores[order].cpu().numpy()
    kept = []
    places = np.arange(len(left))
    while len(places):
        best, places = places[0], places[1:]
        kept.append(best)
        inner = np.minimum(left[best, 2:], left[places, 2:]) + 1
        inner = np.maximum(inner - np.maximum(left[best, :2], left[places, :2]), 0).prod(-1)
        areas = (left[:, 2:] - left[:, :2] + 1).prod(-1)
        places = places[inner / np.minimum(areas[best], areas[places]) <= PICTURE_OVERLAP]
    return left[kept].reshape(-1, 4), found[kept]
