"""What `mepr runs` does. Imported only when a verb runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mepr_shared.cli.output import emit, emit_json, emit_table, say
from mepr_shared.errors import ContractError, DataError
from mepr_shared.intervals import MINIMUM_CLUSTERS
from mepr_shared.train.compare_runs import compare_runs
from mepr_shared.train.runs import Run

COLUMNS = ("run", "kind", "modality", "task", "corpora", "state", "best_epoch", "score", "seed")


def run_list(arguments: argparse.Namespace) -> int:
    """`mepr runs list`: one record per run; a damaged one says so and hides no other."""
    for path in arguments.paths:
        if not path.is_dir():
            raise DataError(f"no such folder: {path}")
    folders = [folder for path in arguments.paths for folder in _run_folders(path)]
    if not folders:
        raise DataError(f"no run below {', '.join(map(str, arguments.paths))}")
    emit(arguments, [_record(folder) for folder in dict.fromkeys(folders)], COLUMNS)
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    """`mepr runs compare`: what differs, and whether the difference is more than chance."""
    report = compare_runs(Run.load(arguments.first), Run.load(arguments.second))
    if arguments.json:
        emit_json(report)
        return 0
    columns = ("first", "second")
    config = [[key, *map(_short, values)] for key, values in report["config"].items()]
    if config:
        emit_table(config, ("key", *columns), title="configuration")
    else:
        say("the configurations are the same")
    scores = [[name, *values] for name, values in report["val"].items()]
    emit_table(scores, ("validation score", *columns))
    for entry in report["corpora"]:
        print_comparison(entry)
    for note in report["notes"]:
        say(note)
    return 0


COMPARISON_COLUMNS = (
    "corpus",
    "task",
    "n",
    "sources",
    "score",
    "first",
    "second",
    "difference",
    "95 % interval",
)


def print_comparison(entry: Mapping[str, Any]) -> None:
    """A corpus's comparison (`mepr_shared.evaluation.compare`) as a table, if there is one."""
    rows = comparison_rows(entry)
    if rows:
        emit_table(rows, COMPARISON_COLUMNS, title="on the same samples")
    if any(row[-1] is None for row in rows):
        say(f"{entry['corpus']}: no intervals from fewer than {MINIMUM_CLUSTERS} sources")


def comparison_rows(entry: Mapping[str, Any]) -> list[list[object]]:
    """One row per task and score."""
    rows: list[list[object]] = []
    for task in ("emotion", "traits"):
        found = entry[task] or {}
        for name, values in found.items():
            if not isinstance(values, Mapping) or values.get("difference") is None:
                continue
            low_high = values["ci"]
            interval = f"[{low_high[0]:+.4f}, {low_high[1]:+.4f}]" if low_high else None
            sizes = (found["n"], found["n_sources"])
            three = (values["first"], values["second"], values["difference"])
            rows.append([entry["corpus"], task, *sizes, name, *three, interval])
    return rows


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders of runs, sorted. What lies inside a run (its fold runs) belongs to it."""
    for folder, inner, files in os.walk(root):
        if "config.json" in files and _is_run(Path(folder)):
            inner.clear()
            yield Path(folder)
        inner.sort()


def _is_run(folder: Path) -> bool:
    # Encoders have a config.json too. A run's may be damaged: then its log or metrics tell.
    try:
        Run.load(folder)
    except ContractError:
        return any((folder / name).exists() for name in ("metrics.json", "trainer.json"))
    return True


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(COLUMNS)
    record |= {"run": str(folder), "problem": None, "val": {}}
    try:
        run = Run.load(folder)
        metrics = run.metrics
    except ContractError as error:
        return {**record, "state": "damaged", "problem": str(error)}
    config = run.config
    settings = config.get("settings", {})
    modalities = config.get("modality") or "+".join(config.get("modalities", ()))
    return {
        **record,
        "kind": run.kind,
        "modality": modalities or None,
        "task": config.get("task"),
        "corpora": " ".join(corpus["name"] for corpus in config.get("corpora", ())),
        "state": "finished" if metrics else "unfinished",
        "best_epoch": metrics.get("best_epoch"),
        "score": metrics.get("val", {}).get("score"),
        "seed": settings.get("fit", {}).get("seed"),
        "val": metrics.get("val", {}),
    }


def _short(value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} entries" if len(value) > 8 else list(value)
    return value
