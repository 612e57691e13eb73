"""Every package declares exactly what it imports (deptry): nothing less, nothing unused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

# Imported by name, with an error that says what to install.
REQUIRED = re.compile(r'\brequire\(\s*"(\w+)[\w.]*",\s*extra="([^"]+)"')
BY_NAME = re.compile(r'\bimport_module\(\s*"(\w+)')
# Used by importing another package's front for it.
FRONTS = {"torch.utils.tensorboard": "tensorboard"}
# Distributions whose modules have another name.
DISTRIBUTIONS = {"skimage": "scikit-image", "PIL": "pillow"}


def imported_indirectly(package: Path) -> list[str]:
    """Modules that a package uses without an import statement of their name."""
    text = "\n".join(file.read_text("utf-8") for file in package.glob("src/**/*.py"))
    fronted = [module for front, module in FRONTS.items() if f"from {front} import" in text]
    named = {*(module for module, _ in REQUIRED.findall(text)), *BY_NAME.findall(text), *fronted}
    named = {DISTRIBUTIONS.get(module, module) for module in named}
    # A distribution's name may have hyphens where its module's has underscores.
    return sorted(named | {module.replace("_", "-") for module in named})


def check(package: Path, command, *, code: int = 0) -> str:
    options = []
    if indirect := imported_indirectly(package):
        options = ["--per-rule-ignores", f"DEP002={'|'.join(indirect)}"]
    return command("deptry", "--no-ansi", *options, "src", cwd=package, code=code).stderr


def test_declared_is_what_is_imported(packages: list[Path], command) -> None:
    for package in packages:
        check(package, command)


def test_extras_that_errors_name_bring_the_module(packages: list[Path]) -> None:
    extras, hints = {}, []
    for package in packages:
        project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
        for extra, requirements in project.get("optional-dependencies", {}).items():
            extras[f"{project['name']}[{extra}]"] = requirements
        for file in package.glob("src/**/*.py"):
            hints += REQUIRED.findall(file.read_text("utf-8"))
    named = {(module, extra) for module, extra in hints if "[" in extra}
    assert named
    for module, extra in named:
        name = DISTRIBUTIONS.get(module, module)
        wanted = re.compile(name.replace("_", "[-_]") + r"\b")
        assert any(map(wanted.match, brought(extra, extras))), (module, extra)


def brought(extra: str, extras: dict[str, list[str]]) -> list[str]:
    """The requirements of an extra, those of our own extras that it names included."""
    found = list(extras[extra])
    for requirement in extras[extra]:
        for inner in extras:
            distribution, _, name = inner.removesuffix("]").partition("[")
            if re.match(rf"{distribution}\[[^]]*\b{name}\b", requirement):
                found += brought(inner, extras)
    return found


@pytest.mark.parametrize(
    ("declared", "code", "finding"),
    [
        ('"numpy"', "import rich\n", "DEP001|DEP003"),
        ('"numpy", "rich"', "import rich\n", "DEP002 'numpy'"),
    ],
)
def test_check_fails_where_it_should(
    tmp_path: Path, command, declared: str, code: str, finding: str
) -> None:
    source = tmp_path / "src/mepr_toy/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text(code)
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "mepr-toy"\nversion = "1"\ndependencies = [{declared}]\n'
    )
    assert re.search(finding, check(tmp_path, command, code=1))


def test_optional_modules_count_as_used(tmp_path: Path) -> None:
    source = tmp_path / "src/mepr_toy/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text('optuna = require("optuna", extra="search")\n')
    assert imported_indirectly(tmp_path) == ["optuna"]
