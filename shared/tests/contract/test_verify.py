"""Every kind of damage is found, at opening where that is cheap, otherwise by the deep check."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mepr_shared.contract.files import sha256_file
from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import export_id_of, seal_of
from mepr_shared.contract.verify import verify
from mepr_shared.errors import ContractError


def codes(path: Path, deep: bool = True, **options: Any) -> set[str]:
    return {finding.code for finding in verify(path, deep, **options)}


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], *, reseal: bool = True) -> Path:
    """Change a manifest as somebody who knows the format would; gives the renamed folder."""
    content = json.loads((path / "manifest.json").read_bytes())
    change(content)
    if reseal:
        content["export_id"] = export_id_of(content)
        content["manifest_sha256"] = seal_of(content)
    (path / "manifest.json").write_text(json.dumps(content))
    return path.rename(path.with_name(content["export_id"])) if reseal else path


def rewrite_part(path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """Change the first part and make hashes and ids fit it again."""
    file = path / "samples" / "part-00000-of-00003.parquet"
    pq.write_table(change(pq.read_table(file)), file)

    def refit(content: dict[str, Any]) -> None:
        entry = content["files"][0]
        entry["bytes"], entry["sha256"] = file.stat().st_size, sha256_file(file)

    return rewrite(path, refit)


def test_a_good_export_has_no_findings(export: Path, corpus: Any) -> None:
    assert verify(export) == []
    assert verify(export, deep=True, corpus=corpus) == []


def test_a_flipped_bit_in_any_file_is_found(export: Path) -> None:
    files = [path for path in export.rglob("*") if path.is_file()]
    assert len(files) == 4
    for file in files:
        whole = file.read_bytes()
        # Odd, so that every bit of a byte has its turn.
        step = 5 if file.name == "manifest.json" else len(whole) // 40 | 1
        for place in range(0, len(whole), step):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 8)
            file.write_bytes(damaged)
            deep = file.name != "manifest.json"  # opening finds those
            assert verify(export, deep), f"{file.name}: bit {place % 8} of byte {place}"
        file.write_bytes(whole)
    assert verify(export, deep=True) == []


def test_reading_a_flipped_part_is_refused(export: Path) -> None:
    part = sorted((export / "samples").iterdir())[1]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 16
    part.write_bytes(data)
    with pytest.raises(ContractError, match=r"damaged.*mepr export verify"):
        Export.open(export).emotion_logits.sum()


@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_file_is_found_at_opening(export: Path, cut: int) -> None:
    for file in [*(export / "samples").iterdir(), export / "manifest.json"]:
        whole = file.read_bytes()
        # The last byte of the manifest is a newline; without it nothing is lost.
        lost = cut + 1 if file.name == "manifest.json" else cut
        os.truncate(file, len(whole) - lost)
        with pytest.raises(ContractError, match=file.name):
            Export.open(export)
        file.write_bytes(whole)


def test_a_missing_part_is_found_at_opening(export: Path) -> None:
    next((export / "samples").iterdir()).unlink()
    assert codes(export, deep=False) == {"file_missing"}


def test_what_is_no_export_is_said_so(tmp_path: Path) -> None:
    assert codes(tmp_path) == codes(tmp_path / "nowhere") == {"missing"}
    with pytest.raises(ContractError, match="is no export"):
        Export.open(tmp_path)


def test_label_order_that_differs_is_refused_with_both_orders(export: Path) -> None:
    changed = rewrite(export, lambda c: c["label_spaces"]["traits"].reverse())
    with pytest.raises(ContractError) as error:
        Export.open(changed)
    assert "['emotional_stability', 'agreeableness'" in str(error.value)
    assert "['openness', 'conscientiousness'" in str(error.value)


@pytest.mark.parametrize("relative", ["../outside.parquet", "/etc/hostname", "samples/link"])
def test_a_path_that_leads_out_is_refused_at_opening(export: Path, relative: str) -> None:
    shutil.copy(export / "samples/part-00000-of-00003.parquet", export.parent / "outside.parquet")
    (export / "samples" / "link").symlink_to(export.parent / "outside.parquet")
    changed = rewrite(export, lambda c: c["files"][0].update(path=relative))
    assert codes(changed, deep=False) == {"path"}


def test_a_higher_version_is_refused(export: Path) -> None:
    changed = rewrite(export, lambda c: c.update(format_version="2.0"))
    assert codes(changed, deep=False) == {"version"}
    with pytest.raises(ContractError, match="pip install --upgrade mepr-shared"):
        Export.open(changed)


def test_an_edited_manifest_is_found_at_opening(export: Path) -> None:
    rewrite(export, lambda c: c.update(created_at="2001-01-01T00:00:00+00:00"), reseal=False)
    assert codes(export, deep=False) == {"manifest_hash"}


def test_an_edited_manifest_with_a_new_hash_has_another_id(export: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["stage"] = "stage1"
        content["manifest_sha256"] = seal_of(content)

    rewrite(export, change, reseal=False)
    assert codes(export) == {"export_id"}


def test_a_renamed_folder_is_found(export: Path) -> None:
    assert codes(export.rename(export.with_name("mine"))) == {"folder_name"}


def test_a_file_that_the_manifest_does_not_name_is_found(export: Path) -> None:
    shutil.copy(export / "samples/part-00000-of-00003.parquet", export / "samples/extra.parquet")
    assert codes(export) == {"extra_file"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c["counts"]["train"].update(ok=1), "counts"),
        (lambda c: c["stats"]["trait_scores"].update(mean_norm=9.0), "stats"),
        (lambda c: c["files"][1].update(key_min="x"), "keys"),
        (lambda c: c["files"][1].update(rows=7), "rows"),
        (lambda c: c["files"].reverse(), "keys"),
        (lambda c: c["schema"][5].update(type="string"), "schema"),
        (lambda c: c["schema"][7].update(width=4), "schema"),
        (lambda c: c["model"]["config"].update(width=1), "config_hash"),
    ],
)
def test_a_manifest_that_does_not_fit_its_rows_is_found(
    export: Path, change: Callable[[dict[str, Any]], None], code: str
) -> None:
    assert code in codes(rewrite(export, change))


def set_cell(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    place = table.column_names.index(name)
    field = table.schema.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("status", "okay", "status"),
        ("split", "dev", "split"),
        ("sample_id", "zzz", "keys"),
        ("trait_scores", [0.0, 0.0, 0.0, 0.0, 1.5], "range"),
        ("trait_scores", [float("nan")] * 5, "not_finite"),
        ("emotion_logits", [0.0, 0.0, float("inf"), 0.0, 0.0, 0.0, 0.0], "not_finite"),
        ("emotion_logits", [0.0] * 6, "schema"),
        ("emotion_logits", [None] * 7, "schema"),
        ("emotion_embedding", None, "null_rule"),
        ("status", "no_face", "null_rule"),
        ("n_masked", -1, "range"),
    ],
)
def test_rows_that_break_a_rule_are_found(export: Path, name: str, value: Any, code: str) -> None:
    row = Export.open(export).status.tolist().index("ok")
    assert code in codes(rewrite_part(export, lambda t: set_cell(t, name, row, value)))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.drop_columns(["fold"]),
        lambda t: t.set_column(4, "fold", t["fold"].cast(pa.int64())),
        lambda t: t.set_column(
            5, "emotion_logits", t["emotion_logits"].cast(pa.list_(pa.float64()))
        ),
        lambda t: t.set_column(
            5, "emotion_logits", t["emotion_logits"].cast(pa.list_(pa.float16()))
        ),
        lambda t: t.rename_columns([n.upper() for n in t.column_names]),
    ],
)
def test_other_columns_or_types_are_found(
    export: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    assert "schema" in codes(rewrite_part(export, change))


def test_a_part_that_is_no_parquet_is_found_even_if_its_hash_fits(export: Path) -> None:
    file = export / "samples" / "part-00000-of-00003.parquet"
    file.write_bytes(b"PAR1 no parquet")

    def refit(content: dict[str, Any]) -> None:
        content["files"][0] |= {"bytes": file.stat().st_size, "sha256": sha256_file(file)}

    assert codes(rewrite(export, refit)) == {"schema"}


def test_coverage_and_split_are_checked_against_a_corpus(export: Path, corpus: Any) -> None:
    corpus.sample_ids.append("new")
    corpus.splits.append(None)
    assert codes(export, corpus=corpus) == {"coverage"}
    corpus.splits[0] = "test"
    assert codes(export, corpus=corpus) == {"coverage", "split"}
