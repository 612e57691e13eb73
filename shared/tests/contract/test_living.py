"""Finding, naming, comparing, pinning and removing exports."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_shared.contract import living
from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import EmotionOutput, ModelInfo
from mepr_shared.contract.writer import ExportWriter
from mepr_shared.errors import ContractError


@pytest.fixture
def two(tmp_path: Path, corpus: Any, write_export: Callable[..., Path]) -> tuple[Path, Path]:
    """Two text exports of one corpus."""
    root = tmp_path / "exports"
    small = ModelInfo({"width": 128, "head": {"kind": "mamba"}})
    return write_export(root, corpus), write_export(root, corpus, model=small)


def root_of(export: Path) -> Path:
    return export.parents[2]


def test_one_export_needs_no_choice(export: Path) -> None:
    assert living.resolve(root_of(export), "demo", "text").path == export
    assert [e.export_id for e in living.find_exports(root_of(export), "demo")] == [export.name]
    assert living.find_exports(root_of(export), "demo", "audio") == []


def test_two_exports_need_a_choice_and_both_are_named(two: tuple[Path, Path]) -> None:
    first, second = two
    root = root_of(first)
    living.set_alias(root, "wide", first.name)
    with pytest.raises(ContractError) as error:
        living.resolve(root, "demo", "text")
    assert f"{first.name} (wide)" in str(error.value)
    assert second.name in str(error.value)
    assert "--export text:demo=ID_OR_ALIAS" in str(error.value)
    assert living.resolve(root, "demo", "text", "wide").path == first
    assert living.resolve(root, "demo", "text", second.name).path == second
    with pytest.raises(ContractError, match="did you mean 'wide'"):
        living.resolve(root, "demo", "text", "wise")


def test_no_export_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="mepr-audio export"):
        living.resolve(tmp_path, "demo", "audio")


def test_an_alias_moves_and_is_no_id(two: tuple[Path, Path]) -> None:
    first, second = two
    root = root_of(first)
    living.set_alias(root, "best", first.name)
    assert living.set_alias(root, "also", "best") == first
    assert living.set_alias(root, "best", second.name) == second
    assert living.aliases(first.parent) == {"best": second.name, "also": first.name}
    with pytest.raises(ContractError, match="id of an export"):
        living.set_alias(root, first.name, second.name)
    with pytest.raises(ContractError, match="no export 'nothing'"):
        living.set_alias(root, "best", "nothing")


def test_a_name_that_two_modalities_use_is_ambiguous_without_a_modality(
    export: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    root = root_of(export)
    audio = write_export(root, corpus, modality="audio")
    living.set_alias(root, "best", export.name)
    living.set_alias(root, "best", audio.name)
    with pytest.raises(ContractError, match="name of several"):
        living.find_by_id(root, "best")
    assert living.resolve(root, "demo", "audio", "best").path == audio


def test_the_list_shows_a_damaged_export_beside_the_good_one(two: tuple[Path, Path]) -> None:
    first, second = two
    living.set_alias(root_of(first), "best", first.name)
    (second / "manifest.json").write_text("{}")
    entries = {entry["export_id"]: entry for entry in living.list_exports(root_of(first))}
    assert entries[first.name]["rows"] == 20
    assert entries[first.name]["aliases"] == ["best"]
    assert entries[first.name]["problem"] is None
    assert "no manifest of an export" in entries[second.name]["problem"]


def test_an_unfinished_export_is_not_listed(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info())
    writer.write_part(0, columns(writer.pending()[0][1]))
    assert living.list_exports(tmp_path) == []


def test_diff_names_config_coverage_and_shift(
    tmp_path: Path,
    corpus: Any,
    info: Callable[..., Any],
    columns: Callable[..., Any],
    write_export: Callable[..., Path],
) -> None:
    a = Export.open(write_export(tmp_path, corpus))
    changed = info(
        model=ModelInfo({"width": 128}), emotion_output=EmotionOutput("sigmoid", temperature=1.0)
    )
    writer = ExportWriter(tmp_path, corpus=corpus, info=changed)
    for index, ids in writer.pending():
        part = columns(ids)
        part["trait_scores"] = part["trait_scores"] * 0.5
        part["trait_scores"][:, 0] *= 2
        writer.write_part(index, part)
    b = Export.open(writer.commit())
    result = living.diff(a, b, score=lambda e: {"mean": float(np.nanmean(e.trait_scores))})
    assert result["exports"] == [a.export_id, b.export_id]
    assert result["config"] == {"width": [256, 128]}
    assert result["coverage"]["no_text"] == [int((a.status == "no_text").sum())] * 2
    assert result["only"] == [0, 0]
    shift = result["shift"]["traits"]
    assert shift["openness"]["mean"] == 0.0
    expected = np.nanmean(b.trait_scores[:, 2] - a.trait_scores[:, 2])
    assert shift["extraversion"]["mean"] == pytest.approx(expected, rel=1e-5)
    assert shift["extraversion"]["mean_absolute"] == pytest.approx(-expected, rel=1e-5)
    assert shift["extraversion"]["n"] == (a.status == "ok").sum()
    probabilities = b.emotion_probabilities() - a.emotion_probabilities()
    anger = result["shift"]["emotion"]["anger"]["mean"]
    assert anger == pytest.approx(np.nanmean(probabilities[:, 1]), rel=1e-4)
    assert result["metrics"]["mean"][0] > result["metrics"]["mean"][1]


def test_a_lock_pins_what_a_run_consumed(export: Path, tmp_path: Path) -> None:
    lock = tmp_path / "exports.lock"
    living.write_lock(lock, [Export.open(export)])
    assert living.read_lock(lock) == {"text:demo": export.name}
    for damaged in ("{}", "[]", "no json"):
        lock.write_text(damaged)
        with pytest.raises(ContractError, match=r"is not an exports\.lock"):
            living.read_lock(lock)


def test_garbage_is_what_nothing_refers_to(
    tmp_path: Path, corpus: Any, write_export: Callable[..., Path]
) -> None:
    root = tmp_path / "exports"
    exports = [write_export(root, corpus, model=ModelInfo({"n": n})) for n in range(5)]
    # All within one second: which is newest is a matter of the id, so pin that down.
    newest = max(exports, key=lambda path: Export.open(path).manifest.created_at)
    aliased, pinned, *_ = [path for path in exports if path != newest]
    living.set_alias(root, "best", aliased.name)
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    living.write_lock(run / living.LOCK, [Export.open(pinned)])
    doomed = living.collect_garbage(root, runs=[tmp_path / "runs"], dry_run=True)
    assert len(doomed) == 2
    assert all(path.exists() for path in exports)
    assert living.collect_garbage(root, runs=[tmp_path / "runs"]) == doomed
    kept = set(living.export_folders(root))
    assert {aliased, pinned} < kept
    assert len(kept) == 3
    assert not any(path.exists() for path in doomed)


def test_unfinished_exports_go_after_a_week(
    tmp_path: Path, corpus: Any, info: Callable[..., Any]
) -> None:
    ExportWriter(tmp_path, corpus=corpus, info=info())
    (staging,) = tmp_path.glob("*/*/.staging-*")
    assert living.collect_garbage(tmp_path) == []
    for path in [*staging.rglob("*"), staging]:
        os.utime(path, (0, 0))
    assert living.collect_garbage(tmp_path) == [staging]
    assert not staging.exists()


def test_garbage_collection_needs_the_runs_it_was_told_of(export: Path) -> None:
    with pytest.raises(ContractError, match="no such folder"):
        living.collect_garbage(root_of(export), runs=["/nowhere/at/all"])
