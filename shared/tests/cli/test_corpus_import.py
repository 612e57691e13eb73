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


def test_mosei_with_media_and_transcripts(mepr, tmp_path: Path) -> None:
    source = tmp_path / "mosei_labels.csv"
    source.write_text(MOSEI + "v,0,-1,2,0,1,0,0,0,0,0,train\nw,0,0,2,0,1,0,0,0,0,0,train\n")
    video, lines = tmp_path / "media" / "v.mp4", tmp_path / "lines" / "v.txt"
    for path, content in ((video, "x"), (lines, "v___4___-1___2___Hello.\n")):
        path.parent.mkdir()
        path.write_text(content)
    out = tmp_path / "x.parquet"
    command = ("corpus", "import", "mosei", source, "--media", video.parent)
    outcome = mepr(*command, "--transcripts", lines.parent, "--out", out, "--json")
    record = outcome.record
    assert (record["media_found"], record["media_missing"]) == (1, 1)
    assert record["media_kinds"] == {"full videos": 1}
    assert record["transcripts"] == {"by time": 1, "by number": 0, "missing": 1}
    corpus = Corpus.read(out)
    assert corpus.texts == ["Hello.", None]
    assert corpus.column("media").tolist() == ["media/v.mp4", None]
    assert "media: 1 full videos" in mepr(*command, "--dry-run").out


def test_fiv2_with_media_elsewhere(mepr, fiv2_folder: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clips" / "train-1" / "training80_01" / "a.000.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"x")
    command = ("corpus", "import", "fiv2", fiv2_folder, "--media", tmp_path / "clips", "--dry-run")
    record = mepr(*command, "--json").record
    assert (record["media_found"], record["media_missing"]) == (1, 1)


@pytest.fixture
def ravdess_folder(tmp_path: Path) -> Path:
    """Speech of every actor; a song and a picture without sound of the first."""
    folder = tmp_path / "ravdess"
    folder.mkdir()
    names = [f"03-01-05-01-01-01-{actor:02}.wav" for actor in range(1, 25)]
    for name in (*names, "03-02-05-01-01-01-01.wav", "02-01-03-01-01-01-01.mp4"):
        (folder / name).write_bytes(b"x")
    return folder


def test_ravdess(mepr, ravdess_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    record = mepr("corpus", "import", "ravdess", ravdess_folder, "--out", out, "--json").record
    assert (record["corpus"], record["rows_read"], record["rows_kept"]) == ("ravdess", 26, 24)
    assert sorted(record["dropped"]) == [
        "pictures without sound (--video-only keeps them)",
        "songs (--songs keeps them)",
    ]
    corpus = Corpus.read(out)
    assert corpus.meta.counts["split"] == {"train": 16, "val": 4, "test": 4}
    assert corpus.meta.counts["text"] == 0


def test_ravdess_options(mepr, ravdess_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    outcome = mepr(
        *("corpus", "import", "ravdess", ravdess_folder, "--out", out, "--name", "sung"),
        *("--songs", "--video-only", "--statements", "--val", "1, 3-4", "--test", "none"),
    )
    assert outcome.code == 0
    corpus = Corpus.read(out)
    assert (corpus.name, len(corpus), corpus.meta.counts["text"]) == ("sung", 26, 26)
    speakers = set(corpus.column("speaker_id")[corpus.select(split="val")])
    assert speakers == {"actor_01", "actor_03", "actor_04"}
    assert corpus.meta.counts["split"] == {"train": 21, "val": 5}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--val", "20-17"), "backwards"),
        (("--val", "seventeen"), "17-20"),
        (("--test", ""), "17-20"),
        (("--test", "23-25"), "no actor 25"),
        (("--val", "1-3", "--test", "3"), "actor 3 cannot be in val and in test"),
    ],
)
def test_actors_that_are_none(
    refused_writing_nothing, ravdess_folder: Path, options: tuple[str, ...], wanted: str
) -> None:
    assert wanted in refused_writing_nothing("ravdess", ravdess_folder, *options).err


def test_a_strange_name_in_ravdess(mepr, refused_writing_nothing, ravdess_folder: Path) -> None:
    (ravdess_folder / "03-01-09-01-01-01-01.wav").write_bytes(b"x")
    (ravdess_folder / "my\nvoice.wav").write_bytes(b"x")
    outcome = mepr("corpus", "import", "ravdess", ravdess_folder, "--dry-run")
    assert outcome.code == 0
    assert "no such emotion (03-01-09-01-01-01-01)" in outcome.out
    assert "(my\\nvoice)" in outcome.out
    assert "-01-" in refused_writing_nothing("ravdess", ravdess_folder, "--strict").err


@pytest.mark.parametrize(
    ("importer", "option"),
    [("fiv2", "--media"), ("mosei", "--media"), ("mosei", "--transcripts"), ("mosei", "--folds")],
)
def test_a_missing_file_beside_the_labels(
    refused_writing_nothing, fiv2_folder: Path, tmp_path: Path, importer: str, option: str
) -> None:
    labels = tmp_path / "mosei_labels.csv"
    labels.write_text(MOSEI + "v,0,-1,2,0,1,0,0,0,0,0,train\n")
    source = {"fiv2": fiv2_folder, "mosei": labels}[importer]
    outcome = refused_writing_nothing(importer, source, option, tmp_path / "none")
    assert str(tmp_path / "none") in outcome.err


def test_a_broken_file_of_words(refused_writing_nothing, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")
    labels, words = tmp_path / "mosei_labels.csv", tmp_path / "words.csd"
    labels.write_text(MOSEI + "v,0,-1,2,0,1,0,0,0,0,0,train\n")
    words.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\x00" * 50)
    error = refused_writing_nothing("mosei", labels, "--transcripts", words).err
    assert "words.csd" in error and "HDF5" in error


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


@pytest.mark.parametrize("importer", ["fiv2", "meld", "mosei", "ravdess", "table"])
def test_a_missing_source(refused_writing_nothing, importer: str, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused_writing_nothing(importer, tmp_path / "none").err


@pytest.mark.parametrize(
    ("importer", "wanted"),
    [("fiv2", "annotation"), ("meld", ".csv"), ("mosei", ".csv"), ("ravdess", ".wav")],
)
def test_a_folder_without_the_files(
    refused_writing_nothing, importer: str, wanted: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    error = refused_writing_nothing(importer, tmp_path / "empty").err
    assert "empty" in error and wanted in error


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


@pytest.mark.parametrize(
    ("importer", "rows"),
    [("fiv2", 8000), ("meld", 11098), ("mosei", 18597), ("ravdess", 1182)],
)
def test_official_files(mepr, importer: str, rows: int, tmp_path: Path) -> None:
    data = os.environ.get("MEPR_REAL_DATA")
    if not data:
        pytest.skip("MEPR_REAL_DATA does not say where the official files are")
    out = tmp_path / "x.parquet"
    record = mepr("corpus", "import", importer, Path(data) / importer, "--out", out, "--json")
    assert record.record["rows_read"] == rows
    assert len(Corpus.read(out)) == record.record["rows_kept"]
