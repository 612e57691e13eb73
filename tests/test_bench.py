"""The benchmark runner: finds every benchmark, refuses unknown names, prints all its rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROW = {"name": "reading", "value": 12.5, "unit": "clips/s", "reference": 5.0, "ratio": 2.5}


@pytest.fixture
def bench(workspace: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", workspace / "tools/bench.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner with one quick benchmark instead of the real ones."""
    (tmp_path / "toy.py").write_text(f"def run():\n    return [{ROW!r}]\n")
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    return bench


def test_every_benchmark_can_be_run(bench: ModuleType) -> None:
    found = bench.benchmarks()
    assert {"frames", "fusion", "mamba", "real_data", "startup", "text"} <= set(found)
    for file in found.values():
        assert "def run() -> list[dict[str, Any]]:" in file.read_text()


def test_table_holds_every_row(toy: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.main([]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["what", "value", "reference", "ratio"]
    assert row.split() == ["reading", "12.5", "5", "clips/s", "2.50"]


def test_json_rows(toy: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.main(["toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ROW


def test_unknown_benchmark_is_refused(toy: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        toy.main(["toys"])
    assert stopped.value.code == 2
    assert "no benchmark 'toys'; there are toy" in capsys.readouterr().err


def test_real_data_says_that_it_is_skipped(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEPR_REAL_DATA", raising=False)
    assert bench.main(["real_data", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "MEPR_REAL_DATA is not set" in err
