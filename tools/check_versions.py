"""Does every package that changed since its last release say so?

    python tools/check_versions.py

A release of a package is a git tag `DISTRIBUTION-vVERSION`, such as `mepr-text-v0.1.0`. What a
release holds is the package's `src/`, `pyproject.toml` and `README.md`. Where these differ from
the newest tag, `__version__` must differ too; and the first heading of `CHANGELOG.md` must always
be that of `__version__`. Without git or tags only the latter can be checked, which is said.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

RELEASED = ("src", "pyproject.toml", "README.md")


def packages(root: Path) -> list[Path]:
    """The folders of all distributions."""
    found = [root / "shared", *sorted((root / "packages").glob("*")), root / "fusion"]
    return [folder for folder in found if (folder / "pyproject.toml").is_file()]


def check(folder: Path) -> list[str]:
    """What is wrong with a package, one line each."""
    version = _first_match(folder.glob("src/*/__init__.py"), r'^__version__ = "(.+)"$')
    if version is None:
        return [f"{folder.name}: no `__version__ = ` line in src/*/__init__.py"]
    problems = []
    newest = _first_match([folder / "CHANGELOG.md"], r"^## (\S+)")
    if newest != version:
        problems.append(
            f"{folder.name}: __version__ is {version}, CHANGELOG.md begins with {newest}; "
            f"add `## {version}` and what changed"
        )
    tag = last_tag(folder)
    if tag is not None and tag.endswith(f"-v{version}"):
        changed = changed_since(folder, tag)
        if changed:
            problems.append(
                f"{folder.name}: {changed[0]} ({len(changed)} in all) changed since {tag}, "
                "__version__ did not"
            )
    return problems


def distribution(folder: Path) -> str:
    """The name in a package's pyproject.toml."""
    name = _first_match([folder / "pyproject.toml"], r'^name = "(.+)"$')
    if name is None:
        raise ValueError(f"{folder}/pyproject.toml has no name")
    return name


def last_tag(folder: Path) -> str | None:
    """The newest release tag among the ancestors of HEAD; None without git, commits or tags."""
    pattern = f"{distribution(folder)}-v*"
    done = _git(folder, "describe", "--tags", "--abbrev=0", "--match", pattern)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def changed_since(folder: Path, tag: str) -> list[str]:
    """Released files that differ from the tag, uncommitted and new ones included."""
    differing = _git(folder, "diff", "--name-only", "--relative", tag, "--", *RELEASED)
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "--", *RELEASED)
    assert differing is not None and new is not None  # there is git: it gave the tag
    differing.check_returncode()
    new.check_returncode()
    return sorted({*differing.stdout.splitlines(), *new.stdout.splitlines()})


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None


def _first_match(files: Iterable[Path], pattern: str) -> str | None:
    """The first match in the files, in order."""
    for file in files:
        if file.is_file() and (found := re.search(pattern, file.read_text("utf-8"), re.M)):
            return found.group(1)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Check all packages; 1 where one has a problem."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], metavar="DIR")
    root = parser.parse_args(argv).root
    problems = []
    for folder in packages(root):
        problems += check(folder)
        tag = last_tag(folder)
        print(f"{distribution(folder)}: {f'since {tag}' if tag else 'not released yet, no tag'}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
