"""Modalities that know one task alone, and corpora that share no modality, in one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mepr_fusion.cli import main
from mepr_shared.contract import EmotionOutput, ExportInfo, ExportWriter
from mepr_shared.corpora.index import Corpus, CorpusMeta

CLIPS, WIDTH = 120, 6
QUICK = ("--set", "fit.epochs=3", "--set", "model.width=16", "--set", "model.heads=2")


def make_corpus(folder: Path, name: str, *, seed: int, traits: bool) -> Corpus:
    random = np.random.default_rng(seed)
    emotion = np.eye(7, dtype=np.float32)[random.integers(0, 7, CLIPS)]
    splits = np.array(["train"] * 4 + ["val", "test"], dtype=object)[np.arange(CLIPS) % 6]
    columns = {
        "sample_id": [f"{name}-{i:03d}" for i in range(CLIPS)],
        "split": splits.tolist(),
        "source_id": [f"s{i}" for i in range(CLIPS)],
    }
    if traits:
        columns["traits"] = random.uniform(0.2, 0.8, (CLIPS, 5)).astype(np.float32)
    else:
        columns["emotion"] = emotion
    return Corpus.build(CorpusMeta(name), columns).write(folder / f"{name}.parquet")


def make_export(root: Path, corpus: Corpus, modality: str, *, one_task: bool, seed: int) -> None:
    """Predictions and embeddings near the labels; without any of traits where `one_task`."""
    random = np.random.default_rng(seed)
    info = ExportInfo(modality, "stage2", emotion_output=EmotionOutput(kind="softmax"))
    writer = ExportWriter(root, corpus=corpus, info=info)
    for index, ids in writer.pending():
        rows = [corpus.sample_ids.index(sample_id) for sample_id in ids]
        logits = 3 * np.nan_to_num(corpus.emotion_targets()[rows])
        logits = (logits + random.normal(size=logits.shape)).astype(np.float32)
        columns = {
            "status": ["ok"] * len(ids),
            "emotion_logits": logits,
            "emotion_embedding": (logits @ random.normal(size=(7, WIDTH))).astype(np.float32),
        }
        if not one_task:
            scores = np.nan_to_num(corpus.trait_values[rows], nan=0.5)
            noisy = np.clip(scores + 0.05 * random.normal(size=scores.shape), 0, 1)
            columns["trait_scores"] = noisy.astype(np.float32)
            columns["trait_embedding"] = noisy.astype(np.float32)
        writer.write_part(index, columns)
    writer.commit()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Films with text, people with text, and voices with audio that knows emotions alone."""
    root = tmp_path_factory.mktemp("single")
    plan = {"films": ("text", False), "people": ("text", True), "voices": ("audio", False)}
    paths = {"root": root, "run": root / "run"}
    for number, (name, (modality, traits)) in enumerate(plan.items()):
        corpus = make_corpus(root, name, seed=number, traits=traits)
        one_task = modality == "audio"
        make_export(root / "exports", corpus, modality, one_task=one_task, seed=number)
        paths[name] = root / f"{name}.parquet"
    corpora = [word for name in plan for word in ("--corpus", str(paths[name]))]
    where = ("--exports", str(root / "exports"), "--run", str(paths["run"]))
    assert main(["train", *corpora, *where, *QUICK]) == 0
    return paths


def test_every_corpus_is_evaluated_on_what_it_has(workspace, capsys) -> None:
    capsys.readouterr()
    assert main(["evaluate", "--run", str(workspace["run"]), "--split", "test", "--json"]) == 0
    found = {
        record["corpus"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert set(found) == {"films", "people", "voices"}
    assert all(record["n"] == CLIPS // 6 for record in found.values())
    for name in ("films", "voices"):
        assert found[name]["emotion"]["uar"] > 0.6
    assert found["people"]["traits"]["ccc"] > 0.6
    # A modality without a clip of this corpus has a row that says so.
    audio, text = (found["voices"]["modalities"][name] for name in ("audio", "text"))
    assert audio["emotion"]["n"] == CLIPS // 6 and audio["traits"] is None
    assert text["emotion"] is None and text["traits"] is None


def test_the_report_covers_both_modalities(workspace) -> None:
    assert main(["report", "--run", str(workspace["run"])]) == 0
    report = (workspace["run"] / "report.md").read_text()
    assert "voices" in report and "audio" in report and "text" in report
    assert " nan " not in report.lower()
