"""Stage 3 over corpora of different kinds, each sample with only some modalities."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.cli import main
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionModelSettings, FusionSettings
from mepr_fusion.train import load_model, train
from mepr_shared.contract import Export
from mepr_shared.corpora.index import Corpus
from mepr_shared.metrics import multi_label_scores
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import FitSettings

CLIPS = 150
SETTINGS = FusionSettings(
    model=FusionModelSettings(width=16, heads=2),
    fit=FitSettings(epochs=2, batch_size=16, precision="float32"),
)


@pytest.fixture(scope="module")
def folder(union, tmp_path_factory) -> Path:
    """`union` for this file alone, and a run on it."""
    path = shutil.copytree(union, tmp_path_factory.mktemp("evaluated") / "union")
    inputs = choose([path / "films.parquet", path / "talks.parquet"], path / "exports", {})
    train(inputs, SETTINGS, path / "run", exports_root=path / "exports")
    return path


@pytest.fixture(scope="module")
def evaluation(folder) -> Evaluation:
    return Evaluation(Run.load(folder / "run"))


def test_each_corpus_is_scored_by_its_own_kind(evaluation):
    films, talks = evaluation.scores("val")
    assert films["corpus"] == "films" and films["n"] == 60 and films["n_dropped"] == 0
    assert films["emotion"]["mwacc"] is None and films["emotion"]["confusion"] is not None
    assert films["traits"]["ccc"] is not None
    assert talks["emotion"]["mwacc"] is not None and talks["traits"] is None
    assert talks["modalities"]["text"]["emotion"]["n"] == 40
    assert set(evaluation.run.metrics["val"]) == {
        *("films/uar", "films/weighted_f1", "films/ccc", "films/macc"),
        *("talks/mwacc", "talks/uar", "talks/weighted_f1", "score"),
        "loss_of_exports",
    }


def test_strong_emotions_are_scored_apart_where_intensities_are_known(evaluation):
    films, talks = evaluation.scores("val")
    assert "strong" not in films["emotion"]
    rows = evaluation.joined.select(split="val", corpus="talks")
    corpus = evaluation.inputs.corpora[1]
    targets = (corpus.emotion_values[evaluation.joined.rows[rows]] > 1 / 3).astype(np.float32)
    logits = evaluation.outputs("fusion", rows).emotion_logits.astype(np.float64)
    logits += evaluation.joined.prior_shift[evaluation.joined.corpora.index("talks")]
    thresholds = np.array(evaluation.run.metrics["thresholds"]["fusion"])
    wanted = multi_label_scores(targets, 1 / (1 + np.exp(-logits)), thresholds)
    assert talks["emotion"]["strong"]["mwacc"] == pytest.approx(wanted["mwacc"])
    assert talks["emotion"]["strong"]["mwacc"] != talks["emotion"]["mwacc"]


def test_the_best_modality_is_compared_on_the_samples_both_answer(evaluation):
    films, _ = evaluation.scores("val")
    for task in ("emotion", "traits"):
        best = films["best_single"][task]
        assert best["difference"]["n"] == 40
        score = "uar" if task == "emotion" else "ccc"
        others = [films["modalities"][name][task][score] for name in ("face", "text")]
        first = best["difference"][score]["first"]
        assert first == pytest.approx(max(others))
        assert first == films["modalities"][best["modality"]][task][score]


def test_scores_by_a_column_of_the_corpus(evaluation):
    films, _ = evaluation.scores("val", by="group_age")
    groups = films["groups"]["group_age"]["groups"]
    assert {name: group["n"] for name, group in groups.items()} == {"old": 20, "young": 40}


def test_the_saved_model_answers_as_the_trained_one_and_survives_any_missing_modality(evaluation):
    data, model = evaluation.data, load_model(evaluation.run)
    rows = torch.arange(len(data))
    wanted = evaluation.outputs("fusion", rows.numpy())
    with torch.no_grad():
        again = model(*data.inputs)
        np.testing.assert_allclose(again.emotion_logits, wanted.emotion_logits, atol=1e-5)
        for gone in range(2):
            present = data.present.clone()
            present[:, gone] = False
            left = present.any(dim=1)
            features = {name: values[left] for name, values in data.features.items()}
            part = data[left]
            output = model(
                features, part.emotion_predictions, part.trait_predictions, present[left]
            )
            assert torch.isfinite(output.emotion_logits).all()
            assert torch.isfinite(output.trait_scores).all()


def test_labels_changed_since_training_are_said(folder, evaluation, capsys):
    path = folder / "films.parquet"
    corpus = Corpus.read(path)
    changed = corpus.emotion_values.copy()
    changed[0] = np.roll(changed[0], 1)
    columns = {name: corpus.table[name] for name in corpus.table.column_names}
    Corpus.build(corpus.meta, {**columns, "emotion": changed}).write(path, overwrite=True)
    try:
        assert main(["evaluate", "--run", str(folder / "run")]) == 0
        assert "labels of films changed" in capsys.readouterr().err
    finally:
        corpus.write(path, overwrite=True)


def test_a_damaged_export_is_refused_when_a_run_is_reopened(folder, capsys):
    path = next((folder / "exports" / "talks" / "face").glob("*/samples/*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    try:
        assert main(["evaluate", "--run", str(folder / "run")]) == 2
        assert path.name in capsys.readouterr().err
    finally:
        path.write_bytes(content)
    assert Export.open(path.parent.parent).modality == "face"
