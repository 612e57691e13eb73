"""The figures of a report, as PNG with a sentence that says what they show.

Colours are those of Okabe and Ito (2008), which all forms of colour vision tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mepr_fusion.report.blocks import Picture
from mepr_shared.labels import EMOTIONS, TRAITS

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#767676"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, "#000000", "#8C6D1F")
DPI = 150
POINTS = 400  # of a curve: more than a figure has pixels for says nothing

SCORES = {
    "mwacc": "mWACC (emotion)",
    "uar": "UAR (emotion)",
    "ccc": "CCC (traits)",
    "macc": "mACC (traits)",
}


def draw_scores(
    record: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], scores: Mapping[str, str]
) -> Picture:
    """Every row's score with its interval, one panel per score.

    Args:
        record: of one corpus and split.
        rows: name -> its `{"emotion": ..., "traits": ...}`, stage 3 first.
        scores: task -> the score shown.
    """
    names = list(rows)
    figure = Figure(figsize=(4.6 * len(scores), 0.9 + 0.34 * len(names)), layout="constrained")
    said = []
    panels = np.atleast_1d(figure.subplots(1, len(scores), sharey=True))
    for axes, (task, score) in zip(panels, scores.items(), strict=True):
        short = SCORES[score].partition(" (")[0]
        for place, name in enumerate(names):
            found = rows[name].get(task) or {}
            if found.get(score) is None:
                continue
            interval = (found.get("ci") or {}).get(score)
            colour = RED if place == 0 else GREY if name == "constant" else BLUE
            if interval:
                axes.plot(interval, [place, place], color=colour, lw=2, solid_capstyle="round")
            axes.plot(found[score], place, marker="o", ms=7, color=colour)
            said.append(f"{name} {short} {found[score]:.3f}")
        axes.axvline((rows[names[0]].get(task) or {})[score], color=RED, lw=0.8, ls=":")
        axes.set(xlabel=SCORES[score] + ", 95 % interval")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        _bare(axes, grid="x")
    where = f"{record['corpus']}-{record['split']}"
    alt = f"Scores on {record['corpus']} {record['split']}: " + "; ".join(said)
    caption = (
        f"{record['corpus']}, {record['split']}: stage 3 (top) beside what it must beat; "
        "a dot is a score, its line the 95 % interval."
    )
    return Picture(f"scores-{where}", _png(figure), alt, caption)


def draw_curves(log: Sequence[Mapping[str, Any]]) -> Picture:
    """Training loss and validation scores over epochs; the chosen epoch is marked."""
    best = max(log, key=lambda record: record["val"]["score"])
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    trained = [record for record in log if (record["train"] or {}).get("loss") is not None]
    losses.plot(
        [record["epoch"] for record in trained],
        [record["train"]["loss"] for record in trained],
        marker="o",
        ms=3,
        color=BLUE,
    )
    losses.set(title="training loss", xlabel="epoch", ylabel="loss")
    names = list(log[0]["val"])
    # With one corpus its name before every score only takes space.
    one = len({name.partition("/")[0] for name in names if "/" in name}) == 1
    for name, colour in zip(names, _colours(len(names)), strict=True):
        values = [record["val"].get(name) for record in log]
        wide = name == "score"
        scores.plot(
            [record["epoch"] for record in log],
            [np.nan if value is None else value for value in values],
            marker="o",
            ms=3,
            lw=2.4 if wide else 1,
            color="black" if wide else colour,
            label=name.rpartition("/")[2] if one else name,
        )
    scores.axvline(best["epoch"], color=GREY, ls=":", label=f"chosen: epoch {best['epoch']}")
    scores.set(title="validation", xlabel="epoch", ylabel="score")
    scores.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    for axes in (losses, scores):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _bare(axes, grid="y")
    first, last = log[0]["val"]["score"], best["val"]["score"]
    alt = (
        f"Training loss and validation scores over {log[-1]['epoch']} epochs. The selection score "
        f"starts at {first:.3f} and is best at epoch {best['epoch']} with {last:.3f}."
    )
    return Picture("curves", _png(figure), alt, "Training loss, and validation scores by epoch.")


def draw_coverage(coverage: Sequence[Mapping[str, Any]]) -> Picture:
    """Share of samples with data, per corpus and modality."""
    corpora = sorted({entry["corpus"] for entry in coverage})
    modalities = sorted({entry["modality"] for entry in coverage})
    share = np.full((len(corpora), len(modalities)), np.nan)
    for (row, column), _ in np.ndenumerate(share):
        key = (corpora[row], modalities[column])
        here = [e for e in coverage if (e["corpus"], e["modality"]) == key]
        if total := sum(e["samples"] for e in here):
            good = sum(e["samples"] for e in here if e["status"] in ("ok", "partial"))
            share[row, column] = good / total
    size = (2.4 + 1.1 * len(modalities), 1.3 + 0.5 * len(corpora))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(modalities)), modalities)
    axes.set_yticks(range(len(corpora)), corpora)
    axes.set_title("share of samples with data", fontsize="medium")
    said = []
    for (row, column), value in np.ndenumerate(share):
        label = "none" if np.isnan(value) else f"{value:.0%}"
        axes.text(column, row, label, ha="center", va="center", color=_on(value))
        said.append(f"{corpora[row]} {modalities[column]} {label}")
    alt = "Share of samples with data: " + ", ".join(said)
    return Picture("coverage", _png(figure), alt, "How much of each corpus each modality covers.")


def draw_confusion(record: Mapping[str, Any]) -> Picture:
    """Counts as text, colour by the share of the true class."""
    counts = np.asarray(record["emotion"]["confusion"], dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=45, ha="right")
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(counts):
        colour = _on(share[row, column])
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, size=8)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    place = f"{record['corpus']} {record['split']}"
    recalls = [
        f"{name} {share[i, i]:.0%} of {counts[i].sum():.0f}"
        for i, name in enumerate(EMOTIONS)
        if counts[i].sum()
    ]
    alt = f"Confusion matrix on {place}. Rightly recognised: " + ", ".join(recalls)
    return Picture(
        f"confusion-{place.replace(' ', '-')}",
        _png(figure),
        alt,
        f"{place}: true against predicted emotion, counts of clips.",
    )


def draw_traits(record: Mapping[str, Any], targets: np.ndarray, scores: np.ndarray) -> Picture:
    """Predicted against labelled score per trait, `[n, 5]` each; the diagonal is perfection."""
    known = np.isfinite(targets).all(axis=1) & np.isfinite(scores).all(axis=1)
    figure = Figure(figsize=(11, 2.7), layout="constrained")
    table = record["traits"]["per_trait"]
    for index, axes in enumerate(figure.subplots(1, len(TRAITS), sharex=True, sharey=True)):
        axes.plot([0, 1], [0, 1], color=GREY, lw=1)
        alpha = 0.5 if known.sum() < 500 else 0.15
        axes.scatter(
            targets[known, index], scores[known, index], s=9, alpha=alpha, lw=0, color=BLUE
        )
        axes.set(xlabel="label", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_title(TRAITS[index].replace("_", " "), fontsize="medium")
        if index == 0:
            axes.set(ylabel="prediction")
        _bare(axes)
    place = f"{record['corpus']} {record['split']}"
    found = [
        f"{name.replace('_', ' ')} {table[name]['ccc']:.2f}"
        for name in TRAITS
        if (table.get(name) or {}).get("ccc") is not None
    ]
    alt = (
        f"Predicted against labelled trait scores on {place}, {int(known.sum())} clips. "
        "Concordance: " + ", ".join(found)
    )
    name = f"traits-{place.replace(' ', '-')}"
    return Picture(
        name,
        _png(figure),
        alt,
        f"{place}: predicted against labelled traits; on the grey line both are equal.",
    )


def draw_steps(
    figure_name: str,
    lines: Mapping[str, np.ndarray],
    axis: str,
    caption: str,
    *,
    log: bool = False,
) -> Picture | None:
    """Columns of the step log over steps; None where there is nothing to draw.

    Args:
        lines: name -> `[steps]`, NaN where a step has no value.
        axis: what the values are.
        log: logarithmic axis.
    """
    drawn = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    if not drawn:
        return None
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    said = []
    for (name, values), colour in zip(drawn.items(), _colours(len(drawn)), strict=True):
        steps, shown = _thinned(values)
        axes.plot(steps, shown, lw=1.4, color=colour, label=name)
        known = values[np.isfinite(values)]
        said.append(f"{name} from {known[0]:.3g} to {known[-1]:.3g}")
    if log:
        axes.set_yscale("log")
    else:  # from zero, or small wiggles look like large ones
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel=axis)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _bare(axes, grid="y")
    alt = f"{axis} over {len(next(iter(drawn.values())))} steps: " + "; ".join(said)
    return Picture(figure_name, _png(figure), alt, caption)


def draw_calibration(task: str, found: Mapping[str, Any]) -> Picture | None:
    """Reliability: how often a class was there, by the probability that was given for it."""
    points = [
        (
            bin_.get("confidence", bin_.get("probability")),
            bin_.get("accuracy", bin_.get("frequency")),
            bin_.get("count", bin_.get("n", 1)),
        )
        for bin_ in found.get("bins", [])
    ]
    known = [point for point in points if point[0] is not None and point[1] is not None]
    if not known:
        return None
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, lw=1)
    given, happened, counts = (np.array(values, dtype=float) for values in zip(*known, strict=True))
    axes.plot(given, happened, color=BLUE, lw=1.2)
    axes.scatter(given, happened, s=15 + 120 * counts / max(counts.max(), 1), color=BLUE)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability given", ylabel="how often it was so")
    _bare(axes)
    error = found.get("ece")
    text = "" if error is None else f" Expected calibration error {error:.3f}."
    alt = f"Reliability of the probabilities, {task}: " + ", ".join(
        f"at {p:.2f} it was so in {q:.2f}" for p, q, _ in known
    )
    caption = f"Calibration, {task}: on the grey line probabilities are what they say.{text}"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"calibration-{task}")
    return Picture(name, _png(figure), alt + "." + text, caption)


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values without gaps; long curves as means of equal stretches."""
    steps = np.flatnonzero(np.isfinite(values))
    shown = values[steps]
    if len(steps) <= POINTS:
        return steps + 1, shown
    stretches = zip(np.array_split(steps, POINTS), np.array_split(shown, POINTS), strict=True)
    middle = [(part.mean() + 1, chunk.mean()) for part, chunk in stretches]
    return np.array([x for x, _ in middle]), np.array([y for _, y in middle])


def _colours(count: int) -> list[str]:
    return [CYCLE[index % len(CYCLE)] for index in range(count)]


def _on(share: float) -> str:
    return "white" if share > 0.55 else "black"


def _bare(axes: Any, grid: str | None = None) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, color="#DDDDDD", lw=0.7)
        axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
