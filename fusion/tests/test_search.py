"""Search over stage-3 settings: what it tries, what it keeps, what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from mepr_fusion.cli import main
from mepr_fusion.given import DEFAULTS
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionSettings
from mepr_fusion.studies.search_verb import DEFAULT_SPACE
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.train.runs import Run
from mepr_shared.train.search import (
    SearchResult,
    as_settings,
    best_toml,
    parse_space,
    settings_of_space,
)

pytest.importorskip("optuna")

SHARED = (
    *("--set", "model.heads=2", "--set", "fit.epochs=1", "--set", "fit.precision=float32"),
    *("--set", "trait_loss.loss=rmse+bell", "--set", "model.width=16"),
)


def search(folder: Path, *more: str) -> int:
    data = ("--corpus", str(folder / "films.parquet"), "--exports", str(folder / "exports"))
    return main(["search", *data, *more])


def space(tmp_path: Path, text: str) -> tuple[str, str]:
    (tmp_path / "space.toml").write_text(text)
    return "--space", str(tmp_path / "space.toml")


def test_the_default_space_is_one_of_settings_that_exist():
    space = parse_space(DEFAULT_SPACE, "default")
    assert set(space) == {
        *("fit.learning_rate", "fit.weight_decay"),
        *("model.dropout", "model.width", "model.modality_dropout"),
    }
    for layer in settings_of_space(space):
        settings = config.build(FusionSettings, layer)
        assert settings.model.width % settings.model.heads == 0


def test_best_toml_says_what_was_given_and_what_was_found():
    result = SearchResult({"fit.learning_rate": 1e-05, "weighting": "equal"}, 0.5, 7, [])
    text = best_toml(result, "score", {"fit": {"epochs": 3}, "ssl": False, "weighting": "fixed"})
    assert text.startswith("# best of 7 by validation score = 0.5000\n")
    assert tomllib.loads(text) == {
        "fit": {"epochs": 3, "learning_rate": 1e-05},
        "ssl": False,
        "weighting": "equal",
        "configurations_tried": 7,
    }
    assert as_settings({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_best_settings_train_the_best_trial_again(union, tmp_path, capsys):
    text = '"fit.learning_rate" = [1e-5, 0.01]\n"model.dropout" = [0.1]\n'
    options = ("--study", str(tmp_path / "s"), "--sampler", "grid", *SHARED)
    assert search(union, *options, *space(tmp_path, text), "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 and rows[0]["score"] >= rows[1]["score"]
    assert {row["fit.learning_rate"] for row in rows} == {1e-5, 0.01}
    trial = Run.load(tmp_path / "s" / "trials" / f"{rows[0]['trial']:04d}")
    assert trial.metrics["val"]["score"] == rows[0]["score"]
    given = config.read_toml(tmp_path / "s" / "best.toml")
    settings = config.build(FusionSettings, config.read_toml(DEFAULTS), given)
    config.refuse_unused(settings, given)
    inputs = choose([union / "films.parquet"], union / "exports", {})
    again = train(inputs, settings, tmp_path / "best", exports_root=union / "exports")
    assert again.metrics["configurations_tried"] == 2
    ours, theirs = (dict(r.config["settings"], configurations_tried=0) for r in (again, trial))
    assert ours == theirs
    assert again.metrics["val"]["score"] == rows[0]["score"]
    # A search that is through tries nothing more, and another question is refused.
    assert search(union, *options, *space(tmp_path, text)) == 0
    assert len(list((tmp_path / "s" / "trials").iterdir())) == 2
    more = ("--set", "fit.epochs=2")
    assert search(union, *options, *space(tmp_path, text), *more) == 2
    assert "another settings.fit.epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"model.widht" = [8, 16]', "did you mean 'width'"),
        ('"model.width" = [8, "wide"]', "takes int"),
        ('"weighting" = ["equal", "gradnrom"]', "did you mean 'gradnorm'"),
        ("", "no parameters to search"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_training(union, tmp_path, capsys, text, message):
    options = ("--study", str(tmp_path / "s"), *SHARED)
    assert search(union, *options, *space(tmp_path, text)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
