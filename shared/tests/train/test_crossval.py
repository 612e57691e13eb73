"""Cross-validation: every clip once, by a model that never saw its source; no leak, no selection on
the held-out fold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mepr_shared.config import build
from mepr_shared.contract import FrameStore, FrameStoreWriter
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EmotionScale
from mepr_shared.train.crossval import cross_validate
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import Stage1Settings

CLIPS, SOURCES = 160, 40
TINY = build(
    Stage1Settings,
    {
        "model": {"width": 16, "feedforward": 32, "dropout": 0.0},
        "fit": {"epochs": 15, "batch_size": 16, "learning_rate": 1e-2},
    },
)


class Synthetic:
    """Stands for a modality: only its name is read here."""

    name = "synthetic"
    distribution = "mepr-shared"


def make(folder, *, kind: str = "single_label", signal: float = 1.0):
    """A corpus without splits except for one test clip; frames carry labels, and the source."""
    random = np.random.default_rng(0)
    feeling, source = random.integers(0, 7, CLIPS), np.arange(CLIPS) % SOURCES
    emotion = np.eye(7, dtype=np.float32)[feeling]
    if kind == "multi_label":
        emotion[:, 0] = 0
        emotion = np.maximum(emotion, np.roll(emotion, 1, axis=0) * (feeling[:, None] % 3 == 0))
    columns = {
        "sample_id": [f"clip-{i:03d}" for i in range(CLIPS)],
        "split": ["test"] + [None] * (CLIPS - 1),
        "source_id": [f"s{s}" for s in source],
        "text": ["words"] * CLIPS,
        "emotion": list(emotion),
        "traits": list(random.uniform(0.2, 0.8, (CLIPS, 5)).astype(np.float32)),
    }
    corpus = Corpus.build(CorpusMeta("small", EmotionScale(kind)), columns)
    corpus = corpus.write(folder / "small.parquet")
    spec = {"encoder": "toy", "revision": "", "weights_sha256": "0", "settings": {}, "schema": 1}
    with FrameStoreWriter(folder / "store", "small", "synthetic", spec) as writer:
        for i, sample_id in enumerate(columns["sample_id"]):
            told = np.concatenate([signal * emotion[i], 2 * columns["traits"][i]])
            frames = told + 0.1 * random.normal(size=(2, 12))
            writer.add(sample_id, input_sha256="x", frames=frames.astype(np.float32))
    return corpus, FrameStore.open(writer.path)


def test_every_clip_is_judged_once_by_a_model_that_never_saw_its_source(tmp_path) -> None:
    corpus, store = make(tmp_path)
    path = tmp_path / "runs"
    said: list[str] = []
    result = cross_validate(
        Synthetic(), "emotion", corpus, store, TINY, path, folds=3, say=said.append
    )
    # The clip of the test split takes no part.
    assert result["emotion"]["n"] == CLIPS - 1 == sum(fold["n"] for fold in result["per_fold"])
    assert result["split"] == "crossval" and result["folds"] == 3 and result["by"] == "source_id"
    assert result["emotion"]["uar"] > 0.8 > result["baseline"]["emotion"]["uar"]
    assert result["emotion"]["ci"]["uar"][0] <= result["emotion"]["uar"]
    mean = np.mean([fold["uar"] for fold in result["per_fold"]])
    assert result["over_folds"]["uar"]["mean"] == pytest.approx(mean)
    assert json.loads((path / "crossval.json").read_text()) == json.loads(json.dumps(result))
    seen = [set(Run.load(path / str(k)).metrics["train_sources"]["small"]) for k in range(3)]
    # Each source is missing from its own fold's training, and from one validation part or more.
    for source in {f"s{i}" for i in range(SOURCES)}:
        assert sum(source not in names for names in seen) >= 1
    assert all(0 < len(names) < SOURCES for names in seen)
    assert [line for line in said if line.startswith("fold")] == [
        f"fold {k} of 3" for k in (1, 2, 3)
    ]


def test_nothing_is_found_where_there_is_nothing(tmp_path) -> None:
    corpus, store = make(tmp_path, signal=0.0)
    result = cross_validate(Synthetic(), "emotion", corpus, store, TINY, tmp_path / "r", folds=2)
    low, high = result["emotion"]["ci"]["uar"]
    assert low < 1 / 7 + 0.03 and result["emotion"]["uar"] < 0.3 and high < 0.4


def test_traits_and_several_labels(tmp_path) -> None:
    corpus, store = make(tmp_path, kind="multi_label")
    traits = cross_validate(Synthetic(), "traits", corpus, store, TINY, tmp_path / "t", folds=2)
    assert traits["traits"]["ccc"] > 0.15 and traits["emotion"] is None
    assert set(traits["over_folds"]) == {"ccc", "macc"}
    emotion = cross_validate(Synthetic(), "emotion", corpus, store, TINY, tmp_path / "e", folds=2)
    # Thresholds differ from fold to fold; pooled they still separate.
    assert emotion["emotion"]["mwacc"] > 0.8


def test_refusals(tmp_path) -> None:
    corpus, store = make(tmp_path)
    call = (Synthetic(), "emotion", corpus, store, TINY, tmp_path / "r")
    with pytest.raises(ConfigError, match="at least 2"):
        cross_validate(*call, folds=1)
    with pytest.raises(DataError, match="cannot fill"):
        cross_validate(*call, folds=SOURCES + 1)
    with pytest.raises(DataError, match="speaker_id"):
        cross_validate(*call, folds=2, by="speaker_id")
    only_test = corpus.take(np.flatnonzero(corpus.splits == "test"))
    with pytest.raises(DataError, match="outside its test split"):
        cross_validate(Synthetic(), "emotion", only_test, store, TINY, tmp_path / "r", folds=2)
    assert not (tmp_path / "r").exists()
