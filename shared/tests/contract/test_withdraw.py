"""A withdrawn person is gone from exports, which stay valid under their id."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.contract.verify import verify
from mepr_shared.contract.withdraw import withdraw_from_exports
from mepr_shared.contract.writer import ExportWriter

WHO = ["clip 01 é", "clip 12 é"]


def test_rows_stay_without_data_and_the_export_stays_valid(export: Path, corpus: Any) -> None:
    before = Export.open(export)
    assert before.status[before.row_of(WHO)].tolist() == ["ok", "ok"]
    root = export.parents[2]
    assert withdraw_from_exports(root, "demo", WHO, reason="asked to") == [export]
    assert verify(export, deep=True, corpus=corpus) == []
    after = Export.open(export)
    rows = after.row_of(WHO)
    assert after.export_id == before.export_id
    assert after.status[rows].tolist() == ["withdrawn"] * 2
    assert [after.status_reason[row] for row in rows] == ["asked to"] * 2
    assert [after.source_sha256[row] for row in rows] == [None, None]
    assert [after.n_frames[row] for row in rows] == [None, None]
    assert np.isnan(after.trait_embedding[rows]).all()
    others = [name for name in corpus.sample_ids if name not in WHO]
    np.testing.assert_array_equal(
        after.emotion_logits[after.row_of(others)], before.emotion_logits[before.row_of(others)]
    )
    assert after.manifest.withdrawals[0].sample_ids == WHO
    assert after.check_against(corpus) == []


def test_nothing_of_the_person_is_left_on_the_disk(export: Path) -> None:
    withdraw_from_exports(export.parents[2], "demo", WHO, reason="asked to")
    for path in (export / "samples").iterdir():
        for row in pq.read_table(path).to_pylist():
            if row["sample_id"] in WHO:
                assert row["emotion_logits"] is row["trait_scores"] is row["source_sha256"] is None
    named = {file.path for file in Export.open(export).manifest.files}
    assert {f"samples/{path.name}" for path in (export / "samples").iterdir()} == named


def test_withdrawals_add_up_and_are_said_once(export: Path, corpus: Any) -> None:
    root = export.parents[2]
    for who in WHO:
        assert withdraw_from_exports(root, "demo", [who, "nobody"], reason="asked") == [export]
        assert verify(export, deep=True, corpus=corpus) == []
    assert withdraw_from_exports(root, "demo", WHO, reason="asked") == []
    recorded = Export.open(export).manifest.withdrawals
    assert [withdrawal.sample_ids for withdrawal in recorded] == [[WHO[0]], [WHO[1]]]


def test_whole_numbers_given_for_floats_do_not_change_the_id(
    tmp_path: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    output = EmotionOutput("softmax", [0] * 7, temperature=1)
    export = write_export(tmp_path, corpus, emotion_output=output)
    withdraw_from_exports(tmp_path, "demo", WHO, reason="asked")
    assert verify(export, deep=True) == []


def test_an_interrupted_withdrawal_leaves_a_valid_export_and_can_be_repeated(
    export: Path, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    root = export.parents[2]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            withdraw_from_exports(root, "demo", WHO, reason="asked")
    assert Export.open(export).status[1] == "ok"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            withdraw_from_exports(root, "demo", WHO, reason="asked")
    assert Export.open(export).status[1] == "withdrawn"
    withdraw_from_exports(root, "demo", WHO, reason="asked")
    assert verify(export, deep=True, corpus=corpus) == []


def test_an_edit_that_claims_to_be_a_withdrawal_is_found(export: Path) -> None:
    withdraw_from_exports(export.parents[2], "demo", WHO, reason="asked")
    manifest = export / "manifest.json"
    content = json.loads(manifest.read_text())
    content["original"]["files"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    assert {finding.code for finding in verify(export, deep=True)} == {"manifest_hash"}


def test_an_update_keeps_a_withdrawn_sample_withdrawn(
    export: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    withdraw_from_exports(export.parents[2], "demo", WHO, reason="asked")
    hashes = dict.fromkeys(corpus.sample_ids, "changed")
    old = Export.open(export)
    writer = ExportWriter(
        export.parents[2], corpus=corpus, info=info(), reuse=old, source_sha256=hashes
    )
    for index, ids in writer.pending():
        assert not set(ids) & set(WHO)
        writer.write_part(index, columns(ids))
    new = Export.open(writer.commit())
    assert new.status[new.row_of(WHO)].tolist() == ["withdrawn"] * 2


def test_unfinished_exports_of_the_corpus_are_removed(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info())
    writer.write_part(0, columns(writer.pending()[0][1]))
    withdraw_from_exports(tmp_path, "demo", WHO, reason="asked")
    assert list(tmp_path.rglob("*.parquet")) == []
