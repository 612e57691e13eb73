"""Cross-corpus matrix: cells are what `evaluate` says, transfer rules, and named gaps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mepr_fusion.studies.work
from mepr_fusion.cli import main
from mepr_fusion.data import resident
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.join import join
from mepr_fusion.studies.jobs import Source
from mepr_fusion.studies.matrix import TO_ONE, TO_SEVERAL, transfer
from mepr_shared.contract import Export, ExportInfo, ExportWriter
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError
from mepr_shared.metrics import best_thresholds, multi_label_scores, single_label_scores
from mepr_shared.train.predictions import read_predictions
from mepr_shared.train.runs import Run

ARRAYS = ("emotion_logits", "trait_scores", "emotion_embedding", "trait_embedding")
NAMES = ("films", "talks", "calls")
OPTIONS = (
    *("--set", "model.width=16", "--set", "model.heads=2", "--set", "fit.epochs=2"),
    *("--set", "fit.learning_rate=0.003", "--set", "fit.precision=float32"),
)


def matrix(folder: Path, target: Path, *more: str) -> int:
    corpora = [item for name in NAMES for item in ("--corpus", str(folder / f"{name}.parquet"))]
    exports = ("--exports", str(folder / "exports"))
    return main(["matrix", *corpora, *exports, "--run", str(target), *OPTIONS, *more])


@pytest.fixture(scope="module")
def target(strangers, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("matrix") / "m"
    assert matrix(strangers, target) == 0
    return target


@pytest.fixture(scope="module")
def cells(target) -> dict[tuple[str, str, str], dict]:
    found = json.loads((target / "matrix.json").read_text())["cells"]
    return {(entry["train"], entry["test"], entry["task"]): entry for entry in found}


def test_every_pair_has_a_score_or_a_reason(cells, target):
    assert set(cells) == {
        (train, test, task)
        for train in (*NAMES, "all")
        for test in NAMES
        for task in ("emotion", "traits")
    }
    for entry in cells.values():
        assert (entry["reason"] is None) == (entry.get("score") is not None)
        if entry["reason"] is None:
            assert entry["n"] and entry["n_sources"] == 20 and entry["constant"] is not None
            assert entry["ci"][0] <= entry["score"] <= entry["ci"][1]
    assert "share no modality" in cells["films", "calls", "emotion"]["reason"]
    assert (
        cells["films", "talks", "traits"]["reason"] == "talks has no trait labels in its val split"
    )
    assert cells["talks", "films", "traits"]["reason"] == "talks has no trait labels to train on"
    assert cells["all", "calls", "traits"]["reason"] is None
    assert cells["films", "calls", "emotion"]["modalities"] == []
    text = (target / "matrix.md").read_text()
    assert "films -> calls, emotion: films and calls share no modality" in text
    assert (target / "matrix.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("train", "folder"), [("films", "films"), ("talks", "talks"), ("all", "+all")]
)
def test_a_cell_at_home_is_what_evaluate_says_of_that_run(cells, target, train, folder):
    records = Evaluation(Run.load(target / "runs" / folder)).scores("val")
    for record in records:
        for task in ("emotion", "traits"):
            entry = cells[train, record["corpus"], task]
            if record[task] is None:
                assert entry["reason"]
                continue
            name = entry["score_name"]
            assert entry["score"] == pytest.approx(record[task][name], abs=1e-7)
            assert entry["ci"] == pytest.approx(record[task]["ci"][name], abs=1e-7)
            assert entry["n"] == record[task]["n"]
            assert entry["constant"] == pytest.approx(record["baseline"][task][name], abs=1e-2)


def away(folder: Path, target: Path, home: str, test: str) -> tuple[Evaluation, np.ndarray]:
    """The evaluation of a run over a table joined by hand, in which `test` has only text, and the
    rows of its validation split."""
    evaluation = Evaluation(Run.load(target / "runs" / home))
    paths = [folder / f"{name}.parquet" for name in (home, test)]
    inputs = choose(paths, folder / "exports", {})
    modalities = list(evaluation.run.config["modalities"])
    exports = {
        (modality, corpus): export
        for (modality, corpus), export in inputs.exports.items()
        if modality == "text" or (corpus == home and modality in modalities)
    }
    kind = evaluation.run.config["multi_label"][home]
    kinds = {home: kind, test: kind}
    evaluation.joined = join(
        inputs.corpora, exports, prior_shift={}, multi_label=kinds, modalities=modalities
    )
    evaluation.data = resident(evaluation.joined, "cpu")
    return evaluation, evaluation.joined.select(split="val", corpus=test)


def test_trained_on_one_label_tested_on_several(strangers, target, cells):
    entry = cells["films", "talks", "emotion"]
    assert (entry["rule"], entry["score_name"]) == (TO_SEVERAL, "mwacc")
    assert entry["modalities"] == ["text"] and entry["n"] == 40 and entry["unanswered"] == 20
    evaluation, rows = away(strangers, target, "films", "talks")
    home = evaluation.joined.select(split="val", corpus="films")

    def softmax(rows: np.ndarray) -> np.ndarray:
        z = evaluation.outputs("fusion", rows).emotion_logits.astype(np.float64)
        power = np.exp(z - z.max(axis=1, keepdims=True))
        return power / power.sum(axis=1, keepdims=True)

    thresholds = best_thresholds(evaluation.joined.emotion_targets[home], softmax(home))
    targets = evaluation.joined.emotion_targets[rows]
    wanted = multi_label_scores(targets, softmax(rows), thresholds, output="softmax")["mwacc"]
    assert entry["score"] == pytest.approx(wanted, abs=1e-7)


def test_trained_on_several_labels_tested_on_one(strangers, target, cells):
    entry = cells["talks", "films", "emotion"]
    assert (entry["rule"], entry["score_name"]) == (TO_ONE, "uar")
    evaluation, rows = away(strangers, target, "talks", "films")
    z = evaluation.outputs("fusion", rows).emotion_logits.astype(np.float64)
    shift = np.array(evaluation.run.config["prior_shift"]["talks"])
    bound = np.array(evaluation.run.metrics["thresholds"]["fusion"])
    assert np.abs(shift).max() > 0.1
    margin = z + shift - np.log(bound / (1 - bound))
    wanted = single_label_scores(evaluation.joined.emotion_targets[rows], margin)["uar"]
    assert entry["score"] == pytest.approx(wanted, abs=1e-7)


def test_a_corpus_of_the_same_kind_is_answered_as_at_home(strangers, target, tmp_path):
    """`twins` is `films` under another name: away from home is then as at home."""
    films = Corpus.read(strangers / "films.parquet")
    columns = {name: films.table[name] for name in films.table.column_names}
    twins = Corpus.build(replace(films.meta, name="twins"), columns).write(tmp_path / "t.parquet")
    shutil.copytree(strangers / "exports" / "films", tmp_path / "exports" / "films")
    for modality in ("text", "face"):
        export = Export.open(next((tmp_path / "exports" / "films" / modality).iterdir()))
        info = ExportInfo(modality, "stage2", emotion_output=export.manifest.emotion_output)
        writer = ExportWriter(tmp_path / "exports", corpus=twins, info=info)
        arrays = {name: getattr(export, name) for name in ARRAYS}
        ((part, _),) = writer.pending()
        writer.write_part(part, {"status": export.status.tolist(), **arrays})
        writer.commit()
    inputs = choose([strangers / "films.parquet", tmp_path / "t.parquet"], tmp_path / "exports", {})
    source = Source.of(inputs, tmp_path / "exports")
    (away,) = transfer(Run.load(target / "runs" / "films"), source, "val")
    home = read_predictions(target / "runs" / "films" / "val_predictions.parquet")["films"]
    assert (away.corpus, away.thresholds) == ("twins", None)
    np.testing.assert_allclose(away.emotion_probabilities, home.emotion_probabilities, atol=1e-6)
    np.testing.assert_allclose(away.trait_scores, home.trait_scores, atol=1e-6)
    with pytest.raises(ContractError, match="trained on several corpora"):
        transfer(Run.load(target / "runs" / "+all"), source, "val")


def test_it_goes_on_after_an_interruption_with_the_same_matrix(
    strangers, target, tmp_path, monkeypatch
):
    real, calls = mepr_fusion.studies.work.train, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mepr_fusion.studies.work, "train", interrupted)
        assert matrix(strangers, tmp_path / "m") == 130
    assert matrix(strangers, tmp_path / "m", "--resume") == 0
    for name in ("matrix.json", "matrix.md"):
        assert (tmp_path / "m" / name).read_bytes() == (target / name).read_bytes()


def test_a_training_that_fails_is_named(strangers, tmp_path, monkeypatch):
    real = mepr_fusion.studies.work.train

    def fails(inputs, *arguments, **options):
        if inputs.corpora[0].name != "calls":
            raise RuntimeError("no memory")
        return real(inputs, *arguments, **options)

    monkeypatch.setattr(mepr_fusion.studies.work, "train", fails)
    assert matrix(strangers, tmp_path / "m", "--set", "fit.epochs=1") == 1
    found = json.loads((tmp_path / "m" / "matrix.json").read_text())["cells"]
    for entry in found:
        failed = entry["train"] != "calls"
        assert (entry["reason"] == "training failed: RuntimeError: no memory") == failed
