"""Figures of an analysis: correlation matrices, guide map, contributions, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mepr_fusion.analyze.relations import Relations
from mepr_shared.labels import EMOTIONS, TRAITS

# Blue and red of one lightness: sign is told apart by people of any colour vision.
SIGNED = "RdBu_r"
TITLES = {
    "predictions": "the model's answers",
    "pseudo_labels": "pseudo-labels",
    "rectified": "labels and predictions",
}


def save_relations(found: Mapping[str, Relations], path: Path) -> str:
    """One matrix per answer, significant cells bold; gives the alt text."""
    figure = Figure(figsize=(1.2 + 3.4 * len(found), 4.2), layout="constrained")
    limit = max(0.1, *(np.nanmax(np.abs(value.correlation)) for value in found.values()))
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, value) in zip(panels, found.items(), strict=True):
        image = axes.imshow(value.correlation, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(TRAITS)), _plain(TRAITS), rotation=40, ha="right")
        axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
        title = f"{TITLES.get(name, name)}, n <= {value.n.max()}"
        axes.set_title(title, fontsize=10)
        for place, r in np.ndenumerate(value.correlation):
            weight = "bold" if value.significant[place] else "normal"
            colour = "white" if abs(r) > 0.7 * limit else "black"
            text = "" if np.isnan(r) else f"{r:+.2f}"
            axes.text(
                place[1], place[0], text, ha="center", va="center", weight=weight, color=colour
            )
    figure.colorbar(image, ax=panels.tolist(), label="correlation (bold: significant)")
    figure.savefig(path, dpi=110)
    return "Correlations of seven emotions and five traits: " + "; ".join(
        f"{name.replace('_', ' ')}: {_extremes(value)}" for name, value in found.items()
    )


def save_guide_map(found: Mapping[str, Any], path: Path) -> str:
    """Cosines of the guide vectors; gives the alt text."""
    names, cosines = _plain(found["names"]), np.array(found["similarity"])
    figure = Figure(figsize=(2.6 + 0.42 * len(names), 2.2 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(cosines, cmap=SIGNED, vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="cosine")
    figure.savefig(path, dpi=110)
    off = np.where(np.eye(len(names), dtype=bool), np.nan, cosines)
    high = np.unravel_index(np.nanargmax(off), off.shape)
    low = np.unravel_index(np.nanargmin(off), off.shape)
    return (
        f"Cosines of {len(names)} guide vectors; most alike {names[high[0]]} and {names[high[1]]} "
        f"({off[high]:+.2f}), most opposed {names[low[0]]} and {names[low[1]]} ({off[low]:+.2f})."
    )


def save_contributions(records: Sequence[Mapping[str, Any]], task: str, path: Path) -> str:
    """Signed mean (colour) and mean size (number) per modality and output; gives the alt text."""
    own = [record for record in records if record["task"] == task]
    outputs = list(dict.fromkeys(record["output"] for record in own))
    modalities = list(dict.fromkeys(record["modality"] for record in own))
    signed, size = np.full((2, len(modalities), len(outputs)), np.nan)
    for record in own:
        place = modalities.index(record["modality"]), outputs.index(record["output"])
        signed[place], size[place] = record["mean_signed"], record["mean_size"]
    limit = max(1e-6, float(np.nanmax(np.abs(signed))))
    figure = Figure(
        figsize=(2.6 + 0.85 * len(outputs), 1.6 + 0.5 * len(modalities)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(signed, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(outputs)), _plain(outputs), rotation=40, ha="right")
    axes.set_yticks(range(len(modalities)), modalities)
    for (row, column), value in np.ndenumerate(size):
        colour = "white" if abs(signed[row, column]) > 0.7 * limit else "black"
        text = "" if np.isnan(value) else f"{value:.3f}"
        axes.text(column, row, text, ha="center", va="center", size=8, color=colour)
    axes.set_title("mean size of the contribution (number), signed mean (colour)", fontsize=9)
    figure.colorbar(image, label="signed mean")
    figure.savefig(path, dpi=110)
    total = {r["modality"]: r["mean_size"] for r in own if r["output"] == "all"}
    ranked = sorted(total, key=total.__getitem__, reverse=True)
    return f"Mean size of contributions to {task}: " + ", ".join(
        f"{name} {total[name]:.3f}" for name in ranked
    )


def save_reliability(found: Mapping[str, Any], corpus: str, path: Path) -> str:
    """Reliability curves before and after temperature scaling; gives the alt text."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    overall, classes = figure.subplots(1, 2)
    for name in ("before", "after"):
        bins = found[name]["overall"]["bins"]
        label = f"{name}: ECE {found[name]['overall']['ece']:.3f}"
        overall.plot(*_points(bins), marker="o", ms=4, label=label)
    overall.set_title(found["after"]["overall"]["of"], fontsize=10)
    for name, entry in found["after"]["classes"].items():
        if entry["positives"]:
            classes.plot(*_points(entry["bins"]), marker=".", lw=1, label=name)
    classes.set_title("per emotion, after scaling", fontsize=10)
    for axes in (overall, classes):
        axes.plot([0, 1], [0, 1], color="grey", lw=1, ls=":")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="how often it was so")
        axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
    error = [found[name]["overall"] for name in ("before", "after")]
    return (
        f"Reliability on {corpus}, {error[0]['of']}: expected calibration error "
        f"{error[0]['ece']:.3f} before and {error[1]['ece']:.3f} after temperature scaling; a "
        f"calibrated model would show {error[1]['ece_if_calibrated']:.3f}."
    )


def _points(bins: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    return [entry["probability"] for entry in bins], [entry["frequency"] for entry in bins]


def _extremes(value: Relations) -> str:
    if not value.significant.any():
        return "none significant"
    r = np.where(value.significant, value.correlation, np.nan)
    parts = []
    for find in (np.nanargmax, np.nanargmin):
        emotion, trait = np.unravel_index(find(r), r.shape)
        parts.append(f"{EMOTIONS[emotion]} and {_plain(TRAITS)[trait]} {r[emotion, trait]:+.2f}")
    return f"{int(value.significant.sum())} significant, from " + " to ".join(parts)


def _plain(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]
