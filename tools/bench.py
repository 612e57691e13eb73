"""Runs the benchmarks in tools/bench/ and prints one table.

    python tools/bench.py [NAME ...] [--json]

Every benchmark is a module with `run() -> list of {name, value, unit, reference, ratio}`. The
reference is another implementation measured in the same run, or a limit that was set; the ratio
says how many times better than the reference the value is, so that 1 or more is good.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "bench"


def benchmarks() -> dict[str, Path]:
    """Name -> file of every benchmark."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.py"))}


def measure(file: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark."""
    spec = importlib.util.spec_from_file_location(f"bench_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # it is a .py file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, aligned."""
    cells = [("what", "value", "reference", "", "ratio")]
    cells += [
        (
            row["name"],
            f"{row['value']:.4g}",
            f"{row['reference']:.4g}",
            row["unit"],
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {reference:>{widths[2]}} "
        f"{unit:<{widths[3]}}  {ratio:>{widths[4]}}"
        for name, value, reference, unit, ratio in cells
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks; returns the exit code."""
    found = benchmarks()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(found))
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(found))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(found)}")
    rows = []
    for name in arguments.names or found:
        print(f"measuring {name} ...", end=" ", file=sys.stderr, flush=True)
        started = time.perf_counter()
        rows += measure(found[name])
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
