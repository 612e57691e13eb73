"""`mepr-fusion matrix`: the cross-corpus matrix as JSON, Markdown and a picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mepr_fusion.given import given_settings, given_source
from mepr_fusion.settings import FusionSettings
from mepr_fusion.studies.ablate import keep_plan
from mepr_fusion.studies.ablate_verb import report_job
from mepr_fusion.studies.jobs import Job, Source, run_jobs
from mepr_fusion.studies.matrix import (
    ALL,
    HEADLINE,
    TrainAndTransfer,
    matrix_cells,
    only,
    trainable,
)
from mepr_shared import config
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError
from mepr_shared.train.runs import replace_file

RULES = """\
Rows: what was trained on; columns: what was tested. A model is given the modalities that both
corpora have. `constant` is the score, on the same samples, of the constant answer of the test
corpus's own training split. Intervals: 95 %, bootstrap over sources of the test corpus.

Emotions: on a corpus it was trained on, and on one whose labels are of the same kind, a model
decides as it does at home. Trained on several labels per sample and tested on one: the emotion
furthest, in log-odds, above its threshold. Trained on one label per sample and tested on several:
calibrated softmax probability against a threshold per emotion. All thresholds are chosen on the
validation split of the training corpus."""


def run_matrix(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, then the matrix; 1 where a training failed."""
    settings, _ = given_settings(arguments)
    source = given_source(arguments)
    inputs = source.open()
    jobs = jobs_of(inputs.corpora, source, settings, arguments.run, arguments.split)
    if not jobs:
        raise DataError("no corpus has labelled training and validation samples")
    plan = {"kind": "matrix", "source": source.described(), "settings": config.to_dict(settings)}
    keep_plan(arguments.run, plan, resume=arguments.resume)
    failed = run_jobs(
        TrainAndTransfer(source),
        list(jobs.values()),
        workers=arguments.workers,
        devices=[part.strip() for part in arguments.device.split(",")],
        on_done=report_job(len(jobs)),
    )
    cells = matrix_cells(inputs, jobs, failed, arguments.split)
    write_matrix(arguments.run, cells, arguments.split)
    if arguments.json:
        for entry in cells:
            emit_json(entry)
    else:
        for task in HEADLINE:
            rows = table(cells, task)
            emit(arguments, rows, list(rows[0]), title=f"{task}, {arguments.split} split")
        for line in reasons(cells):
            say(line)
    say(f"matrix: {arguments.run / 'matrix.md'}")
    return 1 if failed else 0


def jobs_of(
    corpora: Sequence[Corpus], source: Source, settings: FusionSettings, folder: Path, split: str
) -> dict[str, Job]:
    """Training row -> its job: every corpus that can be trained on, and all of them together."""
    splits = tuple(dict.fromkeys(("val", split)))
    values = config.to_dict(settings)
    found = {
        corpus.name: Job(
            corpus.name, only(source, corpus), None, values, folder / "runs" / corpus.name, splits
        )
        for corpus in corpora
        if trainable(corpus)
    }
    if len(corpora) > 1 and found:
        # A plus cannot be part of a corpus's name on every system, but it can of a folder's.
        found[ALL] = Job("all corpora", source, None, values, folder / "runs" / "+all", splits)
    return found


def write_matrix(folder: Path, cells: Sequence[Mapping[str, Any]], split: str) -> None:
    """`matrix.json`, `matrix.md` and `matrix.png`."""
    text = json.dumps({"split": split, "cells": cells}, indent=2, ensure_ascii=False) + "\n"
    _write(folder / "matrix.json", text)
    lines = ["# Cross-corpus matrix", "", f"Scores on the {split} split.", "", RULES, ""]
    for task in HEADLINE:
        rows = table(cells, task)
        lines += [f"## {task.capitalize()}", "", "| " + " | ".join(rows[0]) + " |"]
        lines += ["|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(row.values()) + " |" for row in rows] + [""]
    lines += ["![scores by training and test corpus](matrix.png)", ""]
    lines += [f"- {line}" for line in reasons(cells)]
    _write(folder / "matrix.md", "\n".join(lines) + "\n")
    figure = draw(cells)
    replace_file(folder / "matrix.png", lambda target: figure.savefig(target, format="png"))


def table(cells: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, str]]:
    """One row per training corpus, one column per test corpus."""
    rows: dict[str, dict[str, str]] = {}
    for entry in cells:
        if entry["task"] == task:
            row = rows.setdefault(entry["train"], {"trained on": entry["train"]})
            row[entry["test"]] = shown(entry)
    return list(rows.values())


def shown(entry: Mapping[str, Any]) -> str:
    """A cell in words: score, interval, constant, samples."""
    if entry.get("score") is None:
        return "-"
    bounds = entry["ci"]
    interval = f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
    constant = "" if entry["constant"] is None else f", constant {entry['constant']:.4f}"
    return f"{entry['score_name']} {entry['score']:.4f}{interval}{constant} (n={entry['n']})"


def reasons(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a cell is empty, and how many samples one leaves out."""
    lines = []
    for entry in cells:
        where = f"{entry['train']} -> {entry['test']}, {entry['task']}"
        if entry["reason"]:
            lines.append(f"{where}: {entry['reason']}")
        elif entry["unanswered"]:
            lines.append(f"{where}: {entry['unanswered']} labelled samples have no shared modality")
    return lines


def draw(cells: Sequence[Mapping[str, Any]]) -> Figure:
    """Both tasks side by side; the colour is the share of the way from constant to perfect."""
    trains = list(dict.fromkeys(entry["train"] for entry in cells))
    tests = list(dict.fromkeys(entry["test"] for entry in cells))
    figure = Figure(figsize=(2 + 2.6 * len(tests), 1.5 + 0.7 * len(trains)), dpi=110)
    for axes, task in zip(figure.subplots(1, len(HEADLINE)), HEADLINE, strict=True):
        colour = np.full((len(trains), len(tests)), np.nan)
        axes.set_title(task)
        axes.set_xticks(range(len(tests)), tests)
        axes.set_yticks(range(len(trains)), trains)
        axes.set_xlabel("tested on")
        axes.set_ylabel("trained on")
        for entry in cells:
            if entry["task"] != task:
                continue
            row, column = trains.index(entry["train"]), tests.index(entry["test"])
            text = "-"
            if entry.get("score") is not None:
                constant = entry["constant"] or 0.0
                colour[row, column] = (entry["score"] - constant) / max(1 - constant, 1e-9)
                text = f"{entry['score_name']} {entry['score']:.3f}\nn={entry['n']}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
        axes.imshow(colour, cmap="RdYlGn", vmin=-1, vmax=1, aspect="auto")
    figure.tight_layout()
    return figure


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda target: target.write_text(text, "utf-8"))
