"""Boxes of a picture, as an image encoder reads them: square, of one size, antialiased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image

Fit = Literal["letterbox", "crop", "stretch"]
FITS: tuple[Fit, ...] = ("letterbox", "crop", "stretch")
BICUBIC = int(Image.Resampling.BICUBIC)
# The widest filter (Lanczos) reads this many pixels around a point, times the reduction.
_REACH = 3


class Target(Protocol):
    """What a crop must know of the encoder it is for: see `encoders.ImageEncoder`."""

    @property
    def size(self) -> int: ...
    @property
    def shortest(self) -> int: ...
    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def resample(self) -> int: ...


def crop_for(encoder: Target, image: np.ndarray, box: np.ndarray, fit: Fit) -> np.ndarray:
    """`crop` in the size, the filter and the mean colour of an encoder."""
    return crop(
        image,
        box,
        encoder.size,
        fit=fit,
        resample=encoder.resample,
        colour=mean_colour(encoder.mean),
        shortest=encoder.shortest,
    )


def mean_colour(mean: Sequence[float]) -> tuple[int, int, int]:
    """The pixel that normalisation turns into 0, within half a grey level; `mean` in [0, 1]."""
    red, green, blue = (min(255, max(0, round(255 * value))) for value in mean)
    return red, green, blue


def crop(
    image: np.ndarray,
    box: np.ndarray | Sequence[float],
    size: int,
    *,
    fit: Fit,
    resample: int = BICUBIC,
    colour: tuple[int, int, int] = (0, 0, 0),
    shortest: int | None = None,
) -> np.ndarray:
    """The content of a box as a square picture.

    What the box holds beyond the edges of the picture is `colour`, and a box that lies wholly
    beyond them is nothing else.

    Args:
        image: RGB, uint8 `[H, W, 3]`.
        box: `[4]`: left, top, right, bottom in pixels, not necessarily whole ones.
        size: side of the result, in pixels.
        fit: what becomes of a box that is no square. `letterbox` shows all of it in its own
            proportions, between bars of `colour`; `crop` brings its shorter side to `shortest`
            and takes the centre, as CLIP's image processor does with a whole picture; `stretch`
            shows all of it and changes the proportions.
        resample: one of PIL's filters, by number.
        colour: RGB of what is not in the picture.
        shortest: for `crop`; without, `size`.

    Returns:
        uint8 `[size, size, 3]`.

    Raises:
        ValueError: a box without area or with a coordinate that is no finite number, an image
            that is not uint8 `[H, W, 3]`, an unknown fit.
    """
    left, top, right, bottom = _checked(image, box)
    wide, high = _canvas(right - left, bottom - top, size, fit, shortest or size)
    across = _span(left, right, wide, size, image.shape[1])
    down = _span(top, bottom, high, size, image.shape[0])
    if across is None or down is None:
        return np.full((size, size, 3), colour, np.uint8)
    part = _resized(image, across, down, resample)
    if part.shape == (size, size, 3):
        return part
    result = np.full((size, size, 3), colour, np.uint8)
    result[down.into : down.into + down.length, across.into : across.into + across.length] = part
    return result


@dataclass(frozen=True)
class _Span:
    """Along one axis: which pixels of the result come from which part of the picture.

    Attributes:
        into, length: first pixel and number of pixels of the result.
        start, end: the part of the picture, in its pixels.
    """

    into: int
    length: int
    start: float
    end: float


def _canvas(width: float, height: float, size: int, fit: Fit, shortest: int) -> tuple[int, int]:
    """Width and height, in pixels of the result, of the whole box."""
    if fit == "stretch":
        return size, size
    if fit == "letterbox":
        scale = size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))
    if fit == "crop":
        # Cut off, not rounded, as Hugging Face's `get_resize_output_image_size` does. A side
        # beyond any use is bounded; only its middle is looked at.
        longest = int(min(shortest * max(width, height) / min(width, height), 1e9))
        return (shortest, longest) if width <= height else (longest, shortest)
    raise ValueError(f"no such fit: {fit!r}; there are {', '.join(FITS)}")


def _span(start: float, end: float, canvas: int, size: int, available: int) -> _Span | None:
    """One axis of a box that covers `canvas` pixels, of which the middle `size` are shown.

    None where nothing of the picture is shown.
    """
    # Both of Hugging Face's roundings: a middle is cut out, and padded, from the upper left.
    offset = (size - canvas) // 2 if canvas <= size else -((canvas - size) // 2)
    scale = (end - start) / canvas
    # Edges of the picture, in pixels of the result.
    first = max(0, offset, offset + round(-start / scale))
    last = min(size, offset + canvas, offset + round((available - start) / scale))
    if last <= first:
        return None
    # Rounding can put an edge up to half a pixel of the result beyond the picture.
    begin = min(max(0.0, start + (first - offset) * scale), available - 1e-3)
    finish = max(min(float(available), start + (last - offset) * scale), begin + 1e-3)
    return _Span(first, last - first, begin, finish)


def _resized(image: np.ndarray, across: _Span, down: _Span, resample: int) -> np.ndarray:
    """The part of a picture, uint8 `[down.length, across.length, 3]`."""
    # PIL copies what it is given: no more than the filter reads.
    rows, columns = _read(down, image.shape[0]), _read(across, image.shape[1])
    picture = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
    box = (
        across.start - columns.start,
        down.start - rows.start,
        across.end - columns.start,
        down.end - rows.start,
    )
    size = across.length, down.length
    if size == picture.size and box == (0, 0, *size):
        return np.array(picture)
    return np.array(picture.resize(size, Image.Resampling(resample), box=box))


def _read(span: _Span, available: int) -> slice:
    reach = _REACH * max(1.0, (span.end - span.start) / span.length) + 1
    return slice(max(0, int(span.start - reach)), min(available, int(span.end + reach) + 1))


def _checked(
    image: np.ndarray, box: np.ndarray | Sequence[float]
) -> tuple[float, float, float, float]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a picture is uint8 [H, W, 3], this is {image.dtype} {image.shape}")
    edges = np.asarray(box, np.float64)
    if edges.shape != (4,) or not np.isfinite(edges).all():
        raise ValueError(f"a box is four finite numbers, this is {edges.tolist()}")
    left, top, right, bottom = edges.tolist()
    if right <= left or bottom <= top:
        raise ValueError(f"the box {[left, top, right, bottom]} has no area")
    return left, top, right, bottom
