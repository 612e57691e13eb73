"""`explain-config`: counts are those of the model, settings have an origin."""

from __future__ import annotations

import json

import pytest
import torch

from mepr_fusion.cli import main
from mepr_fusion.inputs import choose
from mepr_fusion.settings import ComponentSettings, FusionModelSettings, FusionSettings
from mepr_fusion.studies.explain import blocks, explanation, objective, parse_widths, read_settings
from mepr_fusion.train import build_model, train
from mepr_shared import config
from mepr_shared.train.settings import FitSettings

WIDTHS = ("--widths", "audio=24,text=20")
SMALL = FusionModelSettings(width=16, heads=2)


def explain(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["explain-config", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "settings",
    [
        FusionSettings(model=SMALL),
        FusionSettings(model=SMALL, components=ComponentSettings(*[False] * 6)),
        FusionSettings(model=SMALL, mode="traits->traits"),
        FusionSettings(model=FusionModelSettings(kind="published", width=16, heads=2)),
    ],
)
def test_blocks_hold_every_parameter_once(settings):
    run_config = {
        "settings": config.to_dict(settings),
        "modalities": {"audio": [12, 12], "text": [10, 10]},
    }
    state = torch.get_rng_state()
    found = explanation(run_config, [])
    assert torch.equal(torch.get_rng_state(), state)
    model = build_model(run_config)
    total = sum(p.numel() for p in model.parameters())
    assert sum(block["parameters"] for block in found["blocks"]) == found["parameters"] == total
    names = [name for name, _, _ in blocks(model)]
    assert len(set(names)) == len(names)
    modules = dict(model.named_modules())
    shared = found["shared_weight"]
    assert dict(model.named_parameters())[shared["name"]] is model.shared_weight()
    assert shared["shape"] == list(model.shared_weight().shape)
    head = modules.get("traits.head")
    if head is not None:
        shape = {block["block"]: block["shape"] for block in found["blocks"]}["traits.head"]
        assert shape == "[B, 16] -> [B, 5]"


def test_settings_say_where_they_come_from(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("[model]\nwidth = 32\nheads = 4\n")
    given = ("--config", str(tmp_path / "mine.toml"), "--set", "model.heads=2")
    found = explain(capsys, *WIDTHS, *given, "--set", "fit.epochs=3")
    origin = {entry["setting"]: (entry["value"], entry["from"]) for entry in found["settings"]}
    assert origin["model.width"] == (32, str(tmp_path / "mine.toml"))
    assert origin["model.heads"] == (2, "--set")
    assert origin["fit.batch_size"] == (32, "default.toml")
    assert origin["model.queries"] == (1, "default")
    assert found["modalities"] == {"audio": 24, "text": 20}
    assert found["dimensions"] == {"M": 2, "H": 32}


def test_settings_that_nothing_reads_are_not_shown():
    plain = dict(read_settings(FusionSettings(weighting="equal")))
    assert "gradnorm.alpha" not in plain and "emotion_weight" not in plain
    assert "gradnorm.alpha" in dict(read_settings(FusionSettings(weighting="gradnorm")))


def test_wallets_and_weights():
    found = objective(FusionSettings(weighting="gradnorm", ssl=True))
    assert found["supervised wallet"]["budget"] == 2.0
    assert found["semi-supervised wallet"]["budget"] == pytest.approx(0.8)
    assert len(found["terms"]) == 4
    fixed = objective(FusionSettings(weighting="fixed", emotion_weight=0.3, ssl=False))
    assert fixed["weights"] == {"emotion": 0.3, "traits": 1.0}
    equal = objective(FusionSettings(weighting="equal", mode="both->traits", ssl=False))
    assert equal["weights"] == {"traits": 1.0} and equal["terms"] == ["traits"]


def test_widths_from_exports_and_from_a_run_are_the_same(union, tmp_path, capsys):
    data = ("--corpus", str(union / "films.parquet"), "--exports", str(union / "exports"))
    small = ("--set", "model.width=16", "--set", "model.heads=2")
    found = explain(capsys, *data, *small)
    assert found["modalities"] == {"face": 6, "text": 6}
    settings = FusionSettings(model=SMALL, fit=FitSettings(epochs=1))
    inputs = choose([union / "films.parquet"], union / "exports", {})
    train(inputs, settings, tmp_path / "run", exports_root=union / "exports")
    of_run = explain(capsys, "--run", str(tmp_path / "run"))
    for name in ("blocks", "parameters", "shared_weight", "modalities"):
        assert of_run[name] == found[name]
    origin = {entry["setting"]: entry["from"] for entry in of_run["settings"]}
    assert (origin["model.width"], origin["model.queries"]) == ("run", "default")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which modalities?"),
        ((*WIDTHS, "--corpus", "x.parquet"), "which modalities?"),
        (("--corpus", "x.parquet"), "--corpus needs --exports"),
        (("--widths", "audio"), "NAME=WIDTH"),
        (("--widths", "audio=8,audio=8"), "names 'audio' twice"),
        ((*WIDTHS, "--run", "x"), "--run shows a run as it is"),
        ((*WIDTHS, "--set", "model.widht=8"), "did you mean 'width'"),
        (("--run", "nowhere"), "no such file"),
    ],
)
def test_what_cannot_be_explained_is_refused(capsys, arguments, message):
    assert main(["explain-config", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_odd_width_is_divided_too():
    assert parse_widths("a=7, b=6") == {"a": [4, 3], "b": [3, 3]}


def test_for_people_the_total_stands_below(capsys):
    assert (
        main(["explain-config", *WIDTHS, "--set", "model.width=16", "--set", "model.heads=2"]) == 0
    )
    captured = capsys.readouterr()
    assert "total" in captured.out and "shared weight: graph.out.weight [16, 16]" in captured.err
