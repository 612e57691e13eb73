"""`mepr-fusion analyze` through its command, on a small trained run."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from mepr_fusion.analyze.attribution import Baseline
from mepr_fusion.analyze.guide_map import cosine, guide_vectors
from mepr_fusion.analyze.pseudo_answers import lacks_a_label, pseudo_labels
from mepr_fusion.analyze.relation_analysis import shown_probabilities
from mepr_fusion.analyze.run import calibrate
from mepr_fusion.cli import main
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionModelSettings, FusionSettings
from mepr_fusion.train import train
from mepr_shared.cli.main import main as mepr
from mepr_shared.corpora.demo import make_demo_features
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import FitSettings

MODALITIES = ("audio", "face", "text")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    paths = make_demo_features(folder, clips=400, seed=3)
    for name in MODALITIES:
        create = ("export", "create", "--modality", name, "--corpus", str(paths["corpus"]))
        assert mepr([*create, "--from", str(paths[name]), "--out", str(folder / "exports")]) == 0
    settings = FusionSettings(
        model=FusionModelSettings(width=16, heads=2),
        fit=FitSettings(epochs=1, batch_size=32, precision="float32"),
    )
    inputs = choose([paths["corpus"]], folder / "exports", {})
    train(inputs, settings, folder / "run", exports_root=folder / "exports")
    return folder / "run"


@pytest.fixture(scope="module")
def printed(run) -> str:
    """What `analyze --json` says on stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["analyze", "--run", str(run), "--samples", "25", "--json"]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def record(run, printed) -> dict:
    return json.loads((run / "analysis" / "analysis.json").read_text())


@pytest.fixture(scope="module")
def evaluation(run) -> Evaluation:
    return Evaluation(Run.load(run))


def test_it_prints_what_it_writes(printed, record):
    said = json.loads(printed)
    assert said.pop("report").endswith("analysis.md")
    assert said == record
    assert set(record) == {
        *("run", "split", "n", "tasks", "relations", "guide_map", "contributions"),
        *("score_changes", "calibration"),
    }


def test_figures_are_there_and_say_what_they_show(run, record):
    text = (run / "analysis" / "analysis.md").read_text()
    pictures = [line for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == 5
    for line in pictures:
        alt, name = line[2:].rstrip(")").rsplit("](", 1)
        assert len(alt) > 40
        assert (run / "analysis" / name).stat().st_size > 5000
    for needed in ("labels", "predictions", "pseudo labels", "Holm", "apparent personality"):
        assert needed in text


def test_relations_are_those_of_labels_and_answers(evaluation, record):
    joined = evaluation.joined
    rows = joined.select(split="val")
    outputs = evaluation.outputs("fusion", rows)
    probabilities = 1 / (1 + np.exp(-outputs.emotion_logits.astype(float)))
    for name, emotion, traits in (
        ("labels", joined.emotion_targets[rows], joined.trait_targets[rows]),
        ("predictions", probabilities, outputs.trait_scores),
    ):
        cells = record["relations"]["answers"][name]["cells"]
        for cell in cells:
            e, t = EMOTIONS.index(cell["emotion"]), TRAITS.index(cell["trait"])
            wanted = np.corrcoef(emotion[:, e], traits[:, t])[0, 1]
            assert cell["r"] == pytest.approx(wanted, abs=1e-6) and cell["n"] == len(rows)
    cells = record["relations"]["answers"]["predictions"]["cells"]
    assert {cell["supported"] for cell in cells} <= {True, False}
    assert "rectified" not in record["relations"]["answers"]  # all of val has both labels


def test_pseudo_labels_follow_the_rule_and_labels_stay(evaluation):
    joined = evaluation.joined
    train = joined.select(split="train")
    outputs = evaluation.outputs("fusion", train)
    emotion, traits = pseudo_labels(evaluation)
    labels = joined.emotion_targets[train]
    known = ~np.isnan(labels).any(axis=1)
    np.testing.assert_array_equal(emotion[known], labels[known])
    p = shown_probabilities(outputs, joined.multi_label[train])[~known]
    given = emotion[~known]
    np.testing.assert_array_equal(given == 1, p > 0.6)
    np.testing.assert_array_equal(given == 0, p < 0.1)
    lacking = np.isnan(joined.trait_targets[train]).all(axis=1)
    np.testing.assert_array_equal(traits[~lacking], joined.trait_targets[train][~lacking])
    # Confident is what is under the validation median: about half of the rows, trait by trait.
    trusted = (~np.isnan(traits[lacking])).mean(axis=0)
    assert ((trusted > 0.3) & (trusted < 0.7)).all()
    assert (lacks_a_label(joined, train) == (lacking | ~known)).all()
    again = evaluation.outputs("fusion", train)
    np.testing.assert_array_equal(again.trait_scores, outputs.trait_scores)


def test_contributions_are_complete_and_have_intervals(record):
    found = record["contributions"]
    assert found["n"] == 25 and found["completeness"]["largest"] <= 0.01
    rows = found["attribution"]
    assert len(rows) == 3 * (8 + 6)
    for row in rows:
        low, high = row["mean_size_ci"] or (0, 1)
        assert low <= row["mean_size"] <= high and abs(row["mean_signed"]) <= row["mean_size"]
        if row["output"] == "all":
            assert sum(row["share"].values()) == pytest.approx(1)
    for row in record["score_changes"]:
        assert row["difference"] == pytest.approx(row["with"] - row["without"])
    assert {row["score"] for row in record["score_changes"]} >= {"mwacc", "ccc"}
    assert found["deletion"]["traits"]["top"] > 0


def test_guide_vectors_are_compared_by_cosine(evaluation, record):
    vectors = guide_vectors(evaluation.model)
    stacked = np.concatenate([vectors["emotion"], vectors["traits"]])
    found = np.array(record["guide_map"]["similarity"])
    wanted = stacked[2] @ stacked[9] / np.linalg.norm(stacked[2]) / np.linalg.norm(stacked[9])
    assert found[2, 9] == pytest.approx(wanted)
    np.testing.assert_allclose(np.diag(found), 1)
    assert record["guide_map"]["names"] == [*EMOTIONS, *TRAITS]
    near = record["guide_map"]["to_class_means"]
    assert np.shape(near["emotion"]["cosine"]) == (7, 7)
    assert np.shape(near["traits"]["cosine"]) == (5, 5)
    assert np.isnan(cosine(np.zeros((1, 3)), np.ones((1, 3)))).all()


def test_calibration_is_fitted_on_validation_whatever_is_looked_at(run, evaluation, tmp_path):
    on_val = calibrate(evaluation, "val", ["emotion", "traits"])
    on_test = calibrate(evaluation, "test", ["emotion", "traits"])
    assert on_test["temperature"] == on_val["temperature"]
    for trait in TRAITS:
        width = on_val["traits"][trait]["half_width_90"]
        assert on_test["traits"][trait]["half_width_90"] == width
        assert on_val["traits"][trait]["coverage_90"] >= 0.9
    arguments = ["analyze", "--run", str(run), "--split", "test", "--samples", "5"]
    assert main([*arguments, "--out", str(tmp_path / "there")]) == 0
    stored = json.loads((run / "calibration.json").read_text())
    assert stored["split"] == "val" and set(stored) >= {"emotion", "traits", "temperature"}
    assert stored["temperature"]["softmax"] is None
    looked = json.loads((tmp_path / "there" / "analysis.json").read_text())
    assert looked["calibration"]["split"] == "test"
    scores = on_val["emotion"]["demo_features"]
    assert scores["after"]["nll"] <= scores["before"]["nll"]
    assert Baseline.load(run / "attribution_baseline.safetensors").emotion_widths == dict.fromkeys(
        MODALITIES, 16
    )


def test_what_cannot_be_analysed_is_refused_in_one_line(run, tmp_path, capsys):
    other = Run.create(tmp_path / "stage1", kind="stage1", config={})
    capsys.readouterr()
    for arguments, needed in (
        (["--run", str(other.path)], "stage1"),
        (["--run", str(tmp_path)], "config.json"),
        (["--run", str(run), "--samples", "0"], "--samples"),
    ):
        assert main(["analyze", *arguments]) == 2
        error = capsys.readouterr().err
        assert needed in error and error.count("\n") == 1
