"""The columns that say where a text comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mepr_shared.corpora.columns import TRANSCRIPT, column_type
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError

COLUMNS = {
    "sample_id": ["b", "a"],
    "text": ["Heard.", "Read."],
    "text_source": ["asr", "given"],
    "asr_status": ["ok", None],
    "asr_reason": [None, None],
    "asr_language": ["en", None],
    "asr_language_probability": [np.nan, np.nan],
    "asr_confidence": [0.5, None],
    "asr_model": ["0123456789abcdef", None],
}


def test_they_are_kept_with_their_types(tmp_path: Path) -> None:
    Corpus.build(CorpusMeta("c"), COLUMNS).write(tmp_path / "x.parquet")
    found = Corpus.read(tmp_path / "x.parquet")
    for name, kind in TRANSCRIPT.items():
        assert found.table.schema.field(name).type == kind == column_type(name)
    assert list(found.column("text_source")) == ["given", "asr"]
    assert list(found.column("asr_confidence")) == [None, 0.5]
    assert list(found.column("asr_language_probability")) == [None, None]
    assert found.take(np.array([1])).column("asr_model")[0] == "0123456789abcdef"


def test_they_are_optional_and_no_part_of_what_is_read() -> None:
    plain = {name: COLUMNS[name] for name in ("sample_id", "text")}
    without = Corpus.build(CorpusMeta("c"), plain)
    assert not set(TRANSCRIPT) & set(without.table.column_names)
    assert without.hashes == Corpus.build(CorpusMeta("c"), COLUMNS).hashes


def test_another_source_is_refused() -> None:
    with pytest.raises(DataError, match=r"text_source is none of given, asr: 'b'"):
        Corpus.build(CorpusMeta("c"), {**COLUMNS, "text_source": ["guess", None]})
    with pytest.raises(DataError, match="asr_confidence"):
        Corpus.build(CorpusMeta("c"), {**COLUMNS, "asr_confidence": ["high", None]})


def test_an_unknown_column_names_them() -> None:
    with pytest.raises(DataError, match="asr_language_probability"):
        column_type("asr_langauge")
    assert column_type("text_source") == pa.string()
