"""Two runs on the same validation samples: against scores worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mepr_shared.train.compare_runs import compare_runs, config_difference
from mepr_shared.train.predictions import VAL_PREDICTIONS, SplitPredictions, write_predictions
from mepr_shared.train.runs import Run

IDS = [f"c{number:02d}" for number in range(40)]
TRAITS = np.random.default_rng(0).random((40, 5), dtype=np.float32)
EMOTIONS = np.eye(7, dtype=np.float32)[np.arange(40) % 7]


def run(folder: Path, **changes) -> Run:
    content = {
        "sample_ids": IDS,
        "source_ids": IDS,
        "trait_scores": TRAITS,
        "trait_targets": TRAITS,
        **changes,
    }
    made = Run.create(folder, kind="stage1", config={"task": "traits"})
    write_predictions(folder / VAL_PREDICTIONS, [SplitPredictions("a", **content)])
    made.finish({"val": {"score": 0.5}})
    return made


def test_only_common_samples_count(tmp_path: Path) -> None:
    first = run(tmp_path / "1", trait_scores=TRAITS * 0.9)
    order = np.arange(10, 40)[::-1]  # others missing, the rest in another order
    second = run(
        tmp_path / "2",
        sample_ids=[*(IDS[row] for row in order), "new"],
        source_ids=[*(IDS[row] for row in order), "new"],
        trait_scores=np.vstack([TRAITS[order], TRAITS[:1]]),
        trait_targets=np.vstack([TRAITS[order], TRAITS[:1]]),
    )
    (entry,) = compare_runs(first, second)["corpora"]
    macc = entry["traits"]["macc"]
    assert (entry["only"], entry["n"]) == ([10, 1], 30)
    assert macc["first"] == pytest.approx(1 - 0.1 * TRAITS[10:].mean(), abs=1e-6)
    assert macc["second"] == 1
    assert macc["ci"][0] <= macc["difference"] <= macc["ci"][1]


def test_rows_that_one_model_did_not_answer_are_left_out(tmp_path: Path) -> None:
    silent = TRAITS.copy()
    silent[:15] = np.nan
    entry = compare_runs(run(tmp_path / "1"), run(tmp_path / "2", trait_scores=silent))["corpora"]
    assert entry[0]["traits"]["n"] == 25


def test_multi_label_decisions_use_each_run_s_thresholds(tmp_path: Path) -> None:
    common = {
        **{"trait_scores": None, "emotion_targets": EMOTIONS, "emotion_kind": "multi_label"},
        **{"emotion_output": "sigmoid", "emotion_probabilities": 0.2 + 0.2 * EMOTIONS},
    }
    first = run(tmp_path / "1", thresholds=[0.3] * 7, **common)
    second = run(tmp_path / "2", thresholds=[0.5] * 7, **common)
    emotion = compare_runs(first, second)["corpora"][0]["emotion"]
    assert (emotion["mwacc"]["first"], emotion["mwacc"]["second"]) == (1, 0.5)


def test_other_labels_are_not_compared(tmp_path: Path) -> None:
    report = compare_runs(run(tmp_path / "1"), run(tmp_path / "2", trait_targets=TRAITS[::-1]))
    assert report["corpora"][0]["traits"] is None
    assert "trait_targets differ" in report["notes"][0]


def test_different_tasks_and_corpora_are_said(tmp_path: Path) -> None:
    emotion = {"trait_scores": None, "trait_targets": None, "emotion_targets": EMOTIONS}
    other = run(tmp_path / "2", emotion_probabilities=EMOTIONS, **emotion)
    first = run(tmp_path / "1")
    assert "no task in common" in compare_runs(first, other)["notes"][0]
    write_predictions(other.path / VAL_PREDICTIONS, [SplitPredictions("b", ["x"], ["x"])])
    assert "different corpora" in compare_runs(first, other)["notes"][0]
    (other.path / VAL_PREDICTIONS).unlink()
    assert VAL_PREDICTIONS in compare_runs(first, other)["notes"][0]


def test_config_difference_is_flat() -> None:
    first = {"same": 1, "fit": {"seed": 1, "lr": 0.1}, "folds": {}, "exports_root": "/here"}
    second = {"same": 1, "fit": {"seed": 2, "lr": 0.1, "ema": 0.5}, "exports_root": "/there"}
    assert config_difference(first, second) == {
        "fit.seed": [1, 2],
        "fit.ema": [None, 0.5],
        "folds": [{}, None],
    }
