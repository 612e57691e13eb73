"""The commands that the READMEs show are run as they stand.

Every ```bash block of a README is run, in order, in one empty folder per README. A block that
cannot be run here is preceded by a line `<!-- no-run: why -->`.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    file.parent
    for pattern in ("*/pyproject.toml", "packages/*/pyproject.toml")
    for file in sorted(ROOT.glob(pattern))
]
READMES = [folder / "README.md" for folder in (ROOT, *PACKAGES)]
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


def run(path: Path, folder: Path, environment: dict[str, str]) -> int:
    """Run a page's blocks in a folder; gives how many were run."""
    # Real trainings use all cores; a page that installs must not change what the tests run on.
    environment = {**environment, "PIP_NO_INDEX": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    count = 0
    for block in blocks(path.read_text("utf-8")):
        if block.reason:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{path}:{block.line}\n{block.script}\n{done.stderr}"
        count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_run(path: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(path, tmp_path, environment) > 0, "shows no command that can be tried"


def test_a_failing_command_is_found(tmp_path: Path, environment: dict[str, str]) -> None:
    page = tmp_path / "README.md"
    page.write_text("Text.\n\n```bash\ntrue\nmepr corpus shw x\n```\n")
    with pytest.raises(AssertionError, match=r"README.md:4(.|\n)*did you mean 'show'"):
        run(page, tmp_path, environment)


def test_marked_blocks_and_other_languages_are_left_out(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "<!-- no-run: sets up -->\n```bash\nfalse\n```\n"
        "```python\nfalse\n```\n"
        "```bash\ntouch a\n```\n"
        "<!-- no-run: yours -->\n```bash\nfalse\n```\n"
        "```bash\ntest -f a\n```\n"
    )
    assert [block.reason for block in blocks(page.read_text())] == ["sets up", "", "yours", ""]
    assert run(page, tmp_path, environment) == 2
