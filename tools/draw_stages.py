"""Draws the figure of the three stages that the README shows.

python tools/draw_stages.py [FILE.png]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TARGET = Path(__file__).parent / "figures" / "stages.png"
MODALITIES = ("audio", "text", "face", "body", "scene")
INK, MUTED, PAPER = "#1f2933", "#616e7c", "#ffffff"
FROZEN, BLUE, ORANGE, GREEN = "#e4e7eb", "#d6e6f7", "#fbe3cf", "#d9eed9"
WIDTH, HEIGHT = 15.0, 6.6

Point = tuple[float, float]


def draw(path: Path) -> Path:
    """Write the figure as a PNG of about 1500 x 660 pixels."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.axis("off")
    _stage1(axes)
    _stage2(axes)
    _export(axes)
    _stage3(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the library's version in it the file changes only when the picture does.
    figure.savefig(path, metadata={"Software": None})
    return path


def _stage1(axes: Axes) -> None:
    _panel(
        axes,
        0.2,
        4.9,
        "Stage 1",
        "one modality, one task: two models",
        "a package per modality: mepr-text, …",
    )
    for y, corpus, color, task in (
        (3.75, "clips with\nemotion\nlabels", BLUE, "emotion"),
        (1.75, "clips with\ntrait\nlabels", ORANGE, "traits"),
    ):
        _box(axes, (0.4, y), (1.15, 0.9), corpus, PAPER)
        _box(axes, (1.85, y), (1.15, 0.9), "pretrained\nencoder", FROZEN)
        _box(axes, (3.3, y), (1.6, 0.9), f"Mamba or\nTransformer,\n{task} head", color)
        _arrow(axes, (1.55, y + 0.45), (1.85, y + 0.45))
        _arrow(axes, (3.0, y + 0.45), (3.3, y + 0.45))
        _arrow(axes, (4.9, y + 0.45), (5.55, y + 0.45))


def _stage2(axes: Axes) -> None:
    _panel(axes, 5.35, 3.35, "Stage 2", "one modality, both tasks", "the same package")
    _box(axes, (6.95, 1.75), (0.5, 2.9), "cross-attention\nboth ways", PAPER, upright=True)
    for y, color, task in ((3.75, BLUE, "emotion"), (1.75, ORANGE, "traits")):
        _box(axes, (5.55, y), (1.1, 0.9), f"{task}\nmodel,\nfrozen", FROZEN, edge=color)
        _arrow(axes, (6.65, y + 0.45), (6.95, y + 0.45))
        _arrow(axes, (7.45, y + 0.45), (7.75, y + 0.45))
        _box(axes, (7.75, y), (0.75, 0.9), f"{task}\nhead", color)
        _arrow(axes, (8.5, y + 0.45), (9.1, y + 0.45))


def _export(axes: Axes) -> None:
    _text(axes, (9.75, 5.88), "Exports", size=15, weight="bold")
    _text(axes, (9.75, 5.48), "files on disk", size=11)
    _box(axes, (9.1, 1.2), (1.3, 3.95), "", PAPER)
    for index, name in enumerate(MODALITIES):
        _box(axes, (9.22, 4.47 - 0.77 * index), (1.06, 0.56), name, FROZEN)
    _arrow(axes, (10.4, 3.2), (11.15, 3.2))
    _text(axes, (9.75, 0.68), "any may be\nmissing", color=MUTED)


def _stage3(axes: Axes) -> None:
    _panel(axes, 10.95, 3.85, "Stage 3", "all modalities, both tasks", "mepr-fusion")
    _box(axes, (11.15, 2.05), (0.5, 2.3), "projector, adapter", GREEN, upright=True)
    _box(axes, (11.9, 2.05), (0.75, 2.3), "graph attention\nover modalities", GREEN, upright=True)
    _arrow(axes, (11.65, 3.2), (11.9, 3.2))
    for y, color, task, result in (
        (3.75, BLUE, "emotion", "7 emotions"),
        (1.75, ORANGE, "traits", "5 traits"),
    ):
        _box(axes, (13.1, y), (1.5, 0.9), f"{task} query,\nguide bank", color)
        _arrow(axes, (12.65, 3.2), (13.1, y + 0.45))
        _text(axes, (13.85, y - 0.25), result, size=11, weight="bold")


def _panel(axes: Axes, x: float, width: float, title: str, what: str, who: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, 0.35),
            width,
            5.9,
            boxstyle="round,pad=0,rounding_size=0.18",
            facecolor="#f7f9fb",
            edgecolor="#cbd2d9",
            linewidth=1.2,
            zorder=0,
        )
    )
    _text(axes, (x + width / 2, 5.88), title, size=15, weight="bold")
    _text(axes, (x + width / 2, 5.48), what, size=11)
    _text(axes, (x + width / 2, 0.68), who, color=MUTED, size=10.5)


def _box(
    axes: Axes,
    corner: Point,
    size: Point,
    text: str,
    color: str,
    *,
    edge: str = INK,
    upright: bool = False,
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=color,
            edgecolor=MUTED if edge == INK else edge,
            linewidth=1.2 if edge == INK else 3,
        )
    )
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    _text(axes, middle, text, rotation=90 if upright else 0)


def _text(
    axes: Axes,
    center: Point,
    text: str,
    *,
    color: str = INK,
    size: float = 10.5,
    weight: str = "normal",
    rotation: float = 0,
) -> None:
    axes.text(
        *center,
        text,
        ha="center",
        va="center",
        size=size,
        color=color,
        weight=weight,
        rotation=rotation,
    )


def _arrow(axes: Axes, start: Point, end: Point) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            linewidth=1.4,
            color=INK,
            shrinkA=0,
            shrinkB=1,
            zorder=3,
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw to the given file, or to where the README looks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", default=TARGET, help=f"default: {TARGET.name}"
    )
    print(draw(parser.parse_args(argv).file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
