"""The commands that a README shows are run as they stand.

Every ```bash block of a page is run, in order, in one folder per page. A block that cannot be run
here is preceded by a line `<!-- no-run: why -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:^<!-- no-run: (?P<reason>[^\n]+) -->\n+)?^```bash\n(?P<script>.*?)^```$", re.M | re.S
)
LIMIT_S = 300


@dataclass(frozen=True)
class Block:
    """A block of commands, the line it begins at, and why it is not run ("": it is)."""

    script: str
    line: int
    reason: str


def blocks(text: str) -> list[Block]:
    """The ```bash blocks of a page."""
    return [
        Block(
            found["script"], text.count("\n", 0, found.start("script")) + 1, found["reason"] or ""
        )
        for found in BLOCK.finditer(text)
    ]


def run_blocks(path: Path, folder: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Run a page's blocks in a folder; gives how many were run.

    The commands are those of this Python's environment; a page that installs cannot change it.

    Raises:
        AssertionError: a block fails; its line, its commands and what they said.
    """
    search = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    settings = {"PATH": search, "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    count = 0
    for block in blocks(path.read_text("utf-8")):
        if block.reason:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.script],
            cwd=folder,
            env={**environment, **settings},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{path}:{block.line}\n{block.script}\n{done.stderr}"
        count += 1
    return count
