"""What a contact sheet is drawn with: boxes, the cross of a masked frame, lines of text."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito (2008), "Color Universal Design": colour-blind people can tell these apart. Width
# and dashes say the same without any colour.
CHOSEN, MASKED = "#009E73", "#D55E00"
INK, OTHER, HALO = "#1A1A1A", "#D8D8D8", "#FFFFFF"
_DASH, _PERIOD = 7, 12


def outline(picture: Image.Image, box: np.ndarray, mark: str) -> None:
    """Draw a box `[4]` in pixels of the picture; beyond its edges it runs along them.

    Args:
        mark: `chosen` (thick), `derived` (thick, dashed) or `other` (thin, without a hue).
    """
    pen = ImageDraw.Draw(picture)
    right, lower = picture.width - 1, picture.height - 1
    x1, x2 = sorted(round(float(np.clip(x, 0, right))) for x in (box[0], box[2]))
    y1, y2 = sorted(round(float(np.clip(y, 0, lower))) for y in (box[1], box[3]))
    # A second line around each, dark or light: visible on any ground.
    around = (max(0, x1 - 1), max(0, y1 - 1), min(right, x2 + 1), min(lower, y2 + 1))
    if mark == "other":
        pen.rectangle(around, outline=INK)
        pen.rectangle((x1, y1, x2, y2), outline=OTHER)
        return
    wide = thickness(picture.width)
    if mark == "derived":
        dashed_rectangle(pen, (x1, y1, x2, y2), CHOSEN, wide)
        return
    pen.rectangle(around, outline=HALO)
    pen.rectangle((x1, y1, x2, y2), outline=CHOSEN, width=wide)


def thickness(width: int) -> int:
    """Of the line around the chosen box, in pixels, in a picture of this width."""
    return 3 if width >= 150 else 2


def dashed_rectangle(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str, wide: int
) -> None:
    """Dashes along the inside of a box, light between them."""
    x1, y1, x2, y2 = box
    for inside in range(wide):
        left, upper, right, lower = x1 + inside, y1 + inside, x2 - inside, y2 - inside
        if left > right or upper > lower:
            return
        pen.rectangle((left, upper, right, lower), outline=HALO)
        for start in range(x1, x2 + 1, _PERIOD):
            a, b = max(start, left), min(start + _DASH, right)
            if a <= b:
                pen.line((a, upper, b, upper), fill=colour)
                pen.line((a, lower, b, lower), fill=colour)
        for start in range(y1, y2 + 1, _PERIOD):
            a, b = max(start, upper), min(start + _DASH, lower)
            if a <= b:
                pen.line((left, a, left, b), fill=colour)
                pen.line((right, a, right, b), fill=colour)


def cross(picture: Image.Image, area: tuple[int, int, int, int]) -> None:
    """Both diagonals of an area."""
    pen = ImageDraw.Draw(picture)
    left, upper, right, lower = area
    pen.line((left, upper, right, lower), fill=MASKED, width=thickness(right - left))
    pen.line((left, lower, right, upper), fill=MASKED, width=thickness(right - left))


def faded(picture: Image.Image) -> Image.Image:
    """Without colour and at half its brightness."""
    return picture.convert("L").point([value // 2 for value in range(256)]).convert("RGB")


def write(picture: Image.Image, at: tuple[int, int], text: str, size: int, colour: str) -> None:
    """One line of text; see `drawable`."""
    ImageDraw.Draw(picture).text(at, drawable(text), fill=colour, font=_font(size))


def text_width(text: str, size: int) -> int:
    """Of a line as `write` draws it, in pixels."""
    return int(np.ceil(_font(size).getlength(drawable(text))))


def shortened(text: str, size: int, width: int) -> str:
    """A line that fits: its middle is left out, for the ends of file names tell them apart."""
    text = drawable(text)
    if text_width(text, size) <= width:
        return text
    # The longest that fits, by halving: a name may have thousands of characters.
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        kept = (fits + too_long) // 2
        if text_width(_without_middle(text, kept), size) <= width:
            fits = kept
        else:
            too_long = kept
    return _without_middle(text, fits)


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Lines that fit, broken between words; a word that does not fit alone is shortened."""
    lines = [""]
    for word in drawable(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width(longer, size) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(shortened(word, size, width))
        else:
            lines[-1] = shortened(word, size, width)
    return lines


def drawable(text: str) -> str:
    """A text with what the font lacks replaced: by its letter without accents, else by `?`."""
    return "".join(_glyph(character) for character in unicodedata.normalize("NFC", text))


@lru_cache(maxsize=4096)
def _glyph(character: str) -> str:
    if _has(character):
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return plain if plain and plain.isprintable() else "?"


def _has(character: str) -> bool:
    # No font has a glyph for a code point that is for private use; what looks like that is missing.
    missing = bytes(_font(14).getmask("\U0010fffd"))
    return character.isprintable() and bytes(_font(14).getmask(character)) != missing


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # a size is given
    return font


def _without_middle(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{text[:head]}...{text[len(text) - (kept - head) :]}"
