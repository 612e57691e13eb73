"""Who withdraws is gone from the index, and stays gone."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.corpora.withdraw import withdraw
from mepr_shared.errors import DataError

DAY = datetime.date(2024, 5, 17)


def corpus() -> Corpus:
    columns = {
        "sample_id": ["a", "b", "c", "d"],
        "source_id": ["v1", "v1", "v2", "v3"],
        "speaker_id": ["anna", "bob", "anna", None],
        "text": ["one", "two", "three", "four"],
    }
    return Corpus.build(CorpusMeta("people"), columns)


@pytest.mark.parametrize(
    ("by", "ids", "gone"),
    [
        ("sample_id", ["b"], ["b"]),
        ("source_id", ["v1"], ["a", "b"]),
        ("speaker_id", ["anna"], ["a", "c"]),
        ("sample_id", ["a", "d"], ["a", "d"]),
    ],
)
def test_rows_go_and_a_tombstone_stays(by: str, ids: list[str], gone: list[str]) -> None:
    left, removed = withdraw(corpus(), ids, by=by, reason="consent withdrawn", day=DAY)
    assert removed == gone
    assert left.sample_ids == [i for i in "abcd" if i not in gone]
    assert list(left.meta.tombstones) == [
        {"sample_id": i, "withdrawn": "2024-05-17", "reason": "consent withdrawn"} for i in gone
    ]
    assert left.hashes.samples_sha256 != corpus().hashes.samples_sha256


def test_importing_again_does_not_bring_a_person_back(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    corpus().write(path)
    left, _ = withdraw(Corpus.read(path), ["anna"], by="speaker_id", day=DAY)
    left.write(path, overwrite=True)
    assert Corpus.read(path).sample_ids == ["b", "d"]
    written = corpus().write(path, overwrite=True)
    assert written.sample_ids == ["b", "d"]
    assert [stone["sample_id"] for stone in Corpus.read(path).meta.tombstones] == ["a", "c"]
    assert "anna" not in path.with_suffix(".json").read_text()


@pytest.mark.parametrize(
    ("by", "ids", "said"),
    [
        ("sample_id", ["a", "x"], "has no sample_id 'x'"),
        ("sample_id", [], "none given"),
        ("text", ["one"], "cannot withdraw by 'text'"),
        ("source_id", ["v1", "v2", "v3"], "every sample"),
    ],
)
def test_what_cannot_be_withdrawn_is_refused(by: str, ids: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        withdraw(corpus(), ids, by=by)
