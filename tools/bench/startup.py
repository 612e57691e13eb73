"""How long each command takes to answer `--help`, against the promised half second."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mepr_shared.plugin import discover

LIMIT_S = 0.5
REPEATS = 9


def run() -> list[dict[str, Any]]:
    """One row per command: median seconds, the limit, and how many times faster than it."""
    commands = ["mepr", *(entry.distribution for entry in discover()), "mepr-fusion"]
    rows = []
    for command in commands:
        seconds = statistics.median(_seconds(command) for _ in range(REPEATS))
        rows.append(
            {
                "name": f"{command} --help",
                "value": seconds,
                "unit": "s",
                "reference": LIMIT_S,
                "ratio": LIMIT_S / seconds,
            }
        )
    return rows


def _seconds(command: str) -> float:
    start = time.perf_counter()
    program = Path(sys.executable).parent / command
    subprocess.run([str(program), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
