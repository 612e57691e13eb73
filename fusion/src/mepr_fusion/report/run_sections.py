"""The sections of a report that come from the run itself: training, data, provenance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.report import figures
from mepr_fusion.report.blocks import Block, Command, Listing, Paragraph, Section, Table
from mepr_fusion.report.embedding_baselines import LinearModel
from mepr_fusion.report.reproduce import reproduce_command
from mepr_fusion.report.score_sections import coverage_rows
from mepr_shared.contract.files import sha256_file
from mepr_shared.train.runs import Run

# Name of the figure, columns of steps/*.parquet (what is in parentheses is the line's name), axis,
# caption, logarithmic.
STEPS = (
    ("loss", r"loss/(.+)", "loss", "Every term of the objective, before it is weighted.", False),
    ("weight", r"weight/(.+)", "weight", "Weights of the terms over time.", False),
    (
        "gradient_norm",
        r"gradient_norm/(.+)",
        "gradient norm",
        "Gradient of each term at the shared weight.",
        True,
    ),
    (
        "pseudo",
        r"pseudo/(.+_(?:rate|agreement))",
        "share",
        "Pseudo-labels: the share of samples that get one, and how many of them are right where a "
        "label was set aside.",
        False,
    ),
    (
        "pseudo_classes",
        r"pseudo/positive_(.+)",
        "share",
        "Pseudo-labels: how often each emotion is said to be there.",
        False,
    ),
    (
        "pseudo_errors",
        r"pseudo/(.+_error)",
        "error",
        "Pseudo-labels of traits: their distance from labels that were set aside.",
        False,
    ),
)


def run_sections(evaluation: Evaluation, linear: LinearModel) -> list[Section]:
    """Training, calibration, ablation, coverage, provenance; what was not made is left out."""
    run = evaluation.run
    training: list[Block] = [figures.draw_curves(run.log)]
    columns = read_steps(run)
    for name, pattern, axis, caption, log in STEPS:
        lines = {
            found[1]: values
            for column, values in columns.items()
            if (found := re.fullmatch(pattern, column))
        }
        picture = figures.draw_steps(name, lines, axis, caption, log=log)
        training += [picture] if picture else []
    sections = [Section("Training", training)]
    if calibration := list(_calibration(run)):
        sections.append(Section("Calibration", calibration))
    if ablation := list(_ablation(run)):
        sections.append(Section("Ablation", ablation))
    return [
        *sections,
        Section("Coverage", list(_coverage(run.metrics))),
        Section("Where this comes from", list(_provenance(evaluation, linear))),
        Section("Repeat it", [Command(reproduce_command(run))]),
        Section(
            "Use it responsibly",
            [
                Paragraph(
                    "The traits are apparent personality: how strangers judged a person, not a "
                    "diagnosis. Emotion inference at work and in education is prohibited in the "
                    "European Union since February 2025."
                )
            ],
        ),
    ]


def read_steps(run: Run) -> dict[str, np.ndarray]:
    """Column -> `[steps]` of `steps/*.parquet`, NaN where an epoch lacks the column."""
    tables = [pq.read_table(path) for path in sorted((run.path / "steps").glob("*.parquet"))]
    names = dict.fromkeys(name for table in tables for name in table.column_names if "/" in name)
    found: dict[str, np.ndarray] = {}
    for name in names:
        parts = [
            np.array(table[name].to_pylist(), dtype=float)
            if name in table.column_names
            else np.full(len(table), np.nan)
            for table in tables
        ]
        found[name] = np.concatenate(parts)
    return found


def _optional_json(run: Run, name: str) -> dict[str, Any]:
    try:
        content = json.loads((run.path / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _calibration(run: Run) -> Iterator[Block]:
    for name, found in _curves(_optional_json(run, "calibration.json")):
        if picture := figures.draw_calibration(name, found):
            yield picture


def _curves(found: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """`("films emotion after", {"bins", "ece", ...})` of every curve; not those of each class."""
    if isinstance(found.get("bins"), list):
        yield " ".join(part for part in path if part != "overall"), found
        return
    for name, inner in found.items():
        if isinstance(inner, Mapping) and name != "classes":
            yield from _curves(inner, (*path, name))


def _ablation(run: Run) -> Iterator[Block]:
    """The table of `mepr-fusion ablate`, where its `ablation.json` was put beside the run."""
    content = _optional_json(run, "ablation.json")
    variants = content.get("variants") or []
    if not variants:
        return
    columns = list(variants[0].get("scores", {}))
    rows = []
    for record in variants:
        cells = [record["variant"], str(len(record.get("seeds", []))), _spread(record["score"])]
        for column in columns:
            cells.append(_spread((record.get("scores") or {}).get(column)))
            cells.append(_less_full((record.get("differences") or {}).get(column)))
        rows.append(cells)
    head = [name for column in columns for name in (column, f"{column} less full")]
    caption = f"Without a modality or a block, {content.get('split', 'val')} split"
    yield Table(caption, ["variant", "seeds", "selection score", *head], rows)
    yield Paragraph(
        "Mean and standard deviation over seeds; differences with paired 95 % intervals. "
        "*: different from 0 at the 5 % level after Holm's correction.",
        "note",
    )


def _spread(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("mean") is None:
        return "-"
    spread = "" if found.get("std") is None else f" \u00b1 {found['std']:.4f}"
    return f"{found['mean']:.4f}{spread}"


def _less_full(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("difference") is None:
        return "-"
    bounds = found.get("ci")
    interval = f" [{bounds[0]:+.4f}, {bounds[1]:+.4f}]" if bounds else ""
    return f"{found['difference']:+.4f}{'*' if found.get('significant') else ''}{interval}"


def _coverage(metrics: Mapping[str, Any]) -> Iterator[Block]:
    yield figures.draw_coverage(metrics["coverage"])
    yield Table(
        "Samples of each corpus, by what the modality's export says of them",
        ["corpus", "split", "modality", "samples", "by status"],
        coverage_rows(metrics["coverage"]),
        labels=5,
    )
    yield Paragraph(dropped_text(metrics["dropped"]))
    if metrics["warnings"]:
        yield Listing([f"Warning: {warning}" for warning in metrics["warnings"]])


def dropped_text(dropped: Sequence[Mapping[str, Any]]) -> str:
    """What was left out, and why."""
    if not dropped:
        return "No sample was dropped."
    total = sum(entry["samples"] for entry in dropped)
    detail = "; ".join(
        f"{entry['corpus']} {entry['split'] or '-'}: {entry['samples']} {entry['reason']}"
        for entry in dropped
    )
    return f"Dropped, because no modality has data: {total} ({detail})."


def _provenance(evaluation: Evaluation, linear: LinearModel) -> Iterator[Block]:
    run = evaluation.run
    rows = []
    for (modality, corpus), export in sorted(evaluation.inputs.exports.items()):
        manifest = export.manifest
        encoder = manifest.model.encoder
        rows.append(
            [
                modality,
                corpus,
                export.export_id,
                manifest.stage,
                manifest.train_rows.replace("_", " "),
                "-" if encoder is None else encoder.id,
                (manifest.model.weights_sha256 or "-")[:12],
            ]
        )
    head = ["modality", "corpus", "export", "stage", "training rows", "encoder", "model weights"]
    yield Table("Exports", head, rows, labels=7, code=frozenset({2, 6}))
    yield Table(
        "Corpora",
        ["corpus", "version", "licence", "emotion labels", "samples", "labels"],
        [
            [
                corpus.name,
                corpus.meta.version,
                corpus.meta.licence or "not stated",
                corpus.meta.scale.kind.replace("_", " "),
                corpus.hashes.samples_sha256[:12],
                corpus.hashes.labels_sha256[:12],
            ]
            for corpus in evaluation.inputs.corpora
        ],
        labels=6,
        code=frozenset({4, 5}),
    )
    versions = ", ".join(f"{name} {value}" for name, value in run.config["versions"].items())
    chosen = ", ".join(
        f"{name} {choice['penalty']:g} on {choice['rows']} rows"
        for name, choice in linear.record["chosen"].items()
    )
    yield Listing(
        [
            f"Weights of this run: SHA-256 {sha256_file(run.weights_path)}",
            f"Versions: {versions}",
            f"Linear baseline, penalties chosen on validation: {chosen or 'nothing to fit'}",
        ]
    )
