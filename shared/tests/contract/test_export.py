"""An export gives back what was put in; its rules hold while it is written."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mepr_shared.contract.reader import Export, emotion_probabilities
from mepr_shared.contract.schema import EmotionOutput, ModelInfo
from mepr_shared.contract.statuses import STATUSES
from mepr_shared.contract.verify import verify
from mepr_shared.contract.writer import ExportWriter
from mepr_shared.errors import ContractError

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    ids=st.lists(names, min_size=1, max_size=12, unique=True),
    widths=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    part_rows=st.integers(1, 13),
    seed=st.integers(0, 99),
)
def test_what_goes_in_comes_out(
    make_corpus: Callable[..., Any],
    info: Callable[..., Any],
    ids: list[str],
    widths: tuple[int, int],
    part_rows: int,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    splits = random.choice(np.array(["train", "val", "test", None], dtype=object), len(ids))
    corpus = make_corpus("demo", ids, splits.tolist())
    statuses = dict(zip(ids, random.choice(STATUSES, len(ids)).tolist(), strict=True))
    shapes = {"emotion_logits": 7, "trait_scores": 5}
    shapes |= dict(zip(("emotion_embedding", "trait_embedding"), widths, strict=True))
    values: dict[str, dict[str, np.ndarray]] = {}
    for name in ids:
        values[name] = {}
        for column, width in shapes.items():
            row = random.random(width, dtype=np.float32)
            if statuses[name] not in ("ok", "partial"):
                row[:] = np.nan
            if statuses[name] == "partial" and column != "trait_scores" and random.random() < 0.5:
                row[:] = np.nan
            values[name][column] = row
    with tempfile.TemporaryDirectory() as root:
        writer = ExportWriter(root, corpus=corpus, info=info(), part_rows=part_rows)
        for index, wanted in writer.pending():
            columns: dict[str, Any] = {
                column: np.stack([values[name][column] for name in wanted]) for column in shapes
            }
            writer.write_part(index, {"status": [statuses[name] for name in wanted], **columns})
        path = writer.commit()
        assert verify(path, deep=True, corpus=corpus) == []
        export = Export.open(path)
        assert export.sample_ids == sorted(ids)
        assert export.split.tolist() == [splits[ids.index(name)] for name in sorted(ids)]
        assert export.status.tolist() == [statuses[name] for name in sorted(ids)]
        for column in shapes:
            found = getattr(export, column)
            expected = np.stack([values[name][column] for name in sorted(ids)])
            assert found.dtype == np.float32
            if not np.isnan(expected).all():
                np.testing.assert_array_equal(found, expected)
            else:
                assert np.isnan(found).all()
        assert export.row_of([*ids, "nobody else"]).tolist()[-1] == -1


def first_part(writer: ExportWriter, columns: Callable[..., Any]) -> dict[str, Any]:
    return columns(writer.pending()[0][1])


def test_columns_are_plain_types_and_never_half_precision(export: Path) -> None:
    for part in (export / "samples").iterdir():
        schema = pq.read_schema(part)
        kinds = {field.name: field.type for field in schema}
        for field in schema:
            kind = field.type.value_type if pa.types.is_list(field.type) else field.type
            assert kind in (pa.string(), pa.int32(), pa.float32())
        assert pa.types.is_list(kinds["emotion_logits"])
        assert not schema.field("sample_id").nullable
        assert not schema.field("status").nullable


def test_every_sample_has_a_row_and_parts_have_key_ranges(export: Path, corpus: Any) -> None:
    files = Export.open(export).manifest.files
    assert [file.rows for file in files] == [8, 8, 4]
    assert sum(file.rows for file in files) == len(corpus.sample_ids)
    keys = [key for file in files for key in (file.key_min, file.key_max)]
    assert keys == sorted(keys)
    assert files[0].path == "samples/part-00000-of-00003.parquet"


def test_counts_and_stats_are_of_the_rows(export: Path) -> None:
    opened = Export.open(export)
    total = sum(sum(statuses.values()) for statuses in opened.manifest.counts.values())
    assert total == len(opened)
    train = (opened.split == "train") & (opened.status == "ok")
    assert opened.manifest.counts["train"]["ok"] == train.sum()
    norms = np.linalg.norm(opened.emotion_logits[opened.status == "ok"], axis=1)
    stats = opened.manifest.stats["emotion_logits"]
    assert stats.rows == len(norms)
    assert stats.mean_norm == pytest.approx(norms.mean(), rel=1e-4)
    assert stats.std_norm == pytest.approx(norms.std(), rel=1e-3)
    assert stats.max_abs == pytest.approx(np.nanmax(np.abs(opened.emotion_logits)), rel=1e-4)


def test_the_same_export_again_is_already_there(
    export: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    before = (export / "manifest.json").read_bytes()
    writer = ExportWriter(export.parents[2], corpus=corpus, info=info(), part_rows=8)
    for index, ids in writer.pending():
        writer.write_part(index, columns(ids))
    assert writer.commit() == export
    assert writer.already_there
    assert (export / "manifest.json").read_bytes() == before
    assert [path.name for path in export.parent.iterdir()] == [export.name]


def test_a_damaged_export_with_the_same_id_is_not_overwritten(
    export: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    part = next((export / "samples").iterdir())
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    with pytest.raises(ContractError, match=r"exists and is damaged.*remove"):
        write_export(export.parents[2], corpus)
    assert part.read_bytes() == data


def test_another_model_is_another_export(
    export: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    other = write_export(export.parents[2], corpus, model=ModelInfo({"width": 128}))
    assert other != export
    assert verify(export, deep=True) == verify(other, deep=True) == []


def test_commit_refuses_missing_parts(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    writer.write_part(0, first_part(writer, columns))
    with pytest.raises(ContractError, match="2 parts are not written"):
        writer.commit()


def set_value(name: str, row: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(columns: dict[str, Any]) -> None:
        columns[name][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("status", 0, "okay"), "unknown status 'okay', did you mean 'ok'"),
        (set_value("status", 0, None), "unknown status"),
        (set_value("status", 0, "no_face"), "although status has no data"),
        (set_value("emotion_logits", 0, np.nan), "no emotion_logits although status is ok"),
        (set_value("emotion_logits", (0, 3), np.nan), "emotion_logits is not finite"),
        (set_value("trait_embedding", (0, 1), np.inf), "trait_embedding is not finite"),
        (set_value("trait_scores", (0, 1), 1.001), r"outside \[0, 1\]"),
        (set_value("n_frames", 0, -1), "n_frames is negative"),
        (lambda c: c.update(emotion_logits=np.zeros((8, 6))), r"emotion_logits is \[n, 7\]"),
        (lambda c: c.update(trait_scores=np.zeros((7, 5))), "7 rows for 8 samples"),
        (lambda c: c.update(emotion_logit=c["emotion_logits"]), "did you mean 'emotion_logits'"),
        (lambda c: c.pop("status"), "'status' is missing"),
        (lambda c: c.update(sample_id=["x"] * 8), "order of the samples"),
    ],
)
def test_rows_that_break_a_rule_are_refused(
    tmp_path: Path,
    corpus: Any,
    info: Callable[..., Any],
    columns: Callable[..., Any],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    part = first_part(writer, columns)
    row = part["status"].index("ok")
    # The changes are to the first row, which has data.
    order = [row, *(i for i in range(8) if i != row)]
    part = {
        k: v[order] if isinstance(v, np.ndarray) else [v[i] for i in order] for k, v in part.items()
    }
    change(part)
    with pytest.raises(ContractError, match=message):
        writer.write_part(0, part)
    assert len(writer.pending()) == 3


def test_widths_agree_between_parts(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    (first, first_ids), (second, second_ids), _ = writer.pending()
    writer.write_part(first, columns(first_ids))
    part = columns(second_ids)
    part["trait_embedding"] = part["trait_embedding"][:, :2]
    with pytest.raises(ContractError, match=r"trait_embedding has several widths: \[2, 3\]"):
        writer.write_part(second, part)
    del part["trait_embedding"]
    with pytest.raises(ContractError, match="trait_embedding is given for some samples"):
        writer.write_part(second, part)


def test_logits_need_to_say_how_they_are_read(
    tmp_path: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    with pytest.raises(ContractError, match="emotion_output"):
        write_export(tmp_path, corpus, emotion_output=None)


def test_a_corpus_with_a_duplicate_or_without_samples_is_refused(
    tmp_path: Path, make_corpus: Callable[..., Any], info: Callable[..., Any]
) -> None:
    with pytest.raises(ContractError, match="twice"):
        ExportWriter(tmp_path, corpus=make_corpus("demo", ["a", "a"], [None, None]), info=info())
    with pytest.raises(ContractError, match="no samples"):
        ExportWriter(tmp_path, corpus=make_corpus("demo", [], []), info=info())


def test_an_update_asks_only_for_new_and_changed_samples(
    tmp_path: Path,
    corpus: Any,
    make_corpus: Callable[..., Any],
    info: Callable[..., Any],
    columns: Callable[..., Any],
    write_export: Callable[..., Path],
) -> None:
    old = Export.open(write_export(tmp_path, corpus))
    grown = make_corpus("demo", [*corpus.sample_ids, "new"], [*corpus.splits, "val"])
    grown.hashes.samples_sha256 = "others"
    hashes = {name: f"hash of {name}" for name in grown.sample_ids}
    hashes["z'z"] = "another transcript"
    writer = ExportWriter(
        tmp_path, corpus=grown, info=info(), part_rows=8, reuse=old, source_sha256=hashes
    )
    assert [ids for _, ids in writer.pending()] == [["new", "z'z"]]
    for index, ids in writer.pending():
        writer.write_part(index, columns(ids))
    path = writer.commit()
    assert verify(path, deep=True, corpus=grown) == []
    new = Export.open(path)
    rows = new.row_of(old.sample_ids)
    np.testing.assert_array_equal(new.emotion_embedding[rows], old.emotion_embedding)
    assert [new.status_reason[row] for row in rows] == old.status_reason


def test_rows_of_another_model_are_not_taken_over(
    export: Path, corpus: Any, info: Callable[..., Any]
) -> None:
    old = Export.open(export)
    other = dataclasses.replace(info(), model=ModelInfo({"width": 1}, weights_sha256="others"))
    with pytest.raises(ContractError, match="another model"):
        ExportWriter(export.parents[2], corpus=corpus, info=other, reuse=old)


def test_probabilities_undo_the_prior_shift() -> None:
    logits = np.array([[0.0, 1.0, -800.0, 0.0, 0.0, 0.0, 800.0]], dtype=np.float32)
    shift = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    sigmoid = emotion_probabilities(logits, EmotionOutput("sigmoid", shift, 2.0))
    np.testing.assert_allclose(sigmoid, [[0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 1.0]], atol=1e-6)
    softmax = emotion_probabilities(
        logits[:, [0, 1, 0, 0, 0, 0, 0]], EmotionOutput("softmax", shift)
    )
    np.testing.assert_allclose(softmax, np.full((1, 7), 1 / 7), rtol=1e-6)


def test_joining_with_a_corpus_checks_name_split_and_labels(
    export: Path, corpus: Any, make_corpus: Callable[..., Any]
) -> None:
    opened = Export.open(export)
    assert opened.check_against(corpus) == []
    corpus.hashes.labels_sha256 = "others"
    assert "labels of demo changed" in opened.check_against(corpus)[0]
    corpus.hashes.samples_sha256 = "others"
    corpus.sample_ids.append("new")
    corpus.splits.append("val")
    assert any("1 samples of demo have no row" in w for w in opened.check_against(corpus))
    del corpus.sample_ids[0], corpus.splits[0]
    assert any("1 rows are no longer in demo" in w for w in opened.check_against(corpus))
    corpus.splits[0] = "test"
    with pytest.raises(ContractError, match="'val' in the export and 'test' in corpus"):
        opened.check_against(corpus)
    with pytest.raises(ContractError, match="of corpus 'demo', not of 'another'"):
        opened.check_against(make_corpus("another", ["a"], ["val"]))
    stranger = make_corpus("demo", ["a"], ["val"])
    stranger.hashes.samples_sha256 = "others"
    with pytest.raises(ContractError, match="no sample in common"):
        opened.check_against(stranger)
