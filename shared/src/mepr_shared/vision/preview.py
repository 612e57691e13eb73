"""A contact sheet of what a modality looks at in a clip: people look before they trust."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from mepr_shared.errors import ConfigError, DataError
from mepr_shared.vision.preview_marks import (
    CHOSEN,
    INK,
    MASKED,
    cross,
    dashed_rectangle,
    faded,
    outline,
    shortened,
    text_width,
    thickness,
    wrapped,
    write,
)
from mepr_shared.vision.types import ClipFrames, Regions

NOTICE = "Personal data: shows a person. Store and share with consent only."
KEY = "mepr"
PAPER, EMPTY = "#FFFFFF", "#EEEEEE"
MARGIN, GAP, LINE = 24, 12, 20
_TITLE_GAP, _MOST_LINES = 6, 4
SHOWN_OTHERS = 20
_NARROWEST, _WIDEST, _LARGEST_CROP = 96, 800, 224
_SOUGHT = {"face": "face", "body": "person", "scene": "frame"}
_LEGEND = (
    ("chosen", "looked at, with the detector's score"),
    ("derived", "looked at, but guessed from another box"),
    ("other", "found, not looked at"),
    ("masked", "masked: nothing to look at"),
    ("crop", "below a frame: what the encoder gets"),
)


def draw_sheet(
    name: str,
    modality: str,
    clip: ClipFrames,
    regions: Regions,
    crops: Sequence[np.ndarray | None],
    *,
    width: int = 1600,
) -> Image.Image:
    """Every sampled frame with its time, boxes and score, and the crop that the encoder gets.

    Args:
        name: of the file; folders before it are left out.
        modality: whose regions these are.
        clip, regions: of the same `T` frames.
        crops: `T` pictures uint8 `[S, S, 3]`; None where a frame is masked.
        width: of the sheet, in pixels.

    Raises:
        DataError: there is no frame to show.
    """
    count = len(clip.images)
    if not count:
        status = clip.status if clip.status != "ok" else "no_video"
        raise DataError(f"{_file_name(name)}: {status}: {clip.reason or 'no frame'}")
    columns = _columns(count, width)
    cell = min((width - 2 * MARGIN + GAP) // columns - GAP, _WIDEST)
    frame_height = _frame_height(clip.images, cell)
    crop_side = min(max(36, cell // 3), _LARGEST_CROP)
    rows = [range(start, min(start + columns, count)) for start in range(0, count, columns)]
    # A row of masked frames alone needs no room for crops.
    heights = [
        LINE
        + frame_height
        + 2 * GAP
        + (crop_side if regions.mask[row.start : row.stop].any() else 0)
        for row in rows
    ]
    head = _head(_file_name(name), modality, regions, width - 2 * MARGIN)
    samples = _samples(width - 2 * MARGIN)
    top = MARGIN + _TITLE_GAP + len(head) * LINE + GAP
    bottom = top + sum(heights)
    sheet = Image.new("RGB", (width, bottom + len(samples) * LINE + MARGIN), PAPER)
    for number, (line, size, colour) in enumerate(head):
        write(
            sheet, (MARGIN, MARGIN + number * LINE + _TITLE_GAP * (number > 0)), line, size, colour
        )
    upper = top
    for row, height in zip(rows, heights, strict=True):
        for column, frame in enumerate(row):
            at = (MARGIN + column * (cell + GAP), upper)
            _label(sheet, at, clip, regions, frame, cell)
            tile = _tile(clip, regions, frame, modality, (cell, frame_height))
            sheet.paste(tile, (at[0], upper + LINE))
            crop = crops[frame]
            if crop is not None:
                below = (at[0], upper + LINE + frame_height + GAP // 2)
                small = Image.fromarray(np.ascontiguousarray(crop))
                sheet.paste(small.resize((crop_side, crop_side)), below)
                beside = (below[0] + crop_side + 6, below[1])
                _notes(sheet, beside, clip, regions, frame, cell, cell - crop_side - 6)
        upper += height
    _legend(sheet, bottom, samples)
    return sheet


def sheet_record(name: str, modality: str, clip: ClipFrames, regions: Regions) -> dict[str, Any]:
    """What a sheet shows, for machines: JSON-ready. Boxes are in pixels of the frames."""
    derived = regions.derived if regions.derived is not None else np.zeros_like(regions.mask)
    return {
        "file": _file_name(name),
        "modality": modality,
        "status": regions.status,
        "status_reason": regions.reason or None,
        "n_frames": len(regions.mask),
        "n_masked": int((~regions.mask).sum()),
        "n_derived": int(derived.sum()),
        "frames": [
            {
                "time_s": round(float(clip.time_s[frame]), 3),
                "box": _rounded(regions.boxes[frame]) if valid else None,
                "score": round(float(regions.scores[frame]), 4) if valid else None,
                "masked": not valid,
                "derived": bool(derived[frame]),
                "others": [_rounded(box) for box in _others(regions, frame)],
            }
            for frame, valid in enumerate(regions.mask.tolist())
        ],
    }


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse what `save_sheet` would refuse, before any work is done.

    Raises:
        ConfigError: not a PNG, no such folder, or the file exists and is not to be overwritten.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path}: a sheet is a PNG", hint="--out SHEET.png")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", hint=f"--out {path / 'SHEET.png'}")
    if os.path.lexists(path) and not overwrite:
        raise ConfigError(f"{path} exists", hint="--overwrite replaces it")


def save_sheet(
    image: Image.Image, path: Path, record: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write a sheet whole or not at all, with its record and the notice as PNG text.

    Raises:
        ConfigError: see `check_target`.
        OSError: the disk.
    """
    check_target(path, overwrite=overwrite)
    info = PngImagePlugin.PngInfo()
    info.add_text("Copyright", NOTICE)
    info.add_text("Comment", NOTICE)
    info.add_text(KEY, json.dumps(record))  # escaped, for this text is Latin-1
    # A short name of its own: that of the sheet may be as long as names can be.
    unfinished = path.with_name(f".sheet.{os.getpid()}.tmp")
    try:
        image.save(unfinished, format="PNG", pnginfo=info)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _file_name(name: str) -> str:
    """Without folders; bytes that are no UTF-8, which a file system allows, become U+FFFD."""
    return os.path.basename(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _columns(count: int, width: int) -> int:
    """As many as keep 30 frames on one screen, and more for more frames."""
    most = max(1, (width - 2 * MARGIN) // _NARROWEST)
    return min(count, most, max(6, math.ceil(math.sqrt(count * 1.4))))


def _frame_height(images: Sequence[np.ndarray], cell: int) -> int:
    """Of the highest frame, within reason: strips of pictures neither vanish nor fill the sheet."""
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    return max(cell // 3, min(round(cell * tallest), 2 * cell, _WIDEST))


def _others(regions: Regions, frame: int) -> np.ndarray:
    return regions.others[frame] if regions.others else np.zeros((0, 4), np.float32)


def _is_derived(regions: Regions, frame: int) -> bool:
    return regions.derived is not None and bool(regions.derived[frame])


def _rounded(box: np.ndarray) -> list[float]:
    return [round(float(edge), 1) for edge in box]


def _head(name: str, modality: str, regions: Regions, width: int) -> list[tuple[str, int, str]]:
    """Lines with their sizes and colours. The notice is never cut."""
    masked = int((~regions.mask).sum())
    counts = f"{len(regions.mask)} frame{'' if len(regions.mask) == 1 else 's'}, {masked} masked"
    if regions.derived is not None:
        counts += f", {int(regions.derived.sum())} derived"
    status = f"{regions.status}  ({counts})" + (f": {regions.reason}" if regions.reason else "")
    title = shortened(f"{modality}   {name}", 18, width)
    lines = wrapped(status, 14, width)
    if len(lines) > _MOST_LINES:
        rest = " ".join(lines[_MOST_LINES - 1 :])
        lines[_MOST_LINES - 1 :] = [shortened(rest, 14, width)]
    body = [(line, 14, INK) for line in lines]
    return [(title, 18, INK), *body, *((line, 14, MASKED) for line in wrapped(NOTICE, 14, width))]


def _label(
    sheet: Image.Image,
    at: tuple[int, int],
    clip: ClipFrames,
    regions: Regions,
    frame: int,
    width: int,
) -> None:
    """Time and score above a frame, or that it is masked."""
    time, text = _label_words(clip, regions, frame, width)
    write(sheet, at, time, 13, INK)
    left = at[0] + width - text_width(text, 13)
    write(sheet, (left, at[1]), text, 13, INK if regions.mask[frame] else MASKED)


def _label_words(clip: ClipFrames, regions: Regions, frame: int, width: int) -> tuple[str, str]:
    """Time, and score or `masked` where there is room: a number that is cut is another number."""
    time = f"{clip.time_s[frame]:.2f} s"
    text = f"{regions.scores[frame]:.2f}" if regions.mask[frame] else "masked"
    return time, text if text_width(time, 13) + 6 + text_width(text, 13) <= width else ""


def _notes(
    sheet: Image.Image,
    at: tuple[int, int],
    clip: ClipFrames,
    regions: Regions,
    frame: int,
    width: int,
    room: int,
) -> None:
    """What the box and the label (`width` pixels) do not say, beside the crop (`room` pixels)."""
    others = len(_others(regions, frame))
    told = _label_words(clip, regions, frame, width)[1]
    notes = [] if told else [f"{regions.scores[frame]:.2f}"]
    notes += ["derived"] if _is_derived(regions, frame) else []
    more = f"+{others} found"
    notes += [more if text_width(more, 12) <= room else f"+{others}"] if others else []
    for number, note in enumerate(notes):
        write(sheet, (at[0], at[1] + number * 14), note, 12, INK)


def _tile(
    clip: ClipFrames, regions: Regions, frame: int, modality: str, size: tuple[int, int]
) -> Image.Image:
    """A frame with its boxes, letterboxed."""
    source = Image.fromarray(np.ascontiguousarray(clip.images[frame]))
    scale = min(size[0] / source.width, size[1] / source.height)
    picture = source.resize(
        (max(1, round(source.width * scale)), max(1, round(source.height * scale)))
    )
    valid = bool(regions.mask[frame])
    picture = picture if valid else faded(picture)
    for box in _others(regions, frame)[:SHOWN_OTHERS]:
        outline(picture, box * scale, "other")
    if valid:
        mark = "derived" if _is_derived(regions, frame) else "chosen"
        outline(picture, regions.boxes[frame] * scale, mark)
    tile = Image.new("RGB", size, EMPTY)
    left, upper = (size[0] - picture.width) // 2, (size[1] - picture.height) // 2
    tile.paste(picture, (left, upper))
    if not valid:
        cross(tile, (left, upper, left + picture.width - 1, upper + picture.height - 1))
        sought = f"no {_SOUGHT.get(modality, 'region')}"
        # Where there is little room the frame itself must stay visible.
        _plate(tile, [sought] if size[1] < 70 else ["masked:", sought])
    return tile


def _plate(tile: Image.Image, lines: list[str]) -> None:
    """Words in the middle of a tile, on a ground of their own."""
    size = 14 if tile.width >= 120 else 12
    wide = max(text_width(line, size) for line in lines)
    height = len(lines) * (size + 3)
    middle = (tile.width // 2, tile.height // 2)
    upper = middle[1] - height // 2
    ground = (middle[0] - wide // 2 - 5, upper - 3, middle[0] + wide // 2 + 5, upper + height + 3)
    ImageDraw.Draw(tile).rectangle(ground, fill=INK)
    for number, line in enumerate(lines):
        left = middle[0] - text_width(line, size) // 2
        write(tile, (left, upper + number * (size + 3)), line, size, PAPER)


def _samples(width: int) -> list[list[tuple[int, str, str]]]:
    """The legend in lines of (left edge, mark, words), as many as the width needs."""
    lines: list[list[tuple[int, str, str]]] = [[]]
    left = 0
    for mark, words in _LEGEND:
        words = shortened(words, 13, width - 34)
        needs = 34 + text_width(words, 13)
        if left and left + needs > width:
            lines.append([])
            left = 0
        lines[-1].append((MARGIN + left, mark, words))
        left += needs + 2 * GAP
    return lines


def _legend(sheet: Image.Image, top: int, lines: list[list[tuple[int, str, str]]]) -> None:
    for number, line in enumerate(lines):
        upper = top + number * LINE
        for left, mark, words in line:
            _sample(sheet, (left, upper + 1, left + 26, upper + 15), mark)
            write(sheet, (left + 34, upper), words, 13, INK)


def _sample(sheet: Image.Image, area: tuple[int, int, int, int], mark: str) -> None:
    pen = ImageDraw.Draw(sheet)
    if mark == "masked":
        pen.rectangle(area, fill="#555555")
        cross(sheet, area)
    elif mark == "crop":
        pen.rectangle((area[0] + 6, *area[1:3], area[3]), outline=INK, fill=EMPTY)
    elif mark == "derived":
        dashed_rectangle(pen, area, CHOSEN, thickness(sheet.width))
    else:
        pen.rectangle(area, fill="#777777")
        tile = sheet.crop((area[0], area[1], area[2] + 1, area[3] + 1))
        outline(tile, np.array((1, 1, tile.width - 2, tile.height - 2), np.float32), mark)
        sheet.paste(tile, area[:2])
