"""The Makefile explains itself, finds packages by their being there, and refuses nonsense."""

from __future__ import annotations

import re
from pathlib import Path

TARGETS = {"help", "setup", "test", "lint", "demo", "wheels", "bench", "clean"}
STAGES = {"stage1-all", "stage2-all", "export-all", "stage3"}


def test_help_is_the_default_and_names_every_target(workspace: Path, command) -> None:
    out = command("make", cwd=workspace).stdout
    assert set(re.findall(r"^ +make (\S+) +\S", out, re.M)) >= TARGETS | STAGES
    for variable in ("CORPUS", "RUNS", "PROFILE", "DEVICE", "SET", "PKG"):
        assert f"{variable}=" in out


def test_every_package_is_installed_by_path(workspace: Path, packages: list[Path], command) -> None:
    out = command("make", "-n", "-B", "setup", cwd=workspace).stdout
    for package in packages:
        assert f"--editable ./{package.relative_to(workspace)}" in out


def test_pkg_restricts_tests_and_wheels(workspace: Path, command) -> None:
    for name, folder in (
        ("mepr-text", "./packages/mepr-text"),
        ("mepr-audio", "./packages/mepr-audio"),
        ("mepr-shared", "./shared"),
        ("fusion", "./fusion"),
    ):
        out = command("make", "-n", "test", f"PKG={name}", cwd=workspace).stdout
        assert re.search(rf"pytest .*--no-loadscope-reorder\s+{folder}/tests\s*$", out, re.S)
        out = command("make", "-n", "wheels", f"PKG={name}", cwd=workspace).stdout
        assert re.search(rf"--wheel-dir dist {folder}$", out, re.M)


def test_unknown_package_is_refused(workspace: Path, command) -> None:
    err = command("make", "test", "PKG=mepr-txt", cwd=workspace, code=2).stderr
    assert (
        "no package mepr-txt; there are shared mepr-audio mepr-body mepr-face mepr-scene mepr-text"
        in err
    )


def test_stages_ask_for_a_corpus(workspace: Path, command) -> None:
    for target in sorted(STAGES):
        err = command("make", target, "CORPUS=", cwd=workspace, code=2).stderr
        assert "say CORPUS=X.parquet" in err


def test_stages_pass_variables_on(workspace: Path, command) -> None:
    given = ("CORPUS=a.parquet b.parquet", "RUNS=r", "PROFILE=paper", "DEVICE=cuda", "SET=x=1 y=2")
    last = command("make", "-n", "stage3", *given, cwd=workspace).stdout.splitlines()[-1]
    wanted = (
        "--profile paper --device cuda --set x=1 --set y=2 --runs r --corpus a.parquet b.parquet"
    )
    assert " ".join(last.split()).endswith(f"tools/pipeline.py stage3 {wanted}")


def test_tools_and_requirements_are_pinned(workspace: Path) -> None:
    lines = (workspace / "requirements-dev.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line)
    assert len({line.split("==")[0] for line in pins}) == len(pins)
