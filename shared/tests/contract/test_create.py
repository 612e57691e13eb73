"""Any team's table becomes a valid export, or one line says which row is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mepr_shared.contract.create import create_export
from mepr_shared.contract.living import resolve
from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.contract.verify import verify
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, TRAITS

SOFTMAX = EmotionOutput("softmax")
IDS = ["007", "008", "009", "010"]


@pytest.fixture
def corpus(make_corpus: Callable[..., Any]) -> Any:
    return make_corpus("demo", [*IDS, "011"], ["train", "val", "val", None, "test"])


def lists() -> dict[str, Any]:
    return {
        "sample_id": list(IDS),
        "emotion_logits": [[float(row + i) for i in range(7)] for row in range(4)],
        "trait_scores": [[row / 10 + i / 20 for i in range(5)] for row in range(4)],
        "emotion_embedding": [[row + 0.5, row + 0.25] for row in range(4)],
    }


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def check(export: Path, corpus: Any) -> Export:
    assert verify(export, deep=True, corpus=corpus) == []
    opened = Export.open(export)
    assert opened.sample_ids == corpus.sample_ids
    np.testing.assert_array_equal(opened.emotion_logits[:4], lists()["emotion_logits"])
    np.testing.assert_allclose(opened.trait_scores[:4], lists()["trait_scores"], rtol=1e-6)
    np.testing.assert_array_equal(opened.emotion_embedding[:4], lists()["emotion_embedding"])
    assert opened.trait_embedding.shape == (5, 0)
    assert opened.status.tolist() == ["ok"] * 4 + ["no_media"]
    return opened


def test_a_table_of_lists(tmp_path: Path, corpus: Any) -> None:
    path = parquet(tmp_path, lists())
    export = create_export(path, corpus, "gaze", tmp_path, emotion_output=SOFTMAX, alias="first")
    opened = check(export, corpus)
    assert opened.status_reason[4] == "no row in table.parquet"
    assert opened.manifest.emotion_output == SOFTMAX
    assert opened.manifest.modality == "gaze"
    assert resolve(tmp_path, "demo", "gaze", "first").path == export
    assert create_export(path, corpus, "gaze", tmp_path, emotion_output=SOFTMAX) == export


def test_a_csv_with_json_lists(tmp_path: Path, corpus: Any) -> None:
    columns = {k: v if k == "sample_id" else [json.dumps(x) for x in v] for k, v in lists().items()}
    path = tmp_path / "table.csv"
    pa.csv.write_csv(pa.table(columns), path)
    check(create_export(path, corpus, "gaze", tmp_path, emotion_output=SOFTMAX), corpus)


def test_a_csv_with_one_column_per_value_in_any_order(tmp_path: Path, corpus: Any) -> None:
    columns = lists()
    names = [n if n != "happiness" else "joy" for n in EMOTIONS]
    table = {"sample_id": IDS}
    for field, parts in (("emotion_logits", names), ("trait_scores", TRAITS)):
        for place in reversed(range(len(parts))):
            table[f"{field}.{parts[place]}"] = [row[place] for row in columns[field]]
    for place in range(2):
        table[f"emotion_embedding.{place}"] = [row[place] for row in columns["emotion_embedding"]]
    path = tmp_path / "table.csv"
    pa.csv.write_csv(pa.table(table), path)
    check(create_export(path, corpus, "gaze", tmp_path, emotion_output=SOFTMAX), corpus)


def test_incomplete_rows_are_partial_and_empty_ones_have_a_status(
    tmp_path: Path, corpus: Any
) -> None:
    columns = lists()
    columns["emotion_embedding"][1] = None
    for name in ("emotion_logits", "trait_scores", "emotion_embedding"):
        columns[name][2] = None
    export = Export.open(
        create_export(
            parquet(tmp_path, columns),
            corpus,
            "gaze",
            tmp_path,
            emotion_output=SOFTMAX,
            missing_status="no_video",
        )
    )
    assert export.status.tolist() == ["ok", "partial", "no_video", "ok", "no_video"]


def test_columns_of_the_table_are_kept(tmp_path: Path, corpus: Any) -> None:
    columns = lists() | {
        "status": ["ok", "ok", "ok", "ok"],
        "status_reason": ["a", None, None, None],
        "fold": [0, 1, None, None],
        "n_frames": [10, 11, 12, 13],
        "n_masked": [0, 0, 0, 1],
        "source_sha256": ["x", "y", "z", "w"],
        "split": ["train", "val", "val", None],
    }
    path = parquet(tmp_path, columns)
    export = Export.open(
        create_export(
            path, corpus, "gaze", tmp_path, emotion_output=SOFTMAX, train_rows="out_of_fold"
        )
    )
    assert export.fold == [0, 1, None, None, None]
    assert export.n_frames == [10, 11, 12, 13, None]
    assert export.n_masked == [0, 0, 0, 1, None]
    assert export.source_sha256 == ["x", "y", "z", "w", None]
    assert export.status_reason[0] == "a"
    assert export.manifest.train_rows == "out_of_fold"


def test_a_table_of_traits_alone_needs_no_emotion_output(tmp_path: Path, corpus: Any) -> None:
    columns = {key: lists()[key] for key in ("sample_id", "trait_scores")}
    path = create_export(parquet(tmp_path, columns), corpus, "gaze", tmp_path)
    assert verify(path, deep=True, corpus=corpus) == []
    assert Export.open(path).manifest.emotion_output is None


def put(name: str, row: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(columns: dict[str, Any]) -> None:
        columns.setdefault(name, [None] * 4)
        columns[name][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("sample_id"), "no column 'sample_id'"),
        (put("sample_id", 2, "008"), "rows 1 and 2 are both sample '008'"),
        (put("sample_id", 2, "99"), "row 2: sample '99' is not in corpus 'demo'"),
        (put("sample_id", 2, None), "row 2: sample_id is empty"),
        (put("emotion_logits", 1, [1.0]), "row 1: emotion_logits is 1 values, not 7"),
        (put("emotion_embedding", 3, [1.0]), "row 3: emotion_embedding is 1 values, not 2"),
        (put("trait_scores", 3, [0.1, 0.2, 2.0, 0.1, 0.1]), r"row 3: .*outside \[0, 1\]"),
        (put("emotion_logits", 0, [float("nan")] * 7), "row 0: emotion_logits .* not finite"),
        (put("emotion_logits", 0, [None] * 7), "row 0: emotion_logits .* not finite"),
        (put("status", 1, "okay"), r"row \d: sample .*unknown status"),
        (put("split", 1, "test"), "row 0: sample '007' has split None, in corpus 'demo' it is"),
        (lambda c: c.update(trait_score=c["trait_scores"]), "did you mean 'trait_scores'"),
        (lambda c: c.update({"emotion_logits.anger": [0.0] * 4}), "both 'emotion_logits' and"),
        (lambda c: c.update(n_frames=["x"] * 4), "'n_frames' is not all whole numbers"),
        (lambda c: [c.pop(k) for k in list(c) if k != "sample_id"], "has no data"),
    ],
)
def test_a_wrong_table_is_refused_with_file_row_and_field(
    tmp_path: Path, corpus: Any, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    columns = lists()
    change(columns)
    out = tmp_path / "exports"
    with pytest.raises(ContractError, match=message) as error:
        create_export(parquet(tmp_path, columns), corpus, "gaze", out, emotion_output=SOFTMAX)
    assert "table.parquet" in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "no such file"),
        ("table.parquet", b"no parquet", "cannot be read"),
        ("table.xlsx", b"PK", r"is \.parquet or \.csv"),
        ("table.csv", b"sample_id,trait_scores\n007,no list\n", "row 0: trait_scores is no JSON"),
        (
            "table.csv",
            b"sample_id,trait_scores\n007,5\n",
            "row 0: trait_scores is 5, not 5 numbers",
        ),
        ("table.csv", b"sample_id,trait_scores.openness\n007,0.5\n", "trait_scores.*is missing"),
        ("table.csv", b"sample_id,emotion_logits.rage\n007,0.5\n", "unknown emotion 'rage'"),
        ("table.csv", b"sample_id,trait_embedding.0\n007,x\n", "is not all numbers"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, corpus: Any, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractError, match=message):
        create_export(path, corpus, "gaze", tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_logits_need_to_say_how_they_are_read(tmp_path: Path, corpus: Any) -> None:
    with pytest.raises(ContractError, match="emotion_output"):
        create_export(parquet(tmp_path, lists()), corpus, "gaze", tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_the_status_of_missing_samples_has_no_data(tmp_path: Path, corpus: Any) -> None:
    with pytest.raises(ContractError, match="'ok' is no status of a sample without data"):
        create_export(parquet(tmp_path, lists()), corpus, "gaze", tmp_path, missing_status="ok")
