"""`val_predictions.parquet` of a run: what its model says about each validation sample.

With it two runs can be compared on the same samples, with a paired interval, long after training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mepr_shared.corpora.columns import label_array, label_matrix
from mepr_shared.errors import ContractError, DataError
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionKind
from mepr_shared.train.runs import replace_file

VAL_PREDICTIONS = "val_predictions.parquet"
WIDTHS = {
    "emotion_probabilities": len(EMOTIONS),
    "trait_scores": len(TRAITS),
    "emotion_targets": len(EMOTIONS),
    "trait_targets": len(TRAITS),
}
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), False) for name in ("corpus", "sample_id", "source_id")),
        *(pa.field(name, pa.list_(pa.float32())) for name in WIDTHS),
    ]
)
_METADATA = b"mepr.predictions"


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions and labels of N samples of one corpus.

    Attributes:
        corpus: its name.
        sample_ids: `N` ids.
        source_ids: `N` sources, over which intervals are drawn.
        emotion_probabilities: `[N, 7]` as decided on (see `thresholds`); None without the task.
        trait_scores: `[N, 5]` in [0, 1]; None without the task.
        emotion_targets: `[N, 7]` as `labels.emotion_targets` gives them, NaN where unlabelled.
        trait_targets: `[N, 5]`, NaN where unlabelled.
        emotion_kind: of the corpus; says which scores apply.
        emotion_output: what made the probabilities of the logits.
        thresholds: 7 probabilities from which an emotion counts as present; None for argmax.
    """

    corpus: str
    sample_ids: Sequence[str]
    source_ids: Sequence[str]
    emotion_probabilities: np.ndarray | None = None
    trait_scores: np.ndarray | None = None
    emotion_targets: np.ndarray | None = None
    trait_targets: np.ndarray | None = None
    emotion_kind: EmotionKind = "single_label"
    emotion_output: Literal["sigmoid", "softmax"] = "softmax"
    thresholds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        count = len(self.sample_ids)
        if len(self.source_ids) != count:
            raise DataError(f"{len(self.source_ids)} sources for {count} samples")
        for name, width in WIDTHS.items():
            values = getattr(self, name)
            if values is not None and values.shape != (count, width):
                raise DataError(f"{name} is {list(values.shape)}, not {[count, width]}")
        if self.thresholds is not None and len(self.thresholds) != len(EMOTIONS):
            raise DataError(f"{len(self.thresholds)} thresholds for {len(EMOTIONS)} emotions")


def write_predictions(path: Path, predictions: Sequence[SplitPredictions]) -> None:
    """Write the predictions of all corpora of a run, atomically.

    Args:
        path: the file, usually `RUN/val_predictions.parquet`.
        predictions: one per corpus, each corpus once.

    Raises:
        DataError: a corpus is there twice.
    """
    names = [entry.corpus for entry in predictions]
    if len(set(names)) < len(names):
        raise DataError(f"predictions of one corpus are given twice: {names}")
    metadata = {
        entry.corpus: {
            "emotion_kind": entry.emotion_kind,
            "emotion_output": entry.emotion_output,
            "thresholds": None if entry.thresholds is None else list(map(float, entry.thresholds)),
        }
        for entry in predictions
    }
    schema = _SCHEMA.with_metadata({_METADATA: json.dumps(metadata).encode()})
    table = pa.concat_tables([schema.empty_table(), *map(_to_table, predictions)])
    table = table.replace_schema_metadata(schema.metadata)
    replace_file(path, lambda target: pq.write_table(table, target, compression="zstd"))


def read_predictions(path: Path) -> dict[str, SplitPredictions]:
    """The predictions in a file by corpus; None for what no row of a corpus has.

    Raises:
        ContractError: no such file, or it was not written by `write_predictions`.
    """
    try:
        # As a file, not a dataset: a dataset would see a corpus in a folder named `a=b`.
        table = pq.ParquetFile(path).read()
        metadata = json.loads((table.schema.metadata or {})[_METADATA])
        return {
            name: _from_table(table.filter(pa.compute.equal(table["corpus"], name)), name, said)
            for name, said in metadata.items()
        }
    except FileNotFoundError:
        raise ContractError(f"no such file: {path}") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, DataError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ContractError(f"{path} holds no predictions: {message}") from None


def _to_table(entry: SplitPredictions) -> pa.Table:
    columns: dict[str, Any] = {
        "corpus": pa.array([entry.corpus] * len(entry.sample_ids), pa.string()),
        "sample_id": pa.array(list(entry.sample_ids), pa.string()),
        "source_id": pa.array(list(entry.source_ids), pa.string()),
    }
    for name in WIDTHS:
        values = getattr(entry, name)
        kind = _SCHEMA.field(name).type
        columns[name] = (
            pa.nulls(len(entry.sample_ids), kind) if values is None else label_array(values)
        )
    return pa.table(columns, schema=_SCHEMA)


def _from_table(table: pa.Table, name: str, said: dict[str, Any]) -> SplitPredictions:
    arrays: dict[str, Any] = {
        column: None
        if table[column].null_count == len(table)
        else label_matrix(table[column], width)
        for column, width in WIDTHS.items()
    }
    ids = {column: table[column].to_pylist() for column in ("sample_id", "source_id")}
    return SplitPredictions(name, ids["sample_id"], ids["source_id"], **arrays, **said)
