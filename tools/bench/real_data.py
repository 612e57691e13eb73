"""The whole text pipeline on FIv2 and MELD: quality, duration and memory beside their targets.

Runs where MEPR_REAL_DATA points to a folder with the official files in `fiv2/` and `meld/`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PIPELINE = Path(__file__).parents[1] / "pipeline.py"
CORPORA = {"fiv2": "traits", "meld": "emotion"}
# Targets of stage 1, and how much lower stage 2 may be.
STAGE1 = {
    ("fiv2", "traits", "macc"): 0.8890,
    ("fiv2", "traits", "ccc"): 0.20,
    ("meld", "emotion", "uar"): 0.43,
    ("meld", "emotion", "weighted_f1"): 0.53,
}
MAY_LOSE = {"macc": 0.0010, "ccc": 0.02, "uar": 0.01, "weighted_f1": 0.01}
LIMIT_S, LIMIT_MEGABYTES = 15 * 60, 4 * 1024


def run() -> list[dict[str, Any]]:
    """Rows for stage 1, for stage 2 beside stage 1, and for duration and memory of it all."""
    real = os.environ.get("MEPR_REAL_DATA")
    if not real:
        print("skipped, MEPR_REAL_DATA is not set;", end=" ", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        cost = _in_process(runs, _import(Path(real), Path(folder)))
        first = {task: _scores(runs / f"text/stage1-{task}") for task in CORPORA.values()}
        second = _scores(runs / "text/stage2")
    rows = []
    for (corpus, task, score), target in STAGE1.items():
        value = first[task][corpus][task][score]
        rows.append(_row(f"stage 1, {corpus} val, {score}", value, "", target))
    for corpus, task, score in STAGE1:
        least = first[task][corpus][task][score] - MAY_LOSE[score]
        value = second[corpus][task][score]
        rows.append(_row(f"stage 2, {corpus} val, {score}, at least", value, "", least))
    for name, unit, limit in (("seconds", "s", LIMIT_S), ("megabytes", "MB", LIMIT_MEGABYTES)):
        row = _row(f"text pipeline to stage 3, fiv2 and meld, {name}", cost[name], unit, limit)
        rows.append({**row, "ratio": limit / cost[name]})
    return rows


def _row(name: str, value: float, unit: str, reference: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": value / reference,
    }


def _import(real: Path, folder: Path) -> list[str]:
    from mepr_shared.corpora.importers import importer

    paths = []
    for name in CORPORA:
        corpus = importer(name)(real / name, name=name).corpus
        paths.append(str(corpus.write(folder / f"{name}.parquet").path))
    return paths


def _scores(run: Path) -> dict[str, Any]:
    evaluations = json.loads((run / "metrics.json").read_text("utf-8"))["evaluations"]
    return {record["corpus"]: record for record in evaluations}


def _in_process(runs: Path, corpora: Sequence[str]) -> dict[str, float]:
    # A process of its own: the peak over children would else be that of other benchmarks.
    command = [sys.executable, __file__, "--measure", str(runs), *corpora]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(runs: str, corpora: Sequence[str]) -> dict[str, float]:
    """Seconds of the pipeline, and MB of the largest of its processes."""
    command = [sys.executable, str(PIPELINE), "stage1", "stage2", "export", "stage3"]
    start = time.perf_counter()
    options = ["--runs", runs, "--corpus", *corpora]
    subprocess.run([*command, *options], check=True, stdout=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": time.perf_counter() - start, "megabytes": peak / 1024}


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="+", metavar="RUNS CORPUS", required=True)
    runs, *corpora = parser.parse_args().measure
    print(json.dumps(measure(runs, corpora)))


if __name__ == "__main__":
    main()
