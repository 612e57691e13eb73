"""`analysis.md`, `analysis.json`, `calibration.json` and figures of an analysis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mepr_fusion.analyze.attribution import GROUPS
from mepr_fusion.analyze.figures import (
    save_contributions,
    save_guide_map,
    save_relations,
    save_reliability,
)
from mepr_fusion.analyze.run import Analysis
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.runs import Run, replace_file

CALIBRATION, BASELINE = "calibration.json", "attribution_baseline.safetensors"


def write_analysis(analysis: Analysis, run: Run, folder: Path) -> Path:
    """Write everything; gives the path of `analysis.md`.

    Args:
        analysis: what was found.
        run: gets `calibration.json` and the baseline of the attributions.
        folder: gets report, record and figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = finite(analysis.record)
    run.write_json(CALIBRATION, finite(analysis.calibration))
    analysis.baseline.save(run.path / BASELINE)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(folder / "analysis.json", lambda target: target.write_text(text, "utf-8"))
    lines = [
        f"# Analysis on {record['split']}",
        "",
        f"{record['n']} samples; tasks: {', '.join(record['tasks'])}. Intervals: 95 %, bootstrap "
        "over sources. The traits are apparent personality: how strangers judged a person.",
        "",
        *_relations(analysis, folder),
        *_contributions(record, folder),
        *_guides(record, folder),
        *_calibration(record, folder),
    ]
    path = folder / "analysis.md"
    replace_file(path, lambda target: target.write_text("\n".join(lines), "utf-8"))
    return path


def finite(value: Any) -> Any:
    """The value with None for every number that is not finite: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table on stdout: per answer and emotion the correlations with the traits."""
    rows = []
    for name, answer in record["relations"]["answers"].items():
        cells = {(cell["emotion"], cell["trait"]): cell for cell in answer["cells"]}
        means = {entry["emotion"]: entry for entry in answer["order"]}
        for emotion in EMOTIONS:
            own = [cells[emotion, trait] for trait in TRAITS]
            mean = means.get(emotion, {})
            rows.append(
                {
                    "answer": name,
                    "emotion": emotion,
                    "n": max(cell["n"] for cell in own),
                    **{cell["trait"]: _marked(cell) for cell in own},
                    "mean": mean.get("mean_r"),
                    "goes_with": _direction(mean),
                }
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Records as Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_text(row.get(name)) for name in columns) + " |")
    return [*lines, ""]


def _relations(analysis: Analysis, folder: Path) -> list[str]:
    relations = finite(analysis.record["relations"])
    lines = ["## Emotions and traits", ""]
    if analysis.relations:
        alt = save_relations(analysis.relations, folder / "relations.png")
        lines += [f"![{alt}](relations.png)", ""]
    for name, answer in relations["answers"].items():
        count = answer["significant"]
        lines += [
            f"**{name.replace('_', ' ')}** ({answer['meaning']}): {count or 'no'} significant "
            f"relation{'' if count == 1 else 's'} of 35 at a family-wise error rate of 5 % "
            f"(Holm), {answer['sources']} sources.",
            "",
            *_order(answer["order"]),
        ]
    rows = summary_rows({"relations": relations})
    lines += table(rows, ["answer", "emotion", "n", *TRAITS, "mean"])
    lines += [
        "A star marks significant cells, a star in brackets those that only the model's answers "
        "show: labels do not, or nobody has both. Intervals are in `analysis.json`.",
        "",
    ]
    if relations["possible_range"]:
        bounds = [pair for row in relations["possible_range"] for pair in row]
        excluded = sum(low > 0 or high < 0 for low, high in bounds if low is not None)
        lines += [
            "Where no row had both labels, calibrated predictions alone would leave a range of "
            f"possible correlations of the labels (`possible_range`): it excludes 0 in {excluded} "
            "of 35 cells.",
            "",
        ]
    if relations["disagreements"]:
        lines += ["Cells where two answers differ:", ""]
        for entry in relations["disagreements"]:
            lines.append(
                f"- {entry['emotion']} and {entry['trait']}: {entry['first']} {entry['r'][0]:+.2f} "
                f"{_bounds(entry['ci'][0])}, {entry['second']} {entry['r'][1]:+.2f} "
                f"{_bounds(entry['ci'][1])}: {entry['how']}"
            )
        lines.append("")
    else:
        lines += ["No cell where two answers differ.", ""]
    return lines + [f"Note: {note}.\n" for note in relations["notes"]]


def _direction(entry: Mapping[str, Any]) -> str | None:
    """Higher or lower; in brackets where only the model says so."""
    direction = entry.get("goes_with")
    return direction if direction is None or entry.get("supported", True) else f"({direction})"


def _order(order: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which emotions go with higher and lower traits on the whole."""
    lines = []
    for direction in ("higher", "lower"):
        named = [
            f"{entry['emotion']} ({entry['mean_r']:+.2f} {_bounds(entry['ci'])}"
            + ("" if entry.get("supported", True) else "; only the model says so")
            + ")"
            for entry in order
            if entry["goes_with"] == direction
        ]
        if direction == "lower":
            named.reverse()
        lines.append(f"- go with {direction} traits: {', '.join(named) or 'none'}")
    return [*lines, ""]


def _contributions(record: Mapping[str, Any], folder: Path) -> list[str]:
    found = record["contributions"]
    lines = [
        "## What comes from which modality",
        "",
        f"Integrated gradients from the {found['baseline']} on {found['n']} samples; contributions "
        "sum to the difference from the answer at that mean (residual at most "
        f"{found['completeness']['largest']:.2%} of it). Unit: probability, trait score. Leaving "
        "out: the answer with all modalities less the answer without one.",
        "",
    ]
    for task in record["tasks"]:
        name = f"contributions-{task}.png"
        alt = save_contributions(found["attribution"], task, folder / name)
        lines += [f"![{alt}]({name})", ""]
        if test := found["deletion"][task]:
            lines += [
                f"Taking out the modality that the attribution ranks first moves {task} by "
                f"{test['top']:.4f} on average, any one by {test['random']:.4f} (difference "
                f"{test['difference']:+.4f} {_text(test['ci'])}, {test['n']} samples).",
                "",
            ]
    shares = [
        {"task": entry["task"], "modality": entry["modality"], **entry["share"]}
        for entry in found["attribution"]
        if "share" in entry
    ]
    lines += ["Share of a modality's contribution by kind of input:", ""]
    lines += table(shares, ["task", "modality", *GROUPS])
    columns = ["task", "output", "modality", "n", "mean_size", "mean_size_ci"]
    columns += ["mean_signed", "mean_signed_ci"]
    for title, key in (("Attribution", "attribution"), ("Leaving one out", "leave_one_out")):
        lines += [f"{title}:", "", *table(found[key], columns)]
    lines += ["Scores with a modality less scores without it:", ""]
    columns = ["corpus", "modality", "task", "score", "n", "with", "without", "difference", "ci"]
    return lines + table(record["score_changes"], columns)


def _guides(record: Mapping[str, Any], folder: Path) -> list[str]:
    found = record["guide_map"]
    if found is None:
        return ["The model has no guide bank.", ""]
    alt = save_guide_map(found, folder / "guides.png")
    lines = ["## Guide vectors", "", f"![{alt}](guides.png)", ""]
    for task, near in found["to_class_means"].items():
        what = "of each emotion" if task == "emotion" else "of high less low labels"
        lines += [
            f"Cosine with the mean representation {what}, {near['n']} samples (rows: guides):",
            "",
        ]
        names = EMOTIONS if task == "emotion" else TRAITS
        rows = [
            {"guide": name, **dict(zip(near["columns"], row, strict=True))}
            for name, row in zip(names, near["cosine"], strict=True)
        ]
        lines += table(rows, ["guide", *near["columns"]])
    return lines


def _calibration(record: Mapping[str, Any], folder: Path) -> list[str]:
    found = record["calibration"]
    lines = ["## Calibration", "", "Temperatures and half-widths come from validation.", ""]
    rows = []
    for corpus, entry in found["emotion"].items():
        name = f"reliability-{corpus}.png"
        alt = save_reliability(entry, corpus, folder / name)
        lines += [f"![{alt}]({name})", ""]
        for when in ("before", "after"):
            scores = entry[when]
            temperature = entry["temperature"] if when == "after" else 1.0
            rows.append(
                {
                    "corpus": corpus,
                    "n": entry["n"],
                    "temperature": temperature,
                    **{key: scores[key] for key in ("nll", "brier", "ece", "ece_if_calibrated")},
                    "overall_ece": scores["overall"]["ece"],
                    "of": scores["overall"]["of"],
                }
            )
    columns = ["corpus", "n", "temperature", "nll", "brier", "ece", "ece_if_calibrated"]
    lines += table(rows, [*columns, "overall_ece", "of"])
    traits = [{"trait": name, **entry} for name, entry in found["traits"].items()]
    columns = ["trait", "n", "slope", "slope_ci", "intercept", "half_width_68", "half_width_90"]
    return lines + table(traits, [*columns, "coverage_68", "coverage_90"])


def _marked(cell: Mapping[str, Any]) -> str | None:
    r = cell["r"]
    if r is None or math.isnan(r):
        return None
    mark = "*" if cell.get("supported", True) else "(*)"
    return f"{r:+.2f}" + (mark if cell["significant"] else "")


def _bounds(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-" if None in value else f"[{value[0]:.3f}, {value[1]:.3f}]"
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
