"""`report.md` and figures of a stage-3 run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mepr_fusion.evaluate import Evaluation
from mepr_shared.labels import EMOTIONS
from mepr_shared.train.figures import save_confusion, save_curves, save_trait_scatter
from mepr_shared.train.run_report import EMOTION_SCORES, TRAIT_SCORES, score_cell

COLUMNS = (*EMOTION_SCORES, *TRAIT_SCORES)


def write_report(evaluation: Evaluation, *, splits: Sequence[str] = ("val",)) -> Path:
    """Write `figures/*.png` and `report.md`; gives the report's path.

    Args:
        splits: which splits are scored. `test` only where somebody asks for it: looking at it
            while choosing is how results become too good.
    """
    run = evaluation.run
    records = [record for split in splits for record in evaluation.scores(split)]
    pictures = _figures(evaluation, records, run.path / "figures")
    metrics = run.metrics
    lines = [
        "# Stage 3: all modalities, both tasks",
        "",
        f"Modalities: {', '.join(evaluation.joined.modalities)}. "
        f"Corpora: {', '.join(evaluation.joined.corpora)}. "
        f"Epoch {metrics['best_epoch']} of {metrics['epochs']} chosen on validation"
        + (" (0 is the mean of the unimodal predictions)" if not metrics["best_epoch"] else "")
        + f"; seed {run.config['settings']['fit']['seed']}; "
        f"configurations tried: {metrics['configurations_tried']}.",
        "",
        *score_lines(records),
        "",
        "Intervals: 95 %, bootstrap over sources. The constant row predicts the training split's "
        "majority emotion and mean traits.",
        "",
        *difference_lines(records),
        "",
        "## Coverage",
        "",
        *coverage_lines(metrics["coverage"]),
        "",
        *_dropped_lines(metrics["dropped"]),
        *[f"Warning: {warning}\n" for warning in metrics["warnings"]],
        *pictures,
        "",
        "## Where this comes from",
        "",
        "| modality : corpus | export |",
        "|---|---|",
        *[f"| {place} | `{key}` |" for place, key in sorted(run.config["exports"].items())],
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in run.config["versions"].items()) + ".",
        "",
        "The traits are apparent personality: how strangers judged a person, not a diagnosis.",
        "",
    ]
    path = run.path / "report.md"
    path.write_text("\n".join(lines), "utf-8")
    return path


def score_rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The report's table as records: stage 3, constant, each modality that answers, their mean."""
    rows = []
    for record in records:
        answers = {"stage 3": record, "constant": record["baseline"], **_answering(record)}
        for name, tasks in answers.items():
            values = {
                score: (tasks.get(task) or {}).get(score)
                for task, scores in (("emotion", EMOTION_SCORES), ("traits", TRAIT_SCORES))
                for score in scores
            }
            head = {"corpus": record["corpus"], "split": record["split"], "n": _answered(tasks)}
            rows.append({**head, "row": name, **values})
    return rows


def score_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same table in Markdown, with intervals."""
    lines = [
        "| corpus | split | n | row | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for record in records:
        answers = {"**stage 3**": record, "constant": record["baseline"], **_answering(record)}
        for name, tasks in answers.items():
            cells = [score_cell(tasks.get("emotion"), score) for score in EMOTION_SCORES]
            cells += [score_cell(tasks.get("traits"), score) for score in TRAIT_SCORES]
            head = f"| {record['corpus']} | {record['split']} | {_answered(tasks)} | {name} | "
            lines.append(head + " | ".join(cells) + " |")
    return lines


def _answering(record: Mapping[str, Any]) -> dict[str, Any]:
    """Modalities with an answer for some labelled sample; the coverage table counts the others."""
    return {name: tasks for name, tasks in record["modalities"].items() if _answered(tasks)}


def _answered(tasks: Mapping[str, Any]) -> int:
    """Labelled samples that this row answers; a modality alone answers fewer than stage 3."""
    return max((tasks.get(task) or {}).get("n", 0) for task in ("emotion", "traits"))


def difference_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Stage 3 less the best modality alone, with paired intervals."""
    lines = []
    for record in records:
        for task, best in record["best_single"].items():
            if not best or not best["difference"]:
                continue
            parts = []
            for score in EMOTION_SCORES if task == "emotion" else TRAIT_SCORES:
                found = best["difference"].get(score)
                if isinstance(found, Mapping) and found.get("difference") is not None:
                    interval = found.get("ci")
                    bounds = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
                    parts.append(f"{score} {found['difference']:+.4f}{bounds}")
            if parts:
                lines.append(
                    f"- {record['corpus']} {record['split']}, {task}: stage 3 less the best "
                    f"modality alone ({best['modality']}): " + ", ".join(parts)
                )
    return lines


def coverage_lines(coverage: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many samples each modality has, per corpus and split; the rest by status."""
    table: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for entry in coverage:
        key = (entry["corpus"], entry["split"] or "-", entry["modality"])
        table[key][entry["status"]] = entry["samples"]
    lines = ["| corpus | split | modality | samples | by status |", "|---|---|---|---|---|"]
    for (corpus, split, modality), statuses in sorted(table.items()):
        detail = ", ".join(f"{status} {count}" for status, count in sorted(statuses.items()))
        total = sum(statuses.values())
        lines.append(f"| {corpus} | {split} | {modality} | {total} | {detail} |")
    return lines


def save_coverage(coverage: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Share of samples with data, per corpus and modality."""
    corpora = sorted({entry["corpus"] for entry in coverage})
    modalities = sorted({entry["modality"] for entry in coverage})
    share = np.full((len(corpora), len(modalities)), np.nan)
    for row, corpus in enumerate(corpora):
        for column, modality in enumerate(modalities):
            here = [e for e in coverage if (e["corpus"], e["modality"]) == (corpus, modality)]
            total = sum(e["samples"] for e in here)
            if total:
                good = sum(e["samples"] for e in here if e["status"] in ("ok", "partial"))
                share[row, column] = good / total
    figure = Figure(figsize=(1.6 + 1.2 * len(modalities), 1.2 + 0.6 * len(corpora)))
    axes = figure.subplots()
    axes.imshow(share, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(modalities)), modalities)
    axes.set_yticks(range(len(corpora)), corpora)
    for (row, column), value in np.ndenumerate(share):
        label = "none" if np.isnan(value) else f"{value:.0%}"
        axes.text(column, row, label, ha="center", va="center")
    axes.set_title("samples with data")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _figures(
    evaluation: Evaluation, records: Sequence[Mapping[str, Any]], folder: Path
) -> list[str]:
    folder.mkdir(exist_ok=True)
    save_curves(evaluation.run.log, folder / "curves.png")
    save_coverage(evaluation.run.metrics["coverage"], folder / "coverage.png")
    lines = [
        "![loss and validation scores over epochs](figures/curves.png)",
        "![share of samples with data per corpus and modality](figures/coverage.png)",
    ]
    for record in records:
        name = f"{record['corpus']}-{record['split']}"
        if record["emotion"] and record["emotion"].get("confusion"):
            save_confusion(
                record["emotion"]["confusion"], EMOTIONS, folder / f"confusion-{name}.png"
            )
            lines.append(f"![confusion matrix on {name}](figures/confusion-{name}.png)")
        if record["traits"]:
            rows = evaluation.joined.select(split=record["split"], corpus=record["corpus"])
            save_trait_scatter(
                evaluation.joined.trait_targets[rows],
                evaluation.outputs("fusion", rows).trait_scores,
                folder / f"traits-{name}.png",
            )
            lines.append(
                f"![predicted against labelled traits on {name}](figures/traits-{name}.png)"
            )
    return lines


def _dropped_lines(dropped: Sequence[Mapping[str, Any]]) -> list[str]:
    if not dropped:
        return ["No sample was dropped.\n"]
    total = sum(entry["samples"] for entry in dropped)
    detail = "; ".join(
        f"{entry['corpus']} {entry['split'] or '-'}: {entry['samples']} {entry['reason']}"
        for entry in dropped
    )
    return [f"Dropped, because no modality has data: {total} ({detail}).\n"]
