"""A run directory is never overwritten, never half-written, and says what is wrong with it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from mepr_shared.errors import ContractError, MeprError
from mepr_shared.train.checkpoint import load_trainer, load_weights, save_trainer, save_weights
from mepr_shared.train.runs import Run, replace_file

CONFIG = {"settings": {"fit": {"epochs": 3, "seed": 0}}}


def test_an_existing_run_is_refused_without_resume(tmp_path):
    Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    with pytest.raises(MeprError, match="already a run.*--resume"):
        Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    assert Run.create(tmp_path / "run", kind="stage1", config=CONFIG, resume=True).kind == "stage1"


def test_resuming_with_another_configuration_names_the_difference(tmp_path):
    Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    changed = {"settings": {"fit": {"epochs": 9, "seed": 0}}}
    with pytest.raises(MeprError, match="settings.fit.epochs was 3, now 9"):
        Run.create(tmp_path / "run", kind="stage1", config=changed, resume=True)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(MeprError, match="not empty and is no run"):
        Run.create(tmp_path, kind="stage1", config=CONFIG, resume=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_damaged_or_newer_run_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    run.write_json("config.json", {**run.config, "format_version": "2.0"})
    with pytest.raises(ContractError, match="another MEPR.*pip install --upgrade"):
        Run.load(run.path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(ContractError, match="damaged"):
        Run.load(run.path)
    with pytest.raises(ContractError, match="is this a run directory"):
        Run.load(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(target, fail)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_trainer_state_round_trip(tmp_path):
    run = Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    assert load_trainer(run, model, optimiser) is None
    save_trainer(run, model, optimiser, {"a": torch.ones(2)}, {"history": [1, 2]})
    other = nn.Linear(3, 2)
    other_optimiser = torch.optim.AdamW(other.parameters())
    record, extra = load_trainer(run, other, other_optimiser)
    assert record["history"] == [1, 2] and torch.equal(extra["a"], torch.ones(2))
    assert torch.equal(other.weight, model.weight)
    assert other_optimiser.state_dict()["state"][0]["exp_avg"].equal(
        optimiser.state_dict()["state"][0]["exp_avg"]
    )
    assert json.loads((run.path / "trainer.json").read_text())["history"] == [1, 2]


@pytest.mark.parametrize("name", ["weights.safetensors", "trainer.safetensors"])
def test_a_truncated_checkpoint_is_one_clear_error(tmp_path, name):
    run = Run.create(tmp_path / "run", kind="stage1", config=CONFIG)
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    save_weights(model.state_dict(), run.path / "weights.safetensors")
    save_trainer(run, model, optimiser, {}, {})
    path = run.path / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ContractError, match=name.replace(".", r"\.")):
        if name.startswith("weights"):
            load_weights(model, path)
        else:
            load_trainer(run, model, optimiser)


def test_weights_of_another_shape_are_refused(tmp_path):
    save_weights(nn.Linear(3, 2).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ContractError, match="does not fit the model"):
        load_weights(nn.Linear(4, 2), tmp_path / "weights.safetensors")
