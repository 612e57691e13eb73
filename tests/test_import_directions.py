"""The import contracts hold, name every package, and break where a direction is violated."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

# A line in a file, and the contract that it must break.
VIOLATIONS = {
    "fusion knows a modality": (
        "mepr_fusion/join.py",
        "import mepr_text.plugin",
        "Modalities and fusion know mepr-shared and not each other",
    ),
    "shared knows a modality": (
        "mepr_shared/plugin.py",
        "import mepr_text.plugin",
        "Modalities and fusion know mepr-shared and not each other",
    ),
    "the contract knows corpora": (
        "mepr_shared/contract/reader.py",
        "import mepr_shared.corpora.index",
        "Inside mepr-shared",
    ),
    "networks know training": (
        "mepr_shared/nn/mamba.py",
        "import mepr_shared.train.loop",
        "Inside mepr-shared",
    ),
    "the contract loads torch": (
        "mepr_shared/contract/reader.py",
        "import torch",
        "needs no torch",
    ),
    "a parser loads numpy": (
        "mepr_shared/cli/corpus.py",
        "import numpy",
        "Parsers of commands load nothing heavy",
    ),
}


def lint(workspace: Path, environment: dict[str, str], sources: Path | None = None):
    first = {"PYTHONPATH": str(sources)} if sources else {}
    return subprocess.run(
        ["lint-imports", "--no-cache", "--config", str(workspace / ".importlinter")],
        env={**environment, **first},
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def sources(tmp_path: Path, packages: list[Path]) -> Path:
    """A copy of all packages' sources, side by side."""
    for package in packages:
        for source in (package / "src").iterdir():
            shutil.copytree(source, tmp_path / source.name)
    return tmp_path


def test_contracts_hold(workspace: Path, environment: dict[str, str]) -> None:
    done = lint(workspace, environment)
    assert done.returncode == 0, done.stdout


def test_every_package_is_under_contract(workspace: Path, packages: list[Path]) -> None:
    config = configparser.ConfigParser()
    config.read(workspace / ".importlinter")
    modules = {source.name for package in packages for source in (package / "src").iterdir()}
    assert set(config["importlinter"]["root_packages"].split()) == modules
    layers = config["importlinter:contract:distributions"]["layers"]
    assert set(layers.replace("|", " ").split()) == modules


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation_breaks_its_contract(
    name: str, workspace: Path, environment: dict[str, str], sources: Path
) -> None:
    file, line, contract = VIOLATIONS[name]
    with (sources / file).open("a") as module:
        module.write(f"\n{line}\n")
    done = lint(workspace, environment, sources)
    assert done.returncode == 1
    broken = [line for line in done.stdout.replace("\n", " ").split("BROKEN") if contract in line]
    assert broken, done.stdout
