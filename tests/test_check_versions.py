"""`tools/check_versions.py` finds a change that no version tells of, in a made-up repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "packages/mepr-toy"


class Repository:
    """A git repository with one package, and the check run on it."""

    def __init__(self, root: Path, tool: Path) -> None:
        self.root, self.tool = root, tool
        self.write("pyproject.toml", '[project]\nname = "mepr-toy"\n')
        self.release("0.1.0")

    def write(self, name: str, text: str) -> None:
        path = self.root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def release(self, version: str) -> None:
        """State a version in both places."""
        self.write("src/mepr_toy/__init__.py", f'__version__ = "{version}"\n')
        self.write("CHANGELOG.md", f"# Changes\n\n## {version}\n\n- Something.\n")

    def git(self, *words: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "x")

    def check(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.tool), "--root", str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path, workspace: Path) -> Repository:
    return Repository(tmp_path, workspace / "tools/check_versions.py")


@pytest.fixture
def released(repository: Repository) -> Repository:
    repository.commit()
    repository.git("tag", "mepr-toy-v0.1.0")
    return repository


def test_without_git_only_the_changelog_is_checked(repository: Repository) -> None:
    done = repository.check()
    assert done.returncode == 0
    assert "no tag" in done.stdout


def test_a_changelog_without_the_version_fails(repository: Repository) -> None:
    repository.write("src/mepr_toy/__init__.py", '__version__ = "0.2.0"\n')
    done = repository.check()
    assert done.returncode == 1
    assert "__version__ is 0.2.0, CHANGELOG.md begins with 0.1.0" in done.stderr


def test_an_unchanged_release_passes(released: Repository) -> None:
    done = released.check()
    assert done.returncode == 0
    assert "since mepr-toy-v0.1.0" in done.stdout


@pytest.mark.parametrize("committed", [True, False])
def test_a_change_without_a_new_version_fails(released: Repository, committed: bool) -> None:
    released.write("src/mepr_toy/new.py", "x = 1\n")
    if committed:
        released.commit()
    done = released.check()
    assert done.returncode == 1
    assert "src/mepr_toy/new.py (1 in all) changed since mepr-toy-v0.1.0" in done.stderr


def test_a_new_version_with_its_changelog_passes(released: Repository) -> None:
    released.write("src/mepr_toy/new.py", "x = 1\n")
    released.release("0.2.0")
    assert released.check().returncode == 0


def test_tests_may_change_without_a_release(released: Repository) -> None:
    released.write("tests/test_toy.py", "def test(): ...\n")
    assert released.check().returncode == 0


def test_another_packages_tag_says_nothing(repository: Repository) -> None:
    repository.commit()
    repository.git("tag", "mepr-other-v0.1.0")
    repository.write("src/mepr_toy/new.py", "x = 1\n")
    assert repository.check().returncode == 0


def test_this_workspace_passes(workspace: Path, packages: list[Path]) -> None:
    command = [sys.executable, str(workspace / "tools/check_versions.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(packages)
