"""Each distribution, built as a wheel, installs and runs alone in a fresh environment.

The environments see third-party packages through a layer, a folder of links to everything in the
development environment but our own packages, so that torch is not installed anew for each. (That
the third-party requirements are declared is shown in `test_dependencies.py`.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    tomllib.loads(file.read_text("utf-8"))["project"]["name"]: file.parent
    for pattern in ("*/pyproject.toml", "packages/*/pyproject.toml")
    for file in ROOT.glob(pattern)
}
# Files that are read at run time, and must not be forgotten in a wheel.
SHIPPED = {
    "mepr-shared": ("contract/mepr-export-1.0.schema.json",),
    "mepr-fusion": (),
    # Every modality package has these.
    "mepr-*": ("configs/paper.toml", "configs/small.toml"),
}
# Imports every module of a package; prints which of our packages came with them, and from where.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
ours = {name for name in sys.modules if name.startswith("mepr_") and "." not in name}
print(json.dumps({name: sys.modules[name].__file__ for name in sorted(ours)}))
"""


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment with one of our distributions in it."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def run(self, *words: str) -> str:
        # Away from the workspace, and with nothing of it on the path.
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            env=variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of all distributions."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
    packages = [str(package) for package in PACKAGES.values()]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, *packages], check=True)
    return folder


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to what is installed here, but for our own packages."""
    folder = tmp_path_factory.mktemp("third-party")
    ours = set()
    for name in PACKAGES:
        ours |= {path.parts[0] for path in metadata.files(name) or ()}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in ours and entry.suffix != ".pth" and entry.name != "__pycache__":
            (folder / entry.name).symlink_to(entry)
    assert (folder / "torch").exists()
    assert not [entry.name for entry in folder.iterdir() if "mepr" in entry.name]
    return folder


@pytest.fixture(scope="session", params=sorted(PACKAGES))
def installed(
    request: pytest.FixtureRequest,
    wheels: Path,
    third_party: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Environment]:
    """One distribution in an environment of its own: `pip install --find-links dist NAME`."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder, symlinks=True)
    environment = Environment(folder)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(environment.run("python", "-c", script).strip())
    (site / "third-party.pth").write_text(f"{third_party}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet"]
    found = ["--no-index", "--find-links", str(wheels), request.param]
    subprocess.run([*pip, *found], check=True, cwd=folder, env={**os.environ, "PYTHONPATH": ""})
    return request.param, environment


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_wheel_holds_its_package_and_nothing_else(name: str, wheels: Path) -> None:
    module = name.replace("-", "_")
    [wheel] = wheels.glob(f"{module}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {entry.split("/")[0] for entry in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {module}
    shipped = SHIPPED.get(name, SHIPPED["mepr-*"])
    for file in ("py.typed", *shipped):
        assert f"{module}/{file}" in names
    source = PACKAGES[name] / "src" / module
    files = {file.relative_to(source.parent) for file in source.rglob("*") if file.is_file()}
    expected = {
        file.as_posix()
        for file in files
        if not any(part.startswith((".", "__pycache__")) for part in file.parts)
    }
    assert {entry for entry in names if entry.startswith(f"{module}/")} == expected


def test_command_answers(installed: tuple[str, Environment]) -> None:
    name, environment = installed
    scripts = tomllib.loads((PACKAGES[name] / "pyproject.toml").read_text("utf-8"))["project"]
    assert scripts["scripts"]
    for command in scripts["scripts"]:
        assert environment.run(command, "--help").startswith(f"usage: {command}")
        assert environment.run(command, "--version").strip() == metadata.version(name)


def test_all_modules_import_without_siblings(installed: tuple[str, Environment]) -> None:
    name, environment = installed
    module = name.replace("-", "_")
    found = environment.run("python", "-c", IMPORT_ALL, module)
    ours = {key: Path(file) for key, file in json.loads(found).items()}
    assert set(ours) == {module, "mepr_shared"}
    for file in ours.values():
        assert file.is_relative_to(environment.folder), "not the wheel's, but the workspace's"


def test_only_its_own_modality_is_found(installed: tuple[str, Environment]) -> None:
    name, environment = installed
    is_modality = PACKAGES[name].parent.name == "packages"
    out = environment.run("mepr", "modalities", "--json")
    records = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [record["distribution"] for record in records] == ([name] if is_modality else [])
    assert not any(record["problem"] for record in records)
