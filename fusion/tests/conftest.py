"""Small corpora with exports that several tests of stage 3 share; made once per session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mepr_fusion.bundle_sources import find_sources
from mepr_fusion.bundle_write import write_bundle
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import train
from mepr_shared import config
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
