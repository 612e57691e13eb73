"""Small drawings as HTML and SVG. Every one has its numbers as text or tooltip as well."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from mepr_fusion.app.sound import Envelope
from mepr_fusion.predict.prediction import EmotionAnswer, TraitScore, WindowAnswer
from mepr_shared.errors import require
from mepr_shared.labels import EMOTIONS, TRAITS

_UP, _DOWN = (178, 24, 43), (33, 102, 172)
Part = tuple[float, float, str]


def words_of(name: str) -> str:
    """`emotional_stability` -> `emotional stability`."""
    return name.replace("_", " ")


def signed(value: float, digits: int = 3) -> str:
    """`+0.012`, with a true minus sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\u2212")


def colour(value: float, most: float) -> tuple[str, bool]:
    """Background for a signed value, white at zero, and whether it needs white letters."""
    share = 0.0 if most <= 0 else min(1.0, abs(value) / most)
    end = _UP if value > 0 else _DOWN
    mixed = [round(255 + share * (part - 255)) for part in end]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})", share > 0.55


def emotion_bars(emotion: EmotionAnswer) -> str:
    """Probabilities, the largest first."""
    rows = []
    for name, value in sorted(emotion.probabilities.items(), key=lambda pair: -pair[1]):
        decided = ' class="decided"' if name in emotion.present else ""
        rows.append(
            f"<span{decided}>{name}</span>"
            f'<div class="track" role="img" aria-label="{name}: probability {value:.2f}" '
            f'title="{name}: {value:.4f}"><div class="fill" style="width:{value:.1%}"></div></div>'
            f"<span{decided}>{value:.2f}</span>"
        )
    return f'<div class="rows">{"".join(rows)}</div>'


def trait_bars(traits: dict[str, TraitScore]) -> str:
    """Scores as dots on a line from 0 to 1, with their intervals."""
    rows = []
    for name, trait in traits.items():
        label = f"{words_of(name)}: {trait.score:.2f}"
        drawn, around = "", ""
        if trait.low is not None and trait.high is not None:
            label += f", interval {trait.low:.2f} to {trait.high:.2f}"
            drawn = (
                f'<div class="range" style="left:{trait.low:.1%};'
                f'width:{trait.high - trait.low:.1%}"></div>'
            )
            around = f' <small class="note">{trait.low:.2f}\u2013{trait.high:.2f}</small>'
        rows.append(
            f"<span>{words_of(name)}</span>"
            f'<span class="value">{trait.score:.2f}{around}</span>'
            f'<div class="track" role="img" aria-label="{label}" title="{label}">{drawn}'
            f'<div class="dot" style="left:{trait.score:.1%}"></div></div>'
        )
    return f'<div class="rows traits">{"".join(rows)}</div>'


def waveform(sound: Envelope, parts: Sequence[Part], *, width: int = 480, height: int = 122) -> str:
    """Outline of the sound over time, stretches of speech behind it.

    Args:
        parts: (start in s, end in s, what its tooltip says).
    """
    most = max(float(np.abs([sound.low, sound.high]).max()), 1e-6)
    middle, reach = 50.0, 46.0
    x = np.linspace(0, width, len(sound.low))
    upper = " ".join(
        f"{a:.1f},{middle - reach * h / most:.1f}" for a, h in zip(x, sound.high, strict=True)
    )
    lower = " ".join(
        f"{a:.1f},{middle - reach * v / most:.1f}"
        for a, v in zip(x[::-1], sound.low[::-1], strict=True)
    )
    scale = width / max(sound.duration_s, 1e-6)
    speech = "".join(
        f'<rect x="{start * scale:.1f}" y="0" width="{max(1.0, (end - start) * scale):.1f}" '
        f'height="100" fill="var(--accent)" opacity=".18"><title>{html.escape(said)}</title></rect>'
        for start, end, said in parts
    )
    words = f"waveform of {sound.duration_s:.1f} s, {len(parts)} stretches of speech marked"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f'{speech}<polygon points="{upper} {lower}" fill="var(--soft)" pointer-events="none"/>'
        f"{_axis(sound.duration_s, scale, height)}</svg>"
    )


def timeline(windows: Sequence[WindowAnswer]) -> str:
    """One column per window, one row per emotion and trait; darker is higher."""
    names = [*EMOTIONS] * any(w.emotion for w in windows)
    names += [*TRAITS] * any(w.traits for w in windows)
    left, row, width = 150, 22, 960
    height = row * len(names) + 34
    end = max(w.end_s for w in windows) or 1.0
    scale = (width - left) / end
    cells = []
    for line, name in enumerate(names):
        y = line * row
        cells.append(
            f'<text x="0" y="{y + 15}" font-size="14" fill="var(--ink)">{words_of(name)}</text>'
        )
        for number, window in enumerate(windows):
            value = _value(window, name)
            stop = windows[number + 1].start_s if number + 1 < len(windows) else window.end_s
            label = f"{words_of(name)}, {window.start_s:.0f} to {window.end_s:.0f} s: "
            label += "nothing to go by" if value is None else f"{value:.3f}"
            shade = 0.04 if value is None else 0.06 + 0.94 * value
            cells.append(
                f'<rect x="{left + window.start_s * scale:.1f}" y="{y + 1}" '
                f'width="{max(1.0, (stop - window.start_s) * scale - 1):.1f}" height="{row - 2}" '
                f'fill="var(--accent)" opacity="{shade:.2f}">'
                f"<title>{label}</title></rect>"
            )
    ticks = _axis(end, scale, height, offset=left)
    words = f"timeline of {len(windows)} windows over {end:.0f} s"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f"{''.join(cells)}{ticks}</svg>"
    )


def picture_url(picture: np.ndarray) -> str:
    """RGB uint8 `[h, w, 3]` as the address of a JPEG."""
    image = require("PIL.Image", extra="mepr-fusion[app]")
    with io.BytesIO() as file:
        image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _axis(end: float, scale: float, height: int, *, offset: int = 0) -> str:
    """Times below a drawing, about eight of them."""
    steps = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
    step = next((s for s in steps if end / s <= 8), 7200)
    marks = []
    for number in range(int(end / step) + 1):
        time = number * step
        x = offset + time * scale
        last = time > 0.96 * end
        anchor = "start" if number == 0 else "end" if last else "middle"
        marks.append(
            f'<text x="{x:.1f}" y="{height - 6}" font-size="14" text-anchor="{anchor}" '
            f'fill="var(--soft)">{time:g} s</text>'
        )
    return "".join(marks)


def _value(window: WindowAnswer, name: str) -> float | None:
    if name in EMOTIONS:
        return window.emotion.probabilities[name] if window.emotion else None
    return window.traits[name].score if window.traits else None
