"""The commands that the README shows are run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mepr_shared.testing.readme import run_blocks


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    assert run_blocks(Path(__file__).parents[1] / "README.md", tmp_path) > 0
