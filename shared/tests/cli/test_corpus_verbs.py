"""`mepr corpus demo | show | audit | split | withdraw`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter
from mepr_shared.contract.reader import Export
from mepr_shared.contract.verify import verify
from mepr_shared.corpora.index import Corpus

MAP = ("--map", "sample_id=clip", "text=utterance", "emotion=feeling")


def test_demo_writes_what_it_says(mepr, tmp_path: Path) -> None:
    outcome = mepr("corpus", "demo", tmp_path / "demo", "--clips", 90, "--seed", 3, "--json")
    by_name = {record["name"]: record for record in outcome.records}
    assert outcome.code == 0
    assert set(by_name) == {
        *("demo_emotion", "demo_traits", "demo_both", "demo_features"),
        *("audio", "text", "face", "body", "scene", "demo_media"),
    }
    media = Path(by_name.pop("demo_media")["path"])
    assert len(list(media.glob("*.mp4"))) == 18  # three fifths of demo_both
    assert all(Path(record["path"]).is_file() for record in by_name.values())
    sizes = {n: len(Corpus.read(r["path"])) for n, r in by_name.items() if r["kind"] == "index"}
    assert sizes == {"demo_emotion": 90, "demo_traits": 90, "demo_both": 30, "demo_features": 90}


def test_demo_options_reach_the_generator(mepr, tmp_path: Path) -> None:
    options = ("--clips", 90, "--seed", 5, "--without-relations", "--shuffle-labels")
    mepr("corpus", "demo", tmp_path, *options, "--emotion-kind", "multi_label", "--media-clips", 0)
    report = Corpus.read(tmp_path / "demo_both.parquet").meta.import_report
    assert (report["relations"], report["shuffle_labels"]) == (False, True)
    assert (report["emotion_kind"], report["clips"]) == ("multi_label", 30)


def test_demo_media_as_asked_for(mepr, refused, tmp_path: Path) -> None:
    options = ("corpus", "demo", tmp_path, "--clips", 90)
    records = mepr(*options, "--media-clips", 0, "--json").records
    assert "demo_media" not in {record["name"] for record in records}
    assert not (tmp_path / "media").exists()
    assert "--media-clips" in refused(*options, "--features-only", "--media-clips", 2).err
    mepr(*options, "--media-clips", 2, "--overwrite")
    assert mepr("corpus", "show", tmp_path / "demo_both.parquet", "--json").record["missing"] == {
        "text": 0,
        "media": 28,
        "media_files": 0,
    }


def test_demo_without_pyav_says_both_ways_out(refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused("corpus", "demo", tmp_path / "demo").err
    assert "pip install 'mepr-shared[media]'" in error and "--media-clips 0" in error
    assert not (tmp_path / "demo").exists()


def test_demo_without_scikit_image_says_both_ways_out(refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    error = refused("corpus", "demo", tmp_path / "demo").err
    assert "pip install 'mepr-shared[demo]'" in error and "--media-clips 0" in error
    assert not (tmp_path / "demo").exists()


def test_demo_of_features_only_needs_neither(mepr, tmp_path: Path, monkeypatch) -> None:
    for module in ("av", "skimage.data"):
        monkeypatch.setitem(sys.modules, module, None)
    options = ("--features-only", "--clips", 3000, "--json")
    records = mepr("corpus", "demo", tmp_path, *options).records
    assert {record["name"] for record in records} == {
        *("demo_features", "audio", "text", "face", "body", "scene"),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"features"}
    assert len(Corpus.read(tmp_path / "features" / "demo_features.parquet")) == 3000


def test_demo_is_all_or_nothing(refused, tmp_path: Path) -> None:
    refused("corpus", "demo", tmp_path / "demo", "--clips", 60)
    assert not (tmp_path / "demo").exists()
    taken = tmp_path / "demo" / "features" / "face.parquet"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    assert str(taken) in refused("corpus", "demo", tmp_path / "demo").err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [taken]


def test_show_counts(mepr, index: Path) -> None:
    record = mepr("corpus", "show", index, "--json").record
    corpus = Corpus.read(index)
    train = record["splits"]["train"]
    assert (record["rows"], train["rows"], train["sources"]) == (8, 8, 4)
    assert (train["emotion"], train["traits"], train["text"], train["media"]) == (8, 8, 8, 0)
    assert train["prevalence"]["happiness"] == 0.5
    assert train["trait_mean"] == {"openness": pytest.approx(0.35)}
    assert record["missing"] == {"text": 0, "media": 8, "media_files": 0}
    assert record["hashes"]["samples_sha256"] == corpus.hashes.samples_sha256


def test_show_for_people(mepr, index: Path) -> None:
    out = mepr("corpus", "show", index).out
    corpus = Corpus.read(index)
    for wanted in (
        "clips: 8 rows",
        "happiness",
        "0.5000",
        "openness",
        "0.3500",
        "without media: 8",
    ):
        assert wanted in out
    assert corpus.hashes.labels_sha256 in out


def test_a_damaged_index_is_refused(refused, index: Path) -> None:
    index.write_bytes(index.read_bytes()[:-20])
    assert "clips.parquet" in refused("corpus", "show", index).err


def test_audit_finds_a_shared_source(mepr, table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace("c4,train", "c4,val")
    table.write_text(text.replace("word 4", "one two three four five six seven"))
    table.write_text(table.read_text().replace("word 5", "One two three four five six seven!"))
    out = tmp_path / "x.parquet"
    mepr("corpus", "import", "table", table, "--out", out, *MAP)
    report = mepr("corpus", "audit", out, "--json").record
    assert report["shared"]["speaker_id"]["in_several_splits"] == 1
    assert report["text_duplicates"]["identical_pairs"] == 1
    lines = mepr("corpus", "audit", out, "--threshold", "0.5").out
    assert "warning: texts across splits: 1 identical" in lines


def test_audit_refuses_a_threshold_that_is_none(refused, index: Path) -> None:
    assert "--threshold 2" in refused("corpus", "audit", index, "--threshold", 2).err


def test_split_by_speaker(mepr, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.parquet"
    options = ("--by", "speaker_id", "--train", 0.5, "--val", 0.5, "--seed", 1, "--name", "other")
    outcome = mepr("corpus", "split", index, *options, "--out", out, "--json")
    corpus = Corpus.read(out)
    speakers = corpus.column("speaker_id")
    parts = [set(speakers[corpus.select(split=name)]) for name in ("train", "val")]
    assert outcome.code == 0
    assert [(r["split"], r["rows"], r["speaker_id"]) for r in outcome.records] == [
        ("train", 4, 2),
        ("val", 4, 2),
    ]
    assert parts[0].isdisjoint(parts[1]) and corpus.name == "other"
    assert Corpus.read(index).splits.tolist() == ["train"] * 8


def test_split_gives_the_rest_to_test(mepr, demo: Path, tmp_path: Path) -> None:
    source, out = demo / "demo_features.parquet", tmp_path / "y.parquet"
    records = mepr(
        *("corpus", "split", source, "--train", 0.5, "--val", 0.2, "--out", out, "--json")
    ).records
    assert [record["split"] for record in records] == ["train", "val", "test"]
    assert records[2]["rows"] == pytest.approx(36, abs=8)  # whole speakers


def test_folds(mepr, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.parquet"
    mepr("corpus", "split", index, "--by", "speaker_id", "--folds", 2, "--out", out)
    corpus = Corpus.read(out)
    assert sorted(set(corpus.column("fold"))) == [0, 1]
    assert corpus.splits.tolist() == ["train"] * 8


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--by", "actor"), "no column 'actor'"),
        (("--folds", 9), "4 groups cannot fill 9"),
        (("--folds", 2, "--train", 0.5), "--folds"),
        (("--train", 0.9, "--val", 0.2), "0.9"),
        (("--train", 0), "--train 0"),
    ],
)
def test_a_split_that_cannot_be(refused, index: Path, tmp_path: Path, options, wanted) -> None:
    out = tmp_path / "y.parquet"
    assert wanted in refused("corpus", "split", index, *options, "--out", out).err
    assert not out.exists()


def fill_store(root: Path, corpus: Corpus) -> Path:
    """Frames of every clip; gives the store's folder."""
    with FrameStoreWriter(root, corpus.name, "text", {"encoder": "none"}) as writer:
        for row, sample_id in enumerate(corpus.sample_ids):
            frames = np.full((2, 3), row, dtype=np.float32)
            writer.add(sample_id, input_sha256=corpus.input_sha256(row, "text"), frames=frames)
    return FrameStore.find(root, corpus.name, "text").path


def test_withdraw_takes_a_source_out_of_everything(mepr, demo: Path, export: Path) -> None:
    index = demo / "demo_features.parquet"
    corpus = Corpus.read(index)
    store, exports = demo / "store", export.parents[2]
    fill_store(store, corpus)
    source = corpus.source_ids[0]
    leaving = [i for i, s in zip(corpus.sample_ids, corpus.source_ids, strict=True) if s == source]
    outcome = mepr(
        *("corpus", "withdraw", index, "--source", source, "--id", corpus.sample_ids[-1]),
        *("--store", store, "--exports", exports, "--reason", "asked to", "--json"),
    )
    record = outcome.record
    gone = sorted({*leaving, corpus.sample_ids[-1]})
    assert record["withdrawn"] == gone and record["rows_left"] == len(corpus) - len(gone)
    assert record["exports"] == [str(export)] and len(record["stores"]) == 1
    smaller = Corpus.read(index)
    assert not set(gone) & set(smaller.sample_ids)
    assert {stone["reason"] for stone in smaller.meta.tombstones} == {"asked to"}
    reopened = Export.open(export)
    assert set(reopened.status[reopened.row_of(gone)]) == {"withdrawn"}
    assert np.isnan(reopened.emotion_embedding[reopened.row_of(gone)]).all()
    assert verify(export, deep=True) == []
    frames = FrameStore.find(store, corpus.name, "text")
    rows = frames.row_of(gone)
    assert all(row < 0 or frames.status[row] == "withdrawn" for row in rows)


def test_withdraw_later_from_stores_and_exports(mepr, refused, demo: Path, export: Path) -> None:
    index = demo / "demo_features.parquet"
    first = Corpus.read(index).sample_ids[0]
    assert mepr("corpus", "withdraw", index, "--id", first).code == 0
    assert "--store or --exports" in refused("corpus", "withdraw", index, "--id", first).err
    record = mepr("corpus", "withdraw", index, "--exports", export.parents[2], "--json").record
    assert (record["withdrawn"], record["withdrawn_earlier"]) == ([], 1)
    assert Export.open(export).status[0] == "withdrawn"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), "--speaker"),
        (("--id", "nobody"), "'nobody'"),
        (("--speaker", "s1", "--source", "nowhere"), "'nowhere'"),
        (("--id", "c1", "--store", "no/such/folder"), "no/such/folder"),
    ],
)
def test_a_withdrawal_that_cannot_be(refused, index: Path, options, wanted: str) -> None:
    before = index.read_bytes()
    assert wanted in refused("corpus", "withdraw", index, *options).err
    assert index.read_bytes() == before


def test_a_damaged_export_stops_the_withdrawal_before_the_index(
    refused, demo: Path, export: Path
) -> None:
    index = demo / "demo_features.parquet"
    before = index.read_bytes()
    part = next((export / "samples").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    sample_id = Corpus.read(index).sample_ids[0]
    refused("corpus", "withdraw", index, "--id", sample_id, "--exports", export.parents[2])
    assert index.read_bytes() == before
