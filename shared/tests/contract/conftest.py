"""A small corpus and an export of it, as the tests of this folder need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_shared.contract.schema import EmotionOutput, EncoderRef, ModelInfo, Producer
from mepr_shared.contract.writer import ExportInfo, ExportWriter

PART_ROWS = 8


@dataclass
class Hashes:
    samples_sha256: str = "samples"
    labels_sha256: str = "labels"


@dataclass
class StandInCorpus:
    """What the contract asks of a corpus (`CorpusLike`), and no more."""

    name: str
    sample_ids: list[str]
    splits: list[str | None]
    hashes: Hashes = field(default_factory=Hashes)


def columns_for(sample_ids: Sequence[str]) -> dict[str, Any]:
    """Made-up outputs that depend on the id alone; every fifth sample has no text."""
    arrays: dict[str, list[np.ndarray]] = {
        "emotion_logits": [],
        "trait_scores": [],
        "emotion_embedding": [],
        "trait_embedding": [],
    }
    widths = {"emotion_logits": 7, "trait_scores": 5, "emotion_embedding": 6, "trait_embedding": 3}
    status = []
    for sample_id in sample_ids:
        random = np.random.default_rng(list(sample_id.encode()))
        missing = sum(sample_id.encode()) % 5 == 0
        status.append("no_text" if missing else "ok")
        for name, width in widths.items():
            values = random.random(width, dtype=np.float32)
            arrays[name].append(np.full(width, np.nan, np.float32) if missing else values)
    return {
        "status": status,
        "status_reason": ["empty" if word != "ok" else None for word in status],
        "n_frames": [3 if word == "ok" else 0 for word in status],
        "source_sha256": [f"hash of {sample_id}" for sample_id in sample_ids],
        **{name: np.stack(rows) for name, rows in arrays.items()},
    }


def export_info(**changes: Any) -> ExportInfo:
    """An `ExportInfo` with every field set."""
    values: dict[str, Any] = {
        "modality": "text",
        "stage": "stage2",
        "model": ModelInfo(
            config={"width": 256},
            weights_sha256="weights",
            encoder=EncoderRef("an/encoder", "1"),
            seed=1,
            dev_metrics={"uar": 0.4},
        ),
        "emotion_output": EmotionOutput("sigmoid", [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0], 2.0),
        "generated_by": [Producer("mepr-test", "1.0")],
    }
    return ExportInfo(**{**values, **changes})


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., StandInCorpus]:
    """`make_corpus(name, ids, splits)`."""
    return StandInCorpus


@pytest.fixture(scope="session")
def info() -> Callable[..., ExportInfo]:
    """`info(**changes)`."""
    return export_info


@pytest.fixture(scope="session")
def columns() -> Callable[[Sequence[str]], dict[str, Any]]:
    """`columns(ids)`: what the model of these tests gives for samples."""
    return columns_for


@pytest.fixture(scope="session")
def write_export() -> Callable[..., Path]:
    """`write_export(root, corpus, **changes to info)` gives the folder of a finished export."""

    def write(root: Path, corpus: StandInCorpus, **changes: Any) -> Path:
        info = export_info(**changes)
        writer = ExportWriter(root, corpus=corpus, info=info, part_rows=PART_ROWS)
        for index, sample_ids in writer.pending():
            writer.write_part(index, columns_for(sample_ids))
        return writer.commit()

    return write


@pytest.fixture
def corpus() -> StandInCorpus:
    ids = [f"clip {number:02d} é" for number in range(18)] + ["日本", "z'z"]
    splits: list[str | None] = ["train", "val", "test", None]
    return StandInCorpus("demo", ids, [splits[i % 4] for i in range(len(ids))])


@pytest.fixture
def export(tmp_path: Path, corpus: StandInCorpus, write_export: Callable[..., Path]) -> Path:
    """The folder of an export of `corpus` in three parts."""
    return write_export(tmp_path / "exports", corpus)
