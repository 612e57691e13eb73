"""Figures of a run as PNG files: curves, confusion matrix, trait scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mepr_shared.labels import TRAITS


def save_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Training loss and validation scores over epochs; the chosen epoch is marked."""
    epochs = [record["epoch"] for record in history]
    best = max(history, key=lambda record: record["val"]["score"])["epoch"]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    trained = [record for record in history if record["train"]]
    losses.plot(
        [record["epoch"] for record in trained],
        [record["train"]["loss"] for record in trained],
        marker=".",
    )
    losses.set(title="training loss", xlabel="epoch")
    for name in history[0]["val"]:
        values = [record["val"].get(name) for record in history]
        scores.plot(epochs, values, marker=".", label=name, lw=2.5 if name == "score" else 1)
    scores.axvline(best, color="grey", ls=":", label=f"chosen: epoch {best}")
    scores.set(title="validation", xlabel="epoch")
    scores.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


def save_confusion(confusion: Sequence[Sequence[float]], names: Sequence[str], path: Path) -> None:
    """A confusion matrix: counts as text, colour by the share of the true class (recall)."""
    counts = np.asarray(confusion, dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, size=8)
    figure.colorbar(image, label="share of the true class")
    figure.savefig(path, dpi=110)


def save_trait_scatter(targets: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Predicted against labelled score per trait, `[N, 5]` each; the diagonal is perfection."""
    figure = Figure(figsize=(13, 3), layout="constrained")
    for index, axes in enumerate(figure.subplots(1, len(TRAITS), sharex=True, sharey=True)):
        axes.scatter(targets[:, index], scores[:, index], s=4, alpha=0.3, lw=0)
        axes.plot([0, 1], [0, 1], color="grey", lw=1)
        axes.set(title=TRAITS[index].replace("_", " "), xlabel="label", xlim=(0, 1), ylim=(0, 1))
        if index == 0:
            axes.set(ylabel="prediction")
    figure.savefig(path, dpi=110)
