"""What tests across packages share: the workspace, its commands, a small demo corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# What `make test` leaves in the environment would change what a `make` in a test does.
OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
OF_MAKE |= {"CORPUS", "RUNS", "PROFILE", "DEVICE", "SET", "PKG"}
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The root of the workspace."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def packages(workspace: Path) -> list[Path]:
    """The folders of all distributions, those of modalities found by being there."""
    modalities = [file.parent for file in sorted(workspace.glob("packages/*/pyproject.toml"))]
    return [workspace / "shared", *modalities, workspace / "fusion"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of commands: ours first on the path, no model hub, one thread.

    Threads that wait for each other make models as small as the tests' slower.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    inherited = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    return {**inherited, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Runs a command to its end; it must exit with `code`, and both its outputs are captured."""

    def run(*words: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(word) for word in words],
            env=environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, command: Command) -> list[Path]:
    """Three small corpora: emotion labels, trait labels, both."""
    folder = tmp_path_factory.mktemp("demo")
    command("mepr", "corpus", "demo", folder, "--clips", 210, "--seed", 1, "--media-clips", 24)
    return sorted(folder.glob("*.parquet"))
