"""Which software made a file: the `generated_by` entry of a manifest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
from pathlib import Path

from mepr_shared.contract.schema import Producer


def producer(distribution: str, module: str) -> Producer:
    """Version, git state and runtime of an installed package.

    Args:
        distribution: e.g. `"mepr-text"`.
        module: its import name, e.g. `"mepr_text"`; it is located, not imported.
    """
    commit, dirty = _git_state(module)
    return Producer(
        name=distribution,
        version=_version(distribution) or "unknown",
        git_commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        torch=_version("torch"),
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(module: str) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; (None, None) for an installed wheel."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None, None
    folder = Path(spec.origin).parent
    # A virtual environment may lie inside somebody's repository: only a tracked file counts.
    if _git(folder, "ls-files", "--error-unmatch", Path(spec.origin).name) is None:
        return None, None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
