"""Every command answers `--help` without its heavy libraries, in half a second."""

from __future__ import annotations

import sys
import time
import tomllib
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "pyarrow", "transformers", "sentence_transformers", "sklearn", "rich")
LIMIT_S = 0.5
# Runs a command's entry point as its script does, then says which heavy modules came with it.
PROBE = """
import importlib, sys
module, _, function = sys.argv.pop(1).partition(":")
try:
    getattr(importlib.import_module(module), function)(["--help"])
except SystemExit as stopped:
    assert not stopped.code
print("loaded:", *(name for name in {heavy} if name in sys.modules))
"""


def entry_points() -> dict[str, str]:
    """Command -> `module:function` of all packages."""
    found = {}
    root = Path(__file__).parents[1]
    for pattern in ("*/pyproject.toml", "packages/*/pyproject.toml"):
        for path in root.glob(pattern):
            found |= tomllib.loads(path.read_text("utf-8"))["project"]["scripts"]
    return found


COMMANDS = entry_points()


def test_there_are_commands() -> None:
    assert {"mepr", "mepr-text", "mepr-fusion"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name: str, command) -> None:
    probe = PROBE.format(heavy=HEAVY)
    out = command(sys.executable, "-c", probe, COMMANDS[name]).stdout
    assert out.startswith("usage: ")
    assert out.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick(name: str, command) -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        command(name, "--help")
        seconds.append(time.perf_counter() - start)
    # The best of a few: other work on the machine can only make it slower.
    assert min(seconds) < LIMIT_S
