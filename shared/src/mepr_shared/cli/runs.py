"""The options of `mepr runs`. Light: what the verbs do is in `runs_verbs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_group, add_verb


def add_runs(verbs: Any) -> None:
    """Add `mepr runs` to the subparsers of `mepr`."""
    runs = add_group(verbs, "runs", "list and compare trained runs")
    listing = add_verb(runs, "list", "runs_verbs:run_list", "all runs below folders")
    listing.add_argument("paths", type=Path, nargs="+", metavar="RUNS")
    compare = add_verb(
        runs, "compare", "runs_verbs:run_compare", "configuration, scores and paired intervals"
    )
    for name in ("first", "second"):
        compare.add_argument(name, type=Path, metavar="RUN")
