"""RAVDESS: labels and splits come from the file names; nothing is left out without a word."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from mepr_shared.corpora.importers import ravdess
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EMOTIONS


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def labels(corpus) -> list[str]:
    assert (corpus.emotion_values.sum(axis=1) == 1).all()
    return [EMOTIONS[column] for column in corpus.emotion_values.argmax(axis=1)]


def test_a_name_gives_every_column(tmp_path: Path) -> None:
    put(tmp_path / "Actor_02", "03-01-06-01-02-01-02.wav")
    put(tmp_path / "Actor_17", "03-01-08-02-01-02-17.wav")
    corpus = ravdess.read(tmp_path).corpus
    assert corpus.sample_ids == ["03-01-06-01-02-01-02", "03-01-08-02-01-02-17"]
    assert labels(corpus) == ["fear", "surprise"]
    assert corpus.splits.tolist() == ["train", "val"]
    assert corpus.source_ids.tolist() == ["actor_02", "actor_17"]
    assert corpus.column("speaker_id").tolist() == ["actor_02", "actor_17"]
    assert corpus.column("group_gender").tolist() == ["female", "male"]
    assert corpus.column("group_intensity").tolist() == ["normal", "strong"]
    assert corpus.column("group_statement").tolist() == ["dogs", "kids"]
    assert corpus.column("media").tolist() == [
        str(tmp_path / "Actor_02" / "03-01-06-01-02-01-02.wav"),
        str(tmp_path / "Actor_17" / "03-01-08-02-01-02-17.wav"),
    ]
    assert corpus.texts == [None, None]
    assert corpus.meta.scale.kind == "single_label"
    assert "CC BY-NC-SA 4.0" in corpus.meta.licence


def test_eight_emotions_become_seven(tmp_path: Path) -> None:
    put(tmp_path, *(f"03-01-{number:02}-01-01-01-01.wav" for number in range(1, 9)))
    corpus = ravdess.read(tmp_path).corpus
    wanted = ["neutral", "neutral", "happiness", "sadness", "anger", "fear", "disgust", "surprise"]
    assert labels(corpus) == wanted


def test_statements_are_text_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "03-01-01-01-01-01-01.wav", "03-01-01-01-02-01-01.wav")
    corpus = ravdess.read(tmp_path, statements=True).corpus
    assert corpus.texts == ["Kids are talking by the door.", "Dogs are sitting by the door."]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".MP4", ".webm", ".m4a"])
def test_any_container(tmp_path: Path, suffix: str) -> None:
    put(tmp_path / "flat", f"03-01-05-01-01-01-01{suffix}")
    assert len(ravdess.read(tmp_path).corpus) == 1


def test_official_folders_together(tmp_path: Path) -> None:
    put(tmp_path / "Audio_Speech_Actors_01-24" / "Actor_01", "03-01-05-01-01-01-01.wav")
    put(
        tmp_path / "Video_Speech_Actor_01" / "Actor_01",
        *("01-01-05-01-01-01-01.mp4", "02-01-05-01-01-01-01.mp4", "02-01-03-01-01-01-01.mp4"),
    )
    put(tmp_path / "Audio_Song_Actors_01-24" / "Actor_01", "03-02-05-01-01-01-01.wav")
    put(tmp_path / "FacialTracking_Actors_01-24", "01-01-05-01-01-01-01.csv")
    (tmp_path / "Actor_01").symlink_to(tmp_path, target_is_directory=True)

    result = ravdess.read(tmp_path, strict=True)  # sound files, only not asked for
    assert result.corpus.sample_ids == ["01-01-05-01-01-01-01"]
    assert dict(result.report.dropped) == {
        "songs (--songs keeps them)": ["03-02-05-01-01-01-01"],
        "the same take is there with sound and picture": [
            *("03-01-05-01-01-01-01", "02-01-05-01-01-01-01"),
        ],
        "pictures without sound (--video-only keeps them)": ["02-01-03-01-01-01-01"],
    }
    assert (result.report.rows_read, result.report.rows_kept) == (5, 1)
    assert result.report.media_kinds == {"with sound and picture": 1}

    everything = ravdess.read(tmp_path, songs=True, video_only=True).corpus
    assert everything.sample_ids == [
        *("01-01-05-01-01-01-01", "02-01-03-01-01-01-01", "03-02-05-01-01-01-01"),
    ]
    assert everything.column("group_channel").tolist() == ["speech", "speech", "song"]


def test_sound_wins_over_picture_alone(tmp_path: Path) -> None:
    put(tmp_path, "02-01-05-01-01-01-01.mp4", "03-01-05-01-01-01-01.wav")
    corpus = ravdess.read(tmp_path, video_only=True).corpus
    assert corpus.sample_ids == ["03-01-05-01-01-01-01"]


NAMES = [f"03-01-05-01-01-01-{actor:02}.wav" for actor in range(1, 25)]


def actors_of(corpus, split: str) -> list[int]:
    return [int(corpus.sample_ids[row][-2:]) for row in corpus.select(split=split)]


@pytest.mark.parametrize(
    ("chosen", "val", "test"),
    [
        ({}, range(17, 21), range(21, 25)),
        ({"val": {21, 22, 23, 24}}, range(21, 25), ()),
        ({"test": {1, 2, 17}}, (18, 19, 20), (1, 2, 17)),
        ({"val": {5}, "test": {6, 7}}, (5,), (6, 7)),
        ({"test": frozenset()}, range(17, 21), ()),
    ],
    ids=["default", "val takes the test actors", "test takes a val actor", "both", "no test"],
)
def test_split_by_actor(tmp_path: Path, chosen: dict, val, test) -> None:
    put(tmp_path, *NAMES)
    result = ravdess.read(tmp_path, **chosen)
    corpus = result.corpus
    assert actors_of(corpus, "val") == list(val)
    assert actors_of(corpus, "test") == list(test)
    assert actors_of(corpus, "train") == [a for a in range(1, 25) if a not in {*val, *test}]
    assert result.report.straddling_sources == 0


def test_absent_actors_leave_their_split_empty(tmp_path: Path) -> None:
    put(tmp_path, *NAMES[:20])
    result = ravdess.read(tmp_path)
    assert result.corpus.meta.counts["split"] == {"train": 16, "val": 4}
    assert result.report.notes == ["no clip of the actors 21, 22, 23, 24: split 'test' is empty"]


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({"val": {17, 18}, "test": {18}}, "actor 18 cannot be in val and in test"),
        ({"val": {25}}, "no actor 25"),
        ({"test": {0}}, "no actor 0"),
    ],
)
def test_impossible_splits_are_refused(tmp_path: Path, chosen: dict, wanted: str) -> None:
    put(tmp_path, *NAMES)
    with pytest.raises(ConfigError, match=wanted):
        ravdess.read(tmp_path, **chosen)


@pytest.mark.parametrize(
    ("name", "reason", "counter"),
    [
        ("speech of actor 1.wav", "seven two-digit numbers", "unknown_names"),
        ("03-01-05-01-01-01.wav", "seven two-digit numbers", "unknown_names"),
        ("03-01-05-01-01-01-01-01.wav", "seven two-digit numbers", "unknown_names"),
        ("03-01-09-01-01-01-01.wav", "no such emotion", "out_of_range"),
        ("03-01-05-01-01-01-25.wav", "no such actor", "out_of_range"),
        ("03-01-05-01-01-01-00.wav", "no such actor", "out_of_range"),
        ("04-01-05-01-01-01-01.wav", "no such modality", "out_of_range"),
        ("03-01-05-01-01-03-01.wav", "no such repetition", "out_of_range"),
        ("a\nb\x07ü.wav", "seven two-digit numbers", "unknown_names"),
    ],
)
def test_impossible_names_are_reported_and_refused_when_strict(
    tmp_path: Path, name: str, reason: str, counter: str
) -> None:
    put(tmp_path, "03-01-05-01-01-01-01.wav", name)
    report = ravdess.read(tmp_path).report
    (found,) = report.dropped
    assert reason in found and (report.rows_read, report.rows_kept) == (2, 1)
    assert getattr(report, counter) == 1
    assert all(line.isprintable() for line in report.lines())
    with pytest.raises(DataError, match=reason) as refusal:
        ravdess.read(tmp_path, strict=True)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_second_copy_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "a", "03-01-05-01-01-01-01.wav")
    put(tmp_path / "b", "03-01-05-01-01-01-01.flac")
    result = ravdess.read(tmp_path)
    assert result.corpus.column("media").tolist() == [
        str(tmp_path / "a" / "03-01-05-01-01-01-01.wav")
    ]
    assert result.report.duplicate_ids == 1
    with pytest.raises(DataError, match="read before"):
        ravdess.read(tmp_path, strict=True)


def test_files_that_cannot_be_named_or_opened_are_left_out_and_told(tmp_path: Path) -> None:
    put(tmp_path, "03-01-05-01-01-01-01.wav", "._03-01-05-01-01-01-02.wav")
    (tmp_path / "03-01-05-01-01-01-03.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "03-01-05-01-01-01-04.wav").symlink_to(tmp_path / "03-01-05-01-01-01-04.wav")
    odd = os.fsencode(tmp_path) + b"/odd\xff"
    os.mkdir(odd)
    with open(odd + b"/03-01-05-01-01-01-05.wav", "wb"):
        pass
    result = ravdess.read(tmp_path)
    assert result.corpus.sample_ids == ["03-01-05-01-01-01-01"]
    assert (result.report.rows_read, dict(result.report.dropped)) == (1, {})
    notes = " ".join(result.report.notes)
    assert notes.count("link to nothing") == 2 and "not UTF-8: 03-01-05-01-01-01-05" in notes
    result.corpus.write(tmp_path / "x.parquet")


def test_what_is_not_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no RAVDESS clip"):
        ravdess.read(tmp_path)
    clip = put(tmp_path / "song", "03-02-05-01-01-01-01.wav") / "03-02-05-01-01-01-01.wav"
    with pytest.raises(DataError, match="asked for.*--songs keeps them"):
        ravdess.read(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        ravdess.read(clip)


def test_real_clips_agree_with_their_label_table() -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real RAVDESS here")
    result = ravdess.read(Path(root) / "ravdess", strict=True, statements=True)
    corpus = result.corpus
    with (Path(root) / "ravdess" / "labels.csv").open(newline="") as file:
        table = {row["file"].removesuffix(".flac"): row for row in csv.DictReader(file)}
    assert corpus.sample_ids == sorted(table)
    rows = [table[sample_id] for sample_id in corpus.sample_ids]
    short = {"happiness": "happy", "anger": "angry", "sadness": "sad", "fear": "fearful"}
    short |= {"surprise": "surprised"}
    stated = ["neutral" if row["emotion"] == "calm" else row["emotion"] for row in rows]
    assert [short.get(name, name) for name in labels(corpus)] == stated
    assert corpus.column("group_gender").tolist() == [row["gender"] for row in rows]
    assert corpus.column("group_intensity").tolist() == [row["intensity"] for row in rows]
    assert corpus.texts == [row["text"] for row in rows]
    assert corpus.source_ids.tolist() == [f"actor_{int(row['actor']):02}" for row in rows]
    assert Counter(corpus.splits) == {"train": 942, "val": 240}
    assert result.report.media_found == len(corpus) == 1182
    assert all(Path(path).is_file() for path in corpus.column("media"))
