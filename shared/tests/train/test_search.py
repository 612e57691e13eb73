"""Search: the metric asked for is maximised, a study goes on where it stopped."""

from __future__ import annotations

import importlib
import sys

import pytest

from mepr_shared.errors import ConfigError, MeprError
from mepr_shared.train.search import Choice, Range, parse_space, search

pytest.importorskip("optuna")

# Worker processes import the objective by name, so it lives in a module of its own.
OBJECTIVES = """
from pathlib import Path
from mepr_shared.errors import MeprError

def hill(number, parameters):
    with open(Path(__file__).parent / "calls.txt", "a") as file:
        file.write(f"{parameters}\\n")
    x, y = parameters["x"], parameters["y"]
    return {"score": -(x - 3) ** 2 - (y - 1) ** 2, "other": x + y}

def cliff(number, parameters):
    if parameters["x"] > 1:
        raise MeprError("diverged")
    return {"score": float(parameters["x"])}
"""
GRID = {"x": Choice((1, 2, 3, 4)), "y": Choice((0, 1, 2))}


@pytest.fixture
def objectives(tmp_path, monkeypatch):
    (tmp_path / "search_objectives.py").write_text(OBJECTIVES)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("search_objectives", None)
    return importlib.import_module("search_objectives")


def calls(tmp_path) -> int:
    return len((tmp_path / "calls.txt").read_text().splitlines())


@pytest.mark.parametrize(("sampler", "trials"), [("grid", 12), ("greedy", 6)])
def test_grid_and_greedy_find_the_top_and_stop_when_through(objectives, tmp_path, sampler, trials):
    found = search(objectives.hill, GRID, tmp_path / "study", trials=99, sampler=sampler)
    assert found.parameters == {"x": 3, "y": 1} and found.value == 0
    assert found.trials == calls(tmp_path) == trials


def test_the_metric_asked_for_is_the_one_maximised(objectives, tmp_path):
    found = search(
        objectives.hill, GRID, tmp_path / "study", trials=99, sampler="grid", metric="other"
    )
    assert found.parameters == {"x": 4, "y": 2} and found.value == 6
    assert found.rows[0]["other"] == 6 and found.rows[-1]["other"] == 1


def test_tpe_goes_on_where_it_stopped(objectives, tmp_path):
    space = {"x": Range(0.0, 6.0), "y": Range(0, 4)}
    first = search(objectives.hill, space, tmp_path / "study", trials=4)
    second = search(objectives.hill, space, tmp_path / "study", trials=12)
    assert (first.trials, second.trials, calls(tmp_path)) == (4, 12, 12)
    assert second.value >= first.value


def test_workers_do_not_change_what_a_grid_finds(objectives, tmp_path):
    one = search(objectives.hill, GRID, tmp_path / "a", trials=99, sampler="grid")
    two = search(objectives.hill, GRID, tmp_path / "b", trials=99, sampler="grid", workers=2)
    tried = [
        sorted((row["x"], row["y"], row["score"]) for row in found.rows) for found in (one, two)
    ]
    assert tried[0] == tried[1]


def test_a_failing_corner_does_not_end_the_search(objectives, tmp_path):
    space = {"x": Choice((0, 1, 2))}
    found = search(objectives.cliff, space, tmp_path / "study", trials=9, sampler="grid")
    assert found.trials == 2 and found.parameters == {"x": 1}
    with pytest.raises(MeprError, match="every trial failed: diverged"):
        search(objectives.cliff, {"x": Choice((2,))}, tmp_path / "other", trials=1, sampler="grid")


def test_questions_that_make_no_sense_are_refused(objectives, tmp_path):
    with pytest.raises(ConfigError, match=r"'nothing' is not among.*known: other, score"):
        search(objectives.hill, GRID, tmp_path / "a", trials=1, sampler="grid", metric="nothing")
    with pytest.raises(ConfigError, match="takes lists only, 'x' is a range"):
        search(objectives.hill, {"x": Range(0, 1)}, tmp_path / "b", trials=1, sampler="greedy")
    search(objectives.cliff, {"x": Choice((0,))}, tmp_path / "c", trials=1, sampler="grid")
    with pytest.raises(ConfigError, match="begun with another space"):
        search(objectives.cliff, {"x": Choice((1,))}, tmp_path / "c", trials=1, sampler="grid")


def test_a_space_is_read_from_nested_tables():
    table = {"fit": {"rate": {"low": 1e-5, "high": 1e-3, "log": True}}, "model.width": [8, 16]}
    assert parse_space(table, "t") == {
        "fit.rate": Range(1e-5, 1e-3, True),
        "model.width": Choice((8, 16)),
    }
    for bad in ({}, {"a": 3}, {"a": []}, {"a": {"low": 2, "high": 1}}):
        with pytest.raises(ConfigError):
            parse_space(bad, "space.toml")
