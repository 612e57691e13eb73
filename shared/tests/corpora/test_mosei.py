"""CMU-MOSEI: the table and the SDK's HDF5 say the same; odd segments are counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.importers import mosei
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS

HEADER = "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,split\n"


def write(folder: Path, lines: list[str]) -> Path:
    path = folder / "mosei_labels.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def write_csd(path: Path, videos: dict[str, tuple[list, list]], root: str = "All Labels") -> None:
    h5py = pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in videos.items():
            group = file.create_group(f"{root}/data/{video}")
            group["features"] = np.array(features, dtype=np.float32)
            group["intervals"] = np.array(intervals, dtype=np.float32)
        file.create_group(f"{root}/metadata")


def emotion(corpus, name: str) -> list[float]:
    return corpus.emotion_values[:, EMOTIONS.index(name)].tolist()


def test_table(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            "v1,0,-0.5,2,1,0.5,0,0,0,0,3,train",
            "v1,1,2,4,1,0,0,0,0,0,0,train",
            "v2,0,0,1,1,0,1,0,0,2,0,valid",
            "v3,0,0,1,1,0,0,1,0,0,0,unused",
        ],
    )
    result = mosei.read(tmp_path)
    corpus, report = result.corpus, result.report
    assert corpus.sample_ids == ["v1_0", "v1_1", "v2_0", "v3_0"]
    assert corpus.splits.tolist() == ["train", "train", "val", None]
    assert corpus.column("start_s").tolist() == [0, 2, 0, 0]
    assert emotion(corpus, "happiness") == [0.5, 0, 0, 0]
    assert emotion(corpus, "fear") == [3, 0, 0, 0]
    assert corpus.emotion_targets()[:, 0].tolist() == [0, 1, 0, 0]
    assert emotion(corpus, "neutral") == [0, 1, 0, 0]
    assert (corpus.meta.scale.kind, corpus.meta.scale.maximum) == ("intensity", 3)
    assert report.negative_starts == 1
    assert any("1 segments belong to no fold" in note for note in report.notes)


def test_segments_that_cannot_be_are_dropped_by_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            "v1,0,0,2,1,0,0,0,0,0,0,train",
            "v1,1,0,2,1,3.33,0,0,0,0,0,train",
            "v1,2,2,2,1,0,0,0,0,0,0,train",
            "v1,3,0,2,1,x,0,0,0,0,0,train",
            "v1,0,0,2,1,0,0,0,0,0,0,train",
            "v1",
        ],
    )
    report = mosei.read(tmp_path).report
    assert dict(report.dropped) == {
        "happiness is outside [0, 3]": ["v1_1", "v1_3"],
        "the segment does not end after it starts": ["v1_2"],
        "id was read before": ["v1_0"],
        "no video id or no segment number": ["v1_"],
    }
    assert (report.rows_read, report.rows_kept) == (6, 1)
    with pytest.raises(DataError, match="line 3: v1_1: happiness is outside"):
        mosei.read(tmp_path, strict=True)


def test_csd_maps_by_name_and_takes_folds_from_a_file(tmp_path: Path) -> None:
    # sentiment, happy, sad, anger, surprise, disgust, fear
    write_csd(
        tmp_path / "CMU_MOSEI_Labels.csd",
        {
            "v1": ([[-3, 0.5, 0, 0, 0, 0, 1], [3, 0, 0, 0, 0, 0, 0]], [[-1, 2], [2, 4]]),
            "v2": ([[0, 0, 1, 2, 3, 0, 0]], [[0, 1]]),
        },
    )
    plain = mosei.read(tmp_path)
    assert plain.corpus.splits.tolist() == [None, None, None]
    assert plain.report.notes
    folds = tmp_path / "folds.json"
    folds.write_text('{"train": ["v1"], "valid": ["v2"]}')
    corpus = mosei.read(tmp_path / "CMU_MOSEI_Labels.csd", folds=folds).corpus
    assert corpus.sample_ids == ["v1_0", "v1_1", "v2_0"]
    assert corpus.splits.tolist() == ["train", "train", "val"]
    assert emotion(corpus, "sadness") == [0, 0, 1]
    assert emotion(corpus, "anger") == [0, 0, 2]
    assert emotion(corpus, "surprise") == [0, 0, 3]
    assert emotion(corpus, "fear") == [1, 0, 0]
    assert emotion(corpus, "neutral") == [0, 1, 0]
    assert corpus.column("start_s").tolist() == [0, 2, 0]


def test_folds_as_a_table_win_over_the_column(tmp_path: Path) -> None:
    path = write(tmp_path, ["v1,0,0,2,1,0,0,0,0,0,0,train"])
    folds = tmp_path / "folds.csv"
    folds.write_text("id,split\nv1,test\n")
    assert mosei.read(path, folds=folds).corpus.splits.tolist() == ["test"]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("folds.csv", "video\nv1\n", "no fold file"),
        ("folds.json", '{"train": "v1"}', "no fold file"),
        ("folds.json", '["v1"]', "no fold file"),
        ("folds.json", '{"train": ["v1"], "test": ["v1"]}', "'v1' is in 'train' and in 'test'"),
        ("none.csv", None, "no fold file"),
    ],
)
def test_folds_that_leave_a_doubt_are_refused(
    tmp_path: Path, name: str, text: str | None, wanted: str
) -> None:
    path = write(tmp_path, ["v1,0,0,2,1,0,0,0,0,0,0,train"])
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=wanted):
        mosei.read(path, folds=tmp_path / name)


def test_fold_names_are_understood_or_named(tmp_path: Path) -> None:
    names = {"a": "Train", "b": "validation", "c": "dev", "d": "testing", "e": "unused", "f": ""}
    write(tmp_path, [f"{video},0,0,2,1,0,0,0,0,0,0,{name}" for video, name in names.items()])
    result = mosei.read(tmp_path)
    assert result.corpus.splits.tolist() == ["train", "val", "val", "test", None, None]
    assert any("2 segments belong to no fold" in n and "'unused'" in n for n in result.report.notes)


def test_what_is_not_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mosei_labels\.csv nor CMU_MOSEI_Labels\.csd"):
        mosei.read(tmp_path)
    path = tmp_path / "mosei_labels.csv"
    path.write_text("id,start\nv,0\n")
    with pytest.raises(DataError, match="lacks the columns segment_id"):
        mosei.read(tmp_path)
    broken = tmp_path / "x.csd"
    broken.write_text("no HDF5")
    pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        mosei.read(broken)
    write_csd(broken, {"v": ([[1, 2, 3]], [[0, 1]])}, root="words")
    with pytest.raises(DataError, match=r"words/data/v: features \(1, 3\)"):
        mosei.read(broken)


def test_real_table() -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real CMU-MOSEI labels here")
    result = mosei.read(Path(root) / "mosei")
    split = result.corpus.meta.counts["split"]
    assert (split["train"], split["val"], split["none"]) == (16327, 1871, 399)
    assert result.report.negative_starts >= 193
    targets = result.corpus.emotion_targets()
    assert (targets[:, 0] == (targets[:, 1:].sum(axis=1) == 0)).all()
