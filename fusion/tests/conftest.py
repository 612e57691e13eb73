"""Small corpora with exports that several tests of stage 3 share; made once per session."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.data import fit_statistics, resident, standardise
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.join import Joined
from mepr_fusion.model import FusionModel
from mepr_fusion.settings import MODES, FusionSettings
from mepr_fusion.task import FusionTask
from mepr_fusion.train import build_objective, train
from mepr_fusion.validation import labelled
from mepr_shared import config
from mepr_shared.config import build
from mepr_shared.contract import EmotionOutput, ExportInfo, ExportWriter
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.labels import EmotionScale
from mepr_shared.testing.toy_modalities import ToyModality, ToyTextModality
from mepr_shared.testing.toy_stages import toy_corpus, toy_exports
from mepr_shared.train.predictions import VAL_PREDICTIONS, write_predictions
from mepr_shared.train.runs import Run

CLIPS = 150


def write_corpus(folder: Path, name: str, kind: str, *, traits: bool) -> Corpus:
    """90 training and 60 validation clips, three of each source."""
    random = np.random.default_rng(len(name))
    columns: dict[str, object] = {
        "sample_id": [f"{name}{i:03d}" for i in range(CLIPS)],
        "source_id": [f"{name}-{i // 3}" for i in range(CLIPS)],
        "split": ["train"] * 90 + ["val"] * 60,
        "group_age": ["young" if i % 3 else "old" for i in range(CLIPS)],
    }
    if kind == "single_label":
        columns["emotion"] = np.eye(7, dtype=np.float32)[random.integers(0, 7, CLIPS)]
    else:
        weak = random.choice([0, 0.2, 1.0, 2.0], (CLIPS, 7), p=[0.5, 0.2, 0.2, 0.1])
        weak[:, 0] = (weak[:, 1:] == 0).all(axis=1)
        columns["emotion"] = weak.astype(np.float32)
    if traits:
        columns["traits"] = random.uniform(0.2, 0.8, (CLIPS, 5)).astype(np.float32)
    meta = CorpusMeta(name, EmotionScale(kind, 3.0 if kind == "intensity" else 1.0))
    return Corpus.build(meta, columns).write(folder / f"{name}.parquet")


def write_export(root: Path, corpus: Corpus, modality: str, missing: slice) -> None:
    """Noisy views of the labels, nothing for the missing samples."""
    random = np.random.default_rng(len(corpus.name) + len(modality))
    multi_label = corpus.meta.scale.is_multi_label
    shift = tuple(np.linspace(-0.5, 0.5, 7).tolist())
    output = EmotionOutput("sigmoid" if multi_label else "softmax", shift)
    info = ExportInfo(modality, "stage2", emotion_output=output)
    writer = ExportWriter(root, corpus=corpus, info=info)
    labels = np.nan_to_num(corpus.trait_values, nan=0.5)
    logits = 2 * corpus.emotion_targets() + random.normal(size=(CLIPS, 7)) - 1
    scores = np.clip(labels + random.normal(0, 0.1, labels.shape), 0, 1)
    embedding = np.concatenate([logits, scores], axis=1) @ random.normal(size=(12, 6))
    absent = np.zeros(CLIPS, dtype=bool)
    absent[missing] = True
    arrays = {
        "emotion_logits": logits,
        "trait_scores": scores,
        "emotion_embedding": embedding[:, :4],
        "trait_embedding": embedding[:, 4:],
    }
    for values in arrays.values():
        values[absent] = np.nan
    ((part, _),) = writer.pending()
    status = [f"no_{modality}" if gone else "ok" for gone in absent]
    writer.write_part(part, {"status": status, **arrays})
    writer.commit()


def write_union(folder: Path, modalities: Mapping[str, Sequence[str]]) -> Path:
    """Corpora `films` (one emotion each, traits), `talks` (intensities) and `calls` (as films),
    each with exports of the modalities given; every modality lacks another third of the clips."""
    torch.set_num_threads(1)
    kinds = {"films": ("single_label", True), "talks": ("intensity", False)}
    for name, given in modalities.items():
        kind, traits = kinds.get(name, ("single_label", True))
        corpus = write_corpus(folder, name, kind, traits=traits)
        for place, modality in enumerate(given):
            write_export(folder / "exports", corpus, modality, slice(place, None, 3))
    return folder


@pytest.fixture(scope="session")
def union(tmp_path_factory) -> Path:
    """Folder of `films.parquet`, `talks.parquet` and their exports of text and face."""
    folder = tmp_path_factory.mktemp("union")
    return write_union(folder, {"films": ("text", "face"), "talks": ("text", "face")})


@pytest.fixture(scope="session")
def strangers(tmp_path_factory) -> Path:
    """As `union`, and `calls`, which has only audio."""
    folder = tmp_path_factory.mktemp("strangers")
    given = {"films": ("text", "face"), "talks": ("text",), "calls": ("audio",)}
    return write_union(folder, given)


@dataclass
class Toys:
    """All stages over toy modalities.

    Attributes:
        folder: corpora, runs, exports, `stage3` and `bundle`.
        modalities: text, audio, and face and scene, which look; by name.
        stage3: the run.
        bundle: the directory.
    """

    folder: Path
    modalities: dict[str, ToyModality]
    stage3: Run
    bundle: Path


@pytest.fixture(scope="session")
def toys(tmp_path_factory) -> Toys:
    """Two corpora, one of each kind; audio knows emotions alone."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toys")
    corpora = [
        toy_corpus(folder, "films"),
        toy_corpus(folder, "talks", multi_label=True, traits=False),
    ]
    modalities = [
        ToyTextModality("text"),
        ToyModality("audio"),
        ToyModality("face", looks=True),
        ToyModality("scene", looks=True),
    ]
    toy_exports(folder, corpora, modalities, audio="emotion")
    quick = config.parse_assignments(["fit.epochs=1", "model.width=16", "model.heads=2"])
    run = train(
        choose([folder / "films.parquet", folder / "talks.parquet"], folder / "exports", {}),
        config.build(FusionSettings, quick),
        folder / "stage3",
        exports_root=folder / "exports",
    )
    write_predictions(run.path / VAL_PREDICTIONS, Evaluation(run).predictions("val"))
    write_bundle(run, find_sources(run, roots=[folder]), folder / "bundle")
    return Toys(
        folder, {modality.name: modality for modality in modalities}, run, folder / "bundle"
    )


SMALL_SCALES = {"films": EmotionScale(), "talks": EmotionScale()}


def small_joined(count: int = 60) -> Joined:
    """Films have emotions, talks have traits, some samples have neither; modalities are missing."""
    random = np.random.default_rng(0)
    corpus_of = np.repeat([0, 1], [count // 3, count - count // 3]).astype(np.int32)
    present = random.uniform(size=(count, 2)) < 0.7
    present[:, 1] |= ~present.any(axis=1)
    emotion = np.eye(7, dtype=np.float32)[np.arange(count) % 7]
    emotion[corpus_of == 1] = np.nan
    traits = random.uniform(size=(count, 5)).astype(np.float32)
    traits[corpus_of == 0] = np.nan
    emotion[:3], traits[-3:] = np.nan, np.nan
    features = {
        name: random.normal(size=(count, 4)).astype(np.float32) for name in ("face", "text")
    }
    logits = random.normal(size=(count, 2, 7)).astype(np.float32)
    scores = random.uniform(size=(count, 2, 5)).astype(np.float32)
    for index, values in enumerate(features.values()):
        values[~present[:, index]] = np.nan
    logits[~present], scores[~present] = np.nan, np.nan
    return Joined(
        modalities=("face", "text"),
        widths={"face": (2, 2), "text": (2, 2)},
        corpora=("films", "talks"),
        corpus_of=corpus_of,
        rows=np.arange(count),
        splits=np.array(["train", "train", "val"] * (count // 3), dtype=object),
        source_ids=np.array([f"s{i // 2}" for i in range(count)], dtype=object),
        features=features,
        emotion_predictions=logits,
        trait_predictions=scores,
        present=present,
        emotion_targets=emotion,
        trait_targets=traits,
        multi_label=np.zeros(count, dtype=bool),
        prior_shift=np.zeros((2, 7), dtype=np.float32),
    )


def small_task(joined: Joined, **options) -> FusionTask:
    """A task over a copy of the table (`standardise` writes over the features)."""
    torch.manual_seed(0)
    given = {
        "model": {"width": 8, "heads": 2, "dropout": 0.0, "modality_dropout": 0.0},
        "weighting": "fixed",
        "trait_weight": 2.0,
        "trait_loss": {"loss": "mse"},
        "fit": {"batch_size": 8, "seed": 0},
    }
    settings = build(FusionSettings, given, options)
    shape = asdict(settings.model) | asdict(settings.components)
    shape.pop("kind")
    model = FusionModel({"face": 4, "text": 4}, tasks=MODES[settings.mode][1], **shape)
    data = resident(copy.deepcopy(joined), "cpu")
    fit_statistics(model, data, torch.from_numpy(labelled(joined, "train")))
    objective = build_objective(settings, joined, joined.emotion_targets)
    return FusionTask(model, standardise(model, data), joined, SMALL_SCALES, objective, settings)


@pytest.fixture(scope="session")
def make_joined() -> Callable[..., Joined]:
    """Makes a small joined table."""
    return small_joined


@pytest.fixture(scope="session")
def make_task() -> Callable[..., FusionTask]:
    """Makes a `FusionTask` of a joined table, with settings as keywords."""
    return small_task
