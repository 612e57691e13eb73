"""Semi-supervised training resumes to the same bytes; single-task modes through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.cli import main
from mepr_fusion.data import resident
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import MODES, FusionSettings
from mepr_fusion.train import train
from mepr_shared.config import build
from mepr_shared.train.runs import Run

QUICK = ("fit.epochs=1", "model.width=16", "model.heads=2", "fit.precision=float32")
SEMI = {
    "ssl": True,
    "weighting": "gradnorm",
    "hidden_labels": 0.5,
    "gradnorm": {"first_steps": 2},
    "semi": {"positive": 0.4, "refresh": 2},
    "model": {"width": 16, "heads": 2},
    "fit": {"epochs": 3, "batch_size": 16, "patience": 0, "precision": "float32"},
}


def corpora(folder: Path) -> list[Path]:
    return [folder / "films.parquet", folder / "talks.parquet"]


def without_seconds(run: Run) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in run.log]


def test_an_interrupted_semi_supervised_training_resumes_to_the_same_bytes(union, tmp_path):
    inputs = choose(corpora(union), union / "exports", {})
    settings = build(FusionSettings, SEMI)

    def stop(record) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    given = {"exports_root": union / "exports"}
    whole = train(inputs, settings, tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        train(inputs, settings, tmp_path / "parts", on_epoch=stop, **given)
    parts = train(inputs, settings, tmp_path / "parts", resume=True, **given)
    assert parts.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert without_seconds(parts) == without_seconds(whole)
    steps = sorted(path.name for path in (whole.path / "steps").iterdir())
    assert steps == [f"epoch-{epoch:04d}.parquet" for epoch in (1, 2, 3)]
    for name in steps:
        assert (parts.path / "steps" / name).read_bytes() == (
            whole.path / "steps" / name
        ).read_bytes()
    last = whole.log[-1]["train"]
    for name in ("emotion", "traits", "emotion_semi"):
        for kind in ("loss", "weight", "gradient_norm"):
            assert np.isfinite(last[f"{kind}/{name}"])
    assert last["weight/emotion"] + last["weight/traits"] == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "multitask"])
def test_single_task_modes_train_evaluate_and_report(union, tmp_path, capsys, mode):
    run = tmp_path / "run"
    where = ["--corpus", str(union / "films.parquet"), "--exports", str(union / "exports")]
    # Several settings after one --set, and one after another.
    options = ["--set", *QUICK, "--set", f"mode={mode}"]
    assert main(["train", *where, "--run", str(run), *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run), "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    halves, (task,) = MODES[mode]
    other = "traits" if task == "emotion" else "emotion"
    score = {"emotion": "uar", "traits": "ccc"}
    assert record[task][score[task]] is not None
    assert record[other] is None or record[other][score[other]] is None
    assert main(["report", "--run", str(run)]) == 0
    assert " nan " not in (run / "report.md").read_text().lower()
    # Only the chosen halves reach the model, and the other task's labels change nothing.
    evaluation = Evaluation(Run.load(run))
    widths = {"both": 6, "emotion": 4, "traits": 2}
    assert {values.shape[1] for values in evaluation.data.features.values()} == {widths[halves]}
    rows = np.arange(len(evaluation.joined))
    before = evaluation.outputs("fusion", rows)
    kept = slice(4, 6) if halves == "traits" else slice(0, 4)
    for values in evaluation.joined.features.values():
        spared = values[:, kept].copy()
        values[:] = 9.0
        values[:, kept] = spared
    evaluation.data = resident(evaluation.joined, "cpu", halves=halves)
    after = evaluation.outputs("fusion", rows)
    answered = "emotion_logits" if task == "emotion" else "trait_scores"
    silent = "trait_scores" if task == "emotion" else "emotion_logits"
    assert np.isnan(getattr(before, silent)).all()
    same = np.array_equal(getattr(before, answered), getattr(after, answered))
    assert same == (halves != "both")


def test_in_a_single_task_mode_the_other_tasks_labels_and_predictions_do_not_matter(
    make_joined, make_task
):
    def losses(change: bool) -> list[float]:
        joined = make_joined(60)
        if change:
            joined.trait_predictions[:] = 0.5
            joined.trait_targets[:] = 1 - joined.trait_targets
        task = make_task(joined, mode="both->emotion", weighting="gradnorm", ssl=True)
        torch.manual_seed(0)
        return [task.loss(batch)[0].item() for batch in task.batches(2)]

    assert losses(False) == losses(True)
