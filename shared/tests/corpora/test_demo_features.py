"""The feature demo: frozen, with gaps, and an oracle that fuses as well as can be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mepr_shared.corpora.columns import label_matrix
from mepr_shared.corpora.demo import feature_oracle, make_demo_features
from mepr_shared.corpora.demo_features import MODALITIES, WIDTH
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError
from mepr_shared.metrics import multi_label_scores, trait_scores


def read(folder: Path, **options) -> tuple[Corpus, dict[str, Path]]:
    paths = make_demo_features(folder, **options)
    return Corpus.read(paths.pop("corpus")), paths


def validation_scores(corpus: Corpus, tables: dict[str, Path]) -> tuple[float, float]:
    """AUROC over six emotions and mean CCC of the oracle's predictions."""
    rows = corpus.select(split="val")
    expected = feature_oracle(corpus, tables)
    emotion = multi_label_scores(
        corpus.emotion_targets()[rows], expected.emotion_probability[rows], np.full(7, 0.5)
    )
    traits = trait_scores(corpus.trait_values[rows], expected.trait_mean[rows])
    return emotion["auroc"], traits["ccc"]


def test_the_generator_is_frozen(tmp_path: Path) -> None:
    # If this fails the generator changed: give it a new version, or undo the change.
    corpus, tables = read(tmp_path, clips=60, seed=3)
    digest = hashlib.sha256(repr([corpus.splits.tolist(), corpus.source_ids.tolist()]).encode())
    digest.update(np.nan_to_num(corpus.emotion_values, nan=-1).tobytes())
    for path in tables.values():
        embedding = label_matrix(pq.read_table(path)["emotion_embedding"], WIDTH)
        digest.update(np.round(np.nan_to_num(embedding, nan=-9), 3).tobytes())
    assert digest.hexdigest()[:16] == "4eed208166beca3b"


def test_tables_have_a_row_per_clip_and_gaps_with_a_status(tmp_path: Path) -> None:
    corpus, tables = read(tmp_path, clips=400)
    present = []
    for modality, path in tables.items():
        table = pq.read_table(path)
        assert table["sample_id"].to_pylist() == corpus.sample_ids
        status = np.array(table["status"].to_pylist())
        assert set(status) == {"ok", MODALITIES[modality][0]}
        assert 0.15 < (status != "ok").mean() < 0.35
        for name, width in (("emotion_logits", 7), ("trait_scores", 5), ("trait_embedding", WIDTH)):
            values = label_matrix(table[name], width)
            assert (np.isnan(values).all(axis=1) == (status != "ok")).all()
        scores = label_matrix(table["trait_scores"], 5)[status == "ok"]
        assert scores.min() >= 0 and scores.max() <= 1
        present.append(status == "ok")
    assert np.any(present, axis=0).all()  # no clip is without any modality
    training, validation = (corpus.select(split=split) for split in ("train", "val"))
    for values in (corpus.emotion_values, corpus.trait_values):
        missing = np.isnan(values).any(axis=1)
        assert 0.4 < missing[training].mean() < 0.6 and not missing[validation].any()


def test_all_modalities_together_beat_each_alone(tmp_path: Path) -> None:
    corpus, tables = read(tmp_path, clips=2000)
    together = validation_scores(corpus, tables)
    assert together[0] > 0.8 and together[1] > 0.6
    for modality, path in tables.items():
        alone = validation_scores(corpus, {modality: path})
        assert 0.5 < alone[0] < together[0] - 0.05
        assert 0.0 < alone[1] < together[1] - 0.05


def test_the_posterior_is_the_conditional_mean(tmp_path: Path) -> None:
    """No linear regression from the embeddings does better than the closed form."""
    corpus, tables = read(tmp_path, clips=4000)
    x = []
    for path in tables.values():
        table = pq.read_table(path)
        names = ("emotion_embedding", "trait_embedding")
        x.append(np.hstack([label_matrix(table[name], WIDTH) for name in names]))
    features = np.hstack(x).astype(float)
    observed = ~np.isnan(features).any(axis=1)
    rows = np.flatnonzero(observed & ~np.isnan(corpus.trait_values).any(axis=1))
    expected, values = feature_oracle(corpus, tables).trait_mean[rows], corpus.trait_values[rows]
    design = np.hstack([features[rows], np.ones((len(rows), 1))])
    half = len(rows) // 2
    fitted, *_ = np.linalg.lstsq(design[:half], values[:half], rcond=None)
    error = values[half:] - expected[half:]
    regression = values[half:] - design[half:] @ fitted
    assert (error**2).mean() < (regression**2).mean()
    # Errors do not depend on what was predicted, or the prediction could be improved.
    assert abs(np.corrcoef(error.ravel(), expected[half:].ravel())[0, 1]) < 0.06


def test_the_oracle_knows_the_rates(tmp_path: Path) -> None:
    corpus, tables = read(tmp_path, clips=4000)
    rows = np.flatnonzero(~np.isnan(corpus.emotion_values).any(axis=1))
    probability = feature_oracle(corpus, tables).emotion_probability[rows, 1:].ravel()
    present = corpus.emotion_values[rows, 1:].ravel()
    for low in np.arange(0, 1, 0.2):
        chosen = (probability >= low) & (probability < low + 0.2)
        assert present[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.04)


def test_relations_are_planted_unless_asked_not_to(tmp_path: Path) -> None:
    def relation(corpus: Corpus, column: int) -> float:
        rows = ~np.isnan(np.hstack([corpus.emotion_values, corpus.trait_values])).any(axis=1)
        traits = corpus.trait_values[rows].mean(axis=1)
        return float(np.corrcoef(corpus.emotion_values[rows, column], traits)[0, 1])

    planted, _ = read(tmp_path / "with", clips=2000)
    assert relation(planted, 4) > 0.2 and relation(planted, 5) < -0.2
    for name, options in (("without", {"relations": False}), ("no", {"shuffle_labels": True})):
        corpus, _ = read(tmp_path / name, clips=2000, **options)
        assert abs(relation(corpus, 4)) < 0.1 and abs(relation(corpus, 5)) < 0.1


def test_shuffled_labels_leave_nothing_to_know(tmp_path: Path) -> None:
    corpus, tables = read(tmp_path, clips=100, shuffle_labels=True)
    expected = feature_oracle(corpus, tables)
    assert np.ptp(expected.emotion_probability, axis=0).max() == 0
    assert np.ptp(expected.trait_mean, axis=0).max() == 0


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot fill three splits"):
        make_demo_features(tmp_path, clips=10)
    _, tables = read(tmp_path / "a", clips=60)
    with pytest.raises(DataError, match="exists"):
        make_demo_features(tmp_path / "a", clips=60)
    larger, _ = read(tmp_path / "b", clips=70)
    with pytest.raises(DataError, match="has no row for"):
        feature_oracle(larger, tables)
