"""`mepr corpus import`: reports what it read, and refuses bad input without writing anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from mepr_shared.corpora.index import Corpus

MAP = ("--map", "sample_id=clip", "text=utterance", "emotion=feeling")
MOSEI = "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,split\n"


class Foreign:
    """A class that no importer has any business with."""


def test_fiv2_names_what_it_dropped(mepr, fiv2_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    outcome = mepr("corpus", "import", "fiv2", fiv2_folder, "--out", out, "--json")
    record = outcome.record
    assert outcome.code == 0
    assert (record["corpus"], record["path"], record["rows"]) == ("fiv2", str(out), 2)
    assert (record["rows_read"], record["rows_kept"], record["out_of_range"]) == (3, 2, 1)
    ((reason, dropped),) = record["dropped"].items()
    assert "[0, 1]" in reason and dropped == {"rows": 1, "ids": ["b.001"]}
    assert record["straddling_sources"] == 1
    assert Corpus.read(out).sample_ids == ["a.000", "a.002"]


def test_the_report_for_people(mepr, fiv2_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    outcome = mepr("corpus", "import", "fiv2", fiv2_folder, "--out", out, "--name", "mine")
    assert "3 rows read, 2 kept" in outcome.out
    assert "b.001" in outcome.out and "warning: 1 sources" in outcome.out
    assert str(out) in outcome.err
    assert Corpus.read(out).name == "mine"


def test_meld(mepr, tmp_path: Path) -> None:
    header = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
    (tmp_path / "train_sent_emo.csv").write_text(header + "Hello,Joey,joy,0,0\nNo,Ross,anger,0,1\n")
    out = tmp_path / "x.parquet"
    record = mepr("corpus", "import", "meld", tmp_path, "--out", out, "--json").record
    assert (record["rows_kept"], record["dropped"]) == (2, {})
    assert any("dev_sent_emo.csv" in note for note in record["notes"])


def test_mosei_with_a_fold_file(mepr, tmp_path: Path) -> None:
    source = tmp_path / "mosei_labels.csv"
    source.write_text(MOSEI + "v,0,-1,2,0,1,0,0,0,0,0,train\nw,0,0,2,0,9,0,0,0,0,0,train\n")
    folds = tmp_path / "folds.json"
    folds.write_text('{"test": ["v"]}')
    out = tmp_path / "x.parquet"
    record = mepr(
        *("corpus", "import", "mosei", source, "--out", out, "--folds", folds, "--json")
    ).record
    assert (record["negative_starts"], record["out_of_range"]) == (1, 1)
    assert Corpus.read(out).splits.tolist() == ["test"]


def test_table_with_a_map(mepr, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.parquet"
    outcome = mepr("corpus", "import", "table", table, "--out", out, *MAP)
    corpus = Corpus.read(out)
    assert outcome.code == 0
    assert (corpus.name, corpus.meta.scale.kind) == ("own", "single_label")
    assert corpus.texts[3] == "word 3"
    assert corpus.trait_values[3, 0] == pytest.approx(0.3)


def test_dry_run_shows_what_it_understood_and_writes_nothing(mepr, table: Path) -> None:
    before = sorted(table.parent.iterdir())
    outcome = mepr("corpus", "import", "table", table, "--dry-run", *MAP)
    assert outcome.code == 0
    assert "text <- column 'utterance'" in outcome.out
    assert "emotions are single_label" in outcome.out
    assert sorted(table.parent.iterdir()) == before
    record = mepr("corpus", "import", "table", table, "--dry-run", "--json", *MAP).record
    assert (record["path"], record["rows"]) == (None, 8)


@pytest.fixture
def refused_writing_nothing(refused, tmp_path: Path):
    def run(*arguments: object):
        before = sorted(tmp_path.rglob("*"))
        outcome = refused("corpus", "import", *arguments, "--out", tmp_path / "out.parquet")
        assert sorted(tmp_path.rglob("*")) == before
        return outcome

    return run


@pytest.mark.parametrize("importer", ["fiv2", "meld", "mosei", "table"])
def test_a_missing_source(refused_writing_nothing, importer: str, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused_writing_nothing(importer, tmp_path / "none").err


@pytest.mark.parametrize("importer", ["fiv2", "meld", "mosei"])
def test_a_folder_without_the_files(refused_writing_nothing, importer: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = refused_writing_nothing(importer, tmp_path / "empty").err
    assert "empty" in error and ("annotation" in error or ".csv" in error)


def test_a_pickle_with_a_foreign_class(refused_writing_nothing, tmp_path: Path) -> None:
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "annotation_training.pkl").write_bytes(pickle.dumps({"a.000.mp4": Foreign()}))
    error = refused_writing_nothing("fiv2", folder).err
    assert "annotation_training.pkl" in error and "Foreign" in error


def test_strict_names_the_row(refused_writing_nothing, fiv2_folder: Path) -> None:
    assert "b.001" in refused_writing_nothing("fiv2", fiv2_folder, "--strict").err


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("word 2,joy,0.2", "word 2,joy,1.2"), ("row 3", "openness", "1.2")),
        (("c2,", "c1,"), ("row 3", "sample_id", "'c1'", "row 2")),
        (("word 2,joy", "word 2,jolly"), ("row 3", "emotion", "jolly")),
        (("c2,train", "c2,trian"), ("row 3", "split", "trian")),
    ],
    ids=["out of range", "duplicate id", "unknown emotion", "unknown split"],
)
def test_an_impossible_value_in_a_table(
    refused_writing_nothing, table: Path, change: tuple[str, str], wanted: tuple[str, ...]
) -> None:
    table.write_text(table.read_text().replace(*change))
    error = refused_writing_nothing("table", table, *MAP).err
    assert all(word in error for word in (table.name, *wanted)), error


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--map", "txt=utterance"), "did you mean 'text'"),
        (("--map", "text=utterence"), "did you mean 'utterance'"),
        (("--map", "text=utterance", "text=clip"), "'text' twice"),
        (("--map", "text"), "FIELD=COLUMN"),
    ],
)
def test_a_wrong_map(refused_writing_nothing, table: Path, options, wanted: str) -> None:
    assert wanted in refused_writing_nothing("table", table, *options).err


def test_nothing_is_overwritten_unasked(refused, mepr, table: Path, index: Path) -> None:
    before = index.read_bytes()
    assert "overwrite" in refused("corpus", "import", "table", table, "--out", index, *MAP).err
    assert index.read_bytes() == before
    command = ("corpus", "import", "table", table, "--out", index, *MAP, "--overwrite")
    assert mepr(*command).code == 0


def test_the_table_itself_is_never_replaced(refused, mepr, demo: Path) -> None:
    source = demo / "text.parquet"
    before = source.read_bytes()
    refused("corpus", "import", "table", source, "--out", source, "--overwrite")
    assert source.read_bytes() == before


def test_out_or_dry_run(refused, table: Path) -> None:
    assert "--dry-run" in refused("corpus", "import", "table", table, *MAP).err


@pytest.mark.parametrize(("importer", "rows"), [("fiv2", 8000), ("meld", 11098), ("mosei", 18597)])
def test_official_files(mepr, importer: str, rows: int, tmp_path: Path) -> None:
    data = os.environ.get("MEPR_REAL_DATA")
    if not data:
        pytest.skip("MEPR_REAL_DATA does not say where the official files are")
    out = tmp_path / "x.parquet"
    record = mepr("corpus", "import", importer, Path(data) / importer, "--out", out, "--json")
    assert record.record["rows_read"] == rows
    assert len(Corpus.read(out)) == record.record["rows_kept"]
