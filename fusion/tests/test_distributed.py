"""Two processes train what one trains, and only the first one writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mepr_fusion.given import DEFAULTS
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import build_model, train
from mepr_shared import config
from mepr_shared.errors import ConfigError
from mepr_shared.train import distributed
from mepr_shared.train.runs import Run

SETTINGS = {
    "model.width": 16,
    "model.heads": 2,
    "model.dropout": 0.0,
    "model.modality_dropout": 0.0,
    "trait_loss.loss": "mse+0.5*ccc",
    "ssl": "true",
    "semi.warmup": 0,
    "semi.positive": 0.3,
    "hidden_labels": 0.4,
    "weighting": "gradnorm",
    "gradnorm.first_steps": 2,
    "fit.batch_size": 11,
    "fit.epochs": 2,
    # Adam divides by the gradient's size: where that is rounding alone, so is the step.
    "fit.optimiser": "sgd",
    "fit.learning_rate": 0.02,
    "fit.keep": "last",
}


CORPORA = ("films", "talks")


def train_here(union: Path, run: Path, **changes: object) -> Run:
    given = config.parse_assignments(f"{k}={v}" for k, v in {**SETTINGS, **changes}.items())
    settings = config.build(FusionSettings, config.read_toml(DEFAULTS), given)
    inputs = choose([union / f"{name}.parquet" for name in CORPORA], union / "exports", {})
    return train(inputs, settings, run, exports_root=union / "exports")


def start(union: Path, run: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    """One process as torchrun would start it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    values = (rank, rank, size, port)
    environment |= {name: str(value) for name, value in zip(names, values, strict=True)}
    command = [sys.executable, "-m", "mepr_fusion.cli", "train", "--run", str(run), "--json"]
    command += ["--exports", str(union / "exports")]
    for corpus in CORPORA:
        command += ["--corpus", str(union / f"{corpus}.parquet")]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_give_the_weights_of_one_and_the_second_says_nothing(union, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [start(union, tmp_path / "two", rank, 2, port) for rank in range(2)]
    alone = train_here(union, tmp_path / "one")
    said = [process.communicate(timeout=120) for process in pair]
    for process, (_, talk) in zip(pair, said, strict=True):
        assert process.returncode == 0, talk
    assert '"run"' in said[0][0] and said[1][0] == "" and "epoch" not in said[1][1]
    both = Run.load(tmp_path / "two")
    weights = load_file(alone.weights_path)
    torch.manual_seed(0)
    untrained = build_model(alone.config).state_dict()
    untrained = {name: value for name, value in untrained.items() if "standardise" not in name}
    moved = 0.0
    for name, value in load_file(both.weights_path).items():
        # A pseudo-label at its threshold falls either way by the rounding of a sum.
        assert (value - weights[name]).abs().max() < 5e-4, name
        if name in untrained:
            moved = max(moved, (value - untrained[name]).abs().max().item())
    assert moved > 0.01
    assert {path.name for path in alone.path.iterdir()} <= {p.name for p in both.path.iterdir()}
    assert alone.log[-1]["train"].keys() >= {"loss/emotion_semi", "loss/traits_semi"}
    for mine, other in zip(alone.log, both.log, strict=True):
        assert mine["train"].keys() == other["train"].keys()
        for name, value in mine["train"].items():
            assert other["train"][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_bf16_trains_with_teacher_and_gradnorm(union, tmp_path):
    run = train_here(union, tmp_path / "run", **{"fit.precision": "bf16", "model.dropout": 0.1})
    (*_, last) = run.log
    assert last["train"]["skipped_steps"] == 0
    assert {"weight/emotion", "loss/emotion_semi", "gradient_norm/traits"} <= last["train"].keys()


def test_without_torchrun_nothing_is_started(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.start("cuda:1") == "cuda:1"
    assert (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.own(7) == slice(0, 7)


@pytest.mark.parametrize(
    ("environment", "device", "said"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "RANK and LOCAL_RANK"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, "cuda:1", "--device cuda:1 with several processes"),
        ({"RANK": "99", "LOCAL_RANK": "99"}, "cuda", "process 99 of this machine has no GPU"),
    ],
)
def test_a_wrong_start_is_refused_in_one_line(environment, device, said, monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    common = {"WORLD_SIZE": "100", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**common, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        distributed.start(device)


def test_parts_of_a_batch_cover_it_once(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    covered = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        covered += range(8)[distributed.own(8)]
    assert covered == list(range(8))
