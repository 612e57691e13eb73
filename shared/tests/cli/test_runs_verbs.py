"""`mepr runs list | compare` on small run directories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.predictions import VAL_PREDICTIONS, SplitPredictions, write_predictions
from mepr_shared.train.runs import Run

CLIPS, SOURCES = 120, 30


def make_run(path: Path, *, seed: int, noise: float, finished: bool = True) -> Run:
    """A stage-2 run whose trait errors have the given size."""
    config = {
        "modality": "text",
        "corpora": [{"name": "demo", "samples_sha256": "s", "labels_sha256": "l"}],
        "settings": {"fit": {"seed": seed}, "model": {"width": 64}},
    }
    run = Run.create(path, kind="stage2", config=config)
    if not finished:
        return run
    random = np.random.default_rng(0)
    traits = random.random((CLIPS, len(TRAITS)), dtype=np.float32)
    emotions = np.eye(len(EMOTIONS), dtype=np.float32)[random.integers(0, 7, CLIPS)]
    said = np.clip(traits + np.random.default_rng(seed).normal(0, noise, traits.shape), 0, 1)
    entry = SplitPredictions(
        "demo",
        [f"c{number:03d}" for number in range(CLIPS)],
        [f"s{number % SOURCES}" for number in range(CLIPS)],
        emotion_probabilities=0.5 * emotions + 0.5 / 7,
        trait_scores=said.astype(np.float32),
        emotion_targets=emotions,
        trait_targets=traits,
    )
    write_predictions(path / VAL_PREDICTIONS, [entry])
    run.finish({"best_epoch": 3, "epochs": 5, "val": {"score": 1 - noise, "ccc": 0.5}})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    make_run(folder / "good", seed=1, noise=0.05)
    make_run(folder / "text" / "worse", seed=2, noise=0.3)
    make_run(folder / "open", seed=1, noise=0.0, finished=False)
    return folder


def test_list(mepr, runs: Path) -> None:
    records = {Path(r["run"]).name: r for r in mepr("runs", "list", runs, "--json").records}
    assert list(records) == ["good", "open", "worse"]
    good = records["good"]
    assert (good["kind"], good["modality"], good["corpora"]) == ("stage2", "text", "demo")
    assert (good["state"], good["best_epoch"]) == ("finished", 3)
    assert (good["score"], good["seed"]) == (0.95, 1)
    assert (records["open"]["state"], records["open"]["score"]) == ("unfinished", None)
    assert "0.9500" in mepr("runs", "list", runs / "good").out


def test_list_looks_into_no_run_and_hides_none(mepr, runs: Path) -> None:
    make_run(runs / "good" / "folds-2" / "0" / "stage2", seed=1, noise=0.1)
    (runs / "text" / "worse" / "config.json").write_text("{")
    encoder = runs / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"hidden_size": 384}')
    records = {Path(r["run"]).name: r for r in mepr("runs", "list", runs, runs, "--json").records}
    assert list(records) == ["good", "open", "worse"]
    assert records["worse"]["state"] == "damaged" and "config.json" in records["worse"]["problem"]


def test_list_without_runs(refused, tmp_path: Path) -> None:
    assert "no run below" in refused("runs", "list", tmp_path).err
    assert "none" in refused("runs", "list", tmp_path / "none").err


def test_compare(mepr, runs: Path) -> None:
    report = mepr("runs", "compare", runs / "good", runs / "text" / "worse", "--json").record
    assert report["config"] == {"settings.fit.seed": [1, 2]}
    assert report["val"]["score"] == [0.95, 0.7]
    (entry,) = report["corpora"]
    assert (entry["corpus"], entry["n"], entry["only"]) == ("demo", CLIPS, [0, 0])
    low, high = entry["traits"]["macc"]["ci"]
    assert low < entry["traits"]["macc"]["difference"] < high < 0
    assert entry["emotion"]["uar"]["ci"] == [0, 0]
    assert report["notes"] == []


def test_compare_for_people(mepr, runs: Path) -> None:
    outcome = mepr("runs", "compare", runs / "good", runs / "text" / "worse")
    assert "settings.fit.seed" in outcome.out and "95 % interval" in outcome.out
    outcome = mepr("runs", "compare", runs / "good", runs / "open")
    assert outcome.code == 0
    assert "open is not finished: no paired interval" in outcome.err


def test_compare_with_what_is_no_run(refused, runs: Path, tmp_path: Path) -> None:
    assert "config.json" in refused("runs", "compare", runs / "good", tmp_path).err
    path = runs / "good" / VAL_PREDICTIONS
    path.write_bytes(path.read_bytes()[:-10])
    assert VAL_PREDICTIONS in refused("runs", "compare", runs / "good", runs / "good").err
