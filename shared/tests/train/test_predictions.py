"""`val_predictions.parquet`: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mepr_shared.errors import ContractError, DataError
from mepr_shared.train.predictions import SplitPredictions, read_predictions, write_predictions

NAN = float("nan")


def entry(corpus: str = "a", **changes) -> SplitPredictions:
    arrays = {
        "emotion_probabilities": np.array([[0.1] * 7, [NAN] * 7, [0.3] * 7], dtype=np.float32),
        "emotion_targets": np.eye(7, dtype=np.float32)[:3],
        "trait_targets": np.array([[NAN] * 5, [0.5] * 5, [0.1, NAN, 0.3, 0.4, 0.5]], np.float32),
    }
    return SplitPredictions(corpus, ["x", "y", "z"], ["s", "s", "t"], **{**arrays, **changes})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "val_predictions.parquet"
    second = entry(
        "b=1",
        emotion_kind="intensity",
        emotion_output="sigmoid",
        thresholds=[0.25] * 7,
        trait_scores=np.full((3, 5), 0.5, dtype=np.float32),
    )
    write_predictions(path, [entry(), second])
    found = read_predictions(path)
    assert list(found) == ["a", "b=1"]
    for written in (entry(), second):
        read = found[written.corpus]
        assert (list(read.sample_ids), list(read.source_ids)) == (["x", "y", "z"], ["s", "s", "t"])
        for name in ("emotion_kind", "emotion_output", "thresholds"):
            assert getattr(read, name) == getattr(written, name)
        for name in ("emotion_probabilities", "emotion_targets", "trait_targets"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert found["a"].trait_scores is None
    np.testing.assert_array_equal(found["b=1"].trait_scores, second.trait_scores)


def test_any_parquet_reader_sees_plain_columns(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", [entry()])
    table = pq.read_table(tmp_path / "p.parquet")
    assert table["emotion_probabilities"].to_pylist()[1] is None
    assert table.schema.field("trait_scores").type == pa.list_(pa.float32())
    assert table["corpus"].to_pylist() == ["a"] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"trait_scores": np.zeros((3, 4), np.float32)},
        {"trait_scores": np.zeros((2, 5), np.float32)},
        {"thresholds": [0.5]},
    ],
)
def test_wrong_shapes_are_refused(changes) -> None:
    with pytest.raises(DataError):
        entry(**changes)


def test_a_corpus_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        write_predictions(tmp_path / "p.parquet", [entry(), entry()])
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(ContractError, match="no such file"):
        read_predictions(path)
    pq.write_table(pa.table({"sample_id": ["x"]}), path)
    with pytest.raises(ContractError, match="holds no predictions"):
        read_predictions(path)
    write_predictions(path, [entry()])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ContractError, match="holds no predictions"):
        read_predictions(path)
