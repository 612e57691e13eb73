"""The commands that the README of the workspace, of mepr-shared and of mepr-fusion show are run.

Those of the modality packages are run by each package's own tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mepr_shared.testing.readme import blocks, run_blocks

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "shared/README.md", "fusion/README.md"])
def test_commands_run(page: str, tmp_path: Path) -> None:
    assert run_blocks(ROOT / page, tmp_path) > 0, "shows no command that can be tried"


def test_every_package_runs_its_own() -> None:
    for project in ROOT.glob("packages/*/pyproject.toml"):
        text = (project.parent / "tests/test_readme.py").read_text("utf-8")
        assert 'run_blocks(Path(__file__).parents[1] / "README.md"' in text


def test_a_failing_command_is_found(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("Text.\n\n```bash\ntrue\nmepr corpus shw x\n```\n")
    with pytest.raises(AssertionError, match=r"README.md:4(.|\n)*did you mean 'show'"):
        run_blocks(page, tmp_path)


def test_marked_blocks_and_other_languages_are_left_out(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "<!-- no-run: sets up -->\n```bash\nfalse\n```\n"
        "```python\nfalse\n```\n"
        "```bash\ntouch a\n```\n"
        "<!-- no-run: yours -->\n```bash\nfalse\n```\n"
        "```bash\ntest -f a\n```\n"
    )
    assert [block.reason for block in blocks(page.read_text())] == ["sets up", "", "yours", ""]
    assert run_blocks(page, tmp_path) == 2
