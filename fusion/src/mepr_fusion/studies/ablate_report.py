"""From the finished runs of an ablation to `ablation.json`, `.md` and `.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mepr_fusion.studies.ablate import FULL, Variant
from mepr_fusion.studies.ablate_table import (
    Answers,
    adjust,
    columns_of,
    difference,
    mean_and_spread,
    resampling_for,
    scored,
    seed_scores,
)
from mepr_fusion.studies.jobs import Job
from mepr_fusion.studies.work import predictions_name
from mepr_fusion.train import build_model
from mepr_shared.train.predictions import read_predictions
from mepr_shared.train.runs import Run, replace_file

SECONDS = "seconds.csv"


def ablation_records(
    variants: Sequence[Variant],
    jobs: Mapping[tuple[str, int], Job],
    failed: Mapping[str, str],
    split: str,
) -> list[dict[str, Any]]:
    """One record per variant, the full model first.

    Args:
        jobs: (variant, seed) -> its job.
        failed: name of a job -> why it failed.
        split: what is scored; the selection score is always that of validation.

    Returns:
        `variant, kind, modalities, seeds` (those that finished), `failed` (seed -> reason),
        `parameters`, `score` (selection), `scores` (per corpus headline, with `n` answered and
        `unanswered` labelled samples that the full model answers) and `differences`.
    """
    full = _finished(FULL, jobs, failed, split)
    reference = next(iter(full.values())) if full else {}
    columns = columns_of(reference)
    of_full = {
        column: scored(reference[corpus], [said.get(corpus) for said in full.values()], task)
        for column, (corpus, task, _, _) in columns.items()
    }
    how = resampling_for(len(variants) - 1)
    records = []
    for variant in variants:
        answers = full if variant.name == FULL else _finished(variant.name, jobs, failed, split)
        runs = {seed: Run.load(jobs[variant.name, seed].run) for seed in answers}
        record: dict[str, Any] = {
            "variant": variant.name,
            "kind": variant.kind,
            "modalities": list(variant.modalities),
            "seeds": sorted(answers),
            "failed": {
                str(seed): failed[job.name]
                for (name, seed), job in jobs.items()
                if name == variant.name and job.name in failed
            },
            "parameters": _parameters(runs),
            "score": mean_and_spread([r.metrics["val"]["score"] for r in runs.values()]),
            "scores": {},
            "differences": {},
        }
        for column, (corpus, task, task_scores, score) in columns.items():
            labels, theirs = reference[corpus], of_full[column]
            mine = scored(labels, [said.get(corpus) for said in answers.values()], task)
            record["scores"][column] = {
                **mean_and_spread(seed_scores(mine, task_scores, score) if answers else []),
                "n": int(mine.answered.sum()) if answers else 0,
                "unanswered": int((theirs.answered & ~mine.answered).sum()) if answers else None,
            }
            common = [seed for seed in answers if seed in full]
            if variant.name != FULL and common:
                record["differences"][column] = difference(
                    theirs.some([list(full).index(seed) for seed in common]),
                    mine.some([list(answers).index(seed) for seed in common]),
                    labels.source_ids,
                    task_scores,
                    score,
                    how,
                )
        records.append(record)
    adjust(records)
    return records


def write_ablation(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    jobs: Mapping[tuple[str, int], Job],
    split: str,
) -> None:
    """Write the table in three forms, and the seconds of each run."""
    content = {"split": split, "draws": resampling_for(len(records) - 1).resamples}
    text = json.dumps({**content, "variants": records}, indent=2, ensure_ascii=False) + "\n"
    _write(folder / "ablation.json", text)
    _write(folder / "ablation.md", "\n".join(markdown(records, split)) + "\n")
    _write(folder / "ablation.csv", _csv([flat(record) for record in records]))
    _write(folder / SECONDS, _csv(_seconds(jobs)))


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one row of the CSV."""
    row: dict[str, Any] = {
        "variant": record["variant"],
        "modalities": "+".join(record["modalities"]),
        "runs": len(record["seeds"]),
        "failed": len(record["failed"]),
        "parameters": record["parameters"],
        "score": record["score"]["mean"],
        "score_std": record["score"]["std"],
    }
    for column, found in record["scores"].items():
        against = record["differences"].get(column) or {}
        low, high = against.get("ci") or (None, None)
        row |= {
            column: found["mean"],
            f"{column} std": found["std"],
            f"{column} n": found["n"],
            f"{column} unanswered": found["unanswered"],
            f"{column} difference": against.get("difference"),
            f"{column} low": low,
            f"{column} high": high,
            f"{column} paired n": against.get("n"),
            f"{column} p_holm": against.get("p_holm"),
            f"{column} significant": against.get("significant"),
        }
    return row


def shown(record: Mapping[str, Any], seconds: float | None = None) -> dict[str, str]:
    """A record as one row for people; `seconds` of all its runs where given."""
    row = {
        "variant": record["variant"],
        "runs": str(len(record["seeds"])) + (" (failed)" if record["failed"] else ""),
        "parameters": f"{record['parameters']:,}" if record["parameters"] else "-",
    }
    if seconds is not None:
        row["seconds"] = f"{seconds:.1f}"
    row["score"] = _plus_minus(record["score"])
    for column, found in record["scores"].items():
        gone = f", {found['unanswered']} unanswered" if found["unanswered"] else ""
        row[column] = f"{_plus_minus(found)} (n={found['n']}{gone})"
        row[f"{column} less full"] = _difference(record["differences"].get(column))
    return row


def markdown(records: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    """The table with what its columns mean."""
    rows = [shown(record) for record in records]
    names = list(rows[0])
    lines = [
        "# Ablation",
        "",
        f"Scores on the {split} split: mean ± standard deviation over seeds. `score` is what "
        "selects the epoch, on validation, each variant on the samples it answers.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(row[name] for name in names) + " |" for row in rows),
        "",
        "`less full`: mean over seeds less that of the full model, on the samples both answer "
        "(n), with a 95 % interval of the paired bootstrap over sources, seeds held fixed. `*`: "
        "different from 0 at the 5 % level after Holm's correction over all variants.",
        "",
    ]
    for record in records:
        for seed, reason in record["failed"].items():
            lines.append(f"- {record['variant']}, seed {seed} failed: {reason}")
    return lines


def seconds_by_variant(jobs: Mapping[tuple[str, int], Job]) -> dict[str, float]:
    """Training seconds of all runs of a variant."""
    found: dict[str, float] = {}
    for row in _seconds(jobs):
        found[row["variant"]] = found.get(row["variant"], 0.0) + row["seconds"]
    return found


def _finished(
    name: str, jobs: Mapping[tuple[str, int], Job], failed: Mapping[str, str], split: str
) -> dict[int, Answers]:
    return {
        seed: read_predictions(job.run / predictions_name(split))
        for (variant, seed), job in jobs.items()
        if variant == name and job.name not in failed
    }


def _parameters(runs: Mapping[int, Run]) -> int | None:
    for run in runs.values():
        return sum(p.numel() for p in build_model(run.config).parameters())
    return None


def _seconds(jobs: Mapping[tuple[str, int], Job]) -> list[dict[str, Any]]:
    rows = []
    for (variant, seed), job in jobs.items():
        if (job.run / "metrics.json").exists():
            log = Run.load(job.run).log
            seconds = round(sum(record["seconds"] for record in log), 3)
            rows.append({"variant": variant, "seed": seed, "seconds": seconds})
    return rows


def _plus_minus(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    return f"{found['mean']:.4f}" + ("" if found["std"] is None else f" ± {found['std']:.4f}")


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found or found["difference"] is None:
        return "-"
    bounds = found["ci"]
    interval = f" [{bounds[0]:+.4f}, {bounds[1]:+.4f}]" if bounds else ""
    mark = " *" if found.get("significant") else ""
    return f"{found['difference']:+.4f}{interval}{mark} (n={found['n']})"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue()


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda target: target.write_text(text, "utf-8"))
