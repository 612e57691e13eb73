"""What is said in a CMU-MOSEI segment is found by its time, in either official form."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.importers import mosei
from mepr_shared.errors import DataError

HEADER = "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,split\n"


def write_labels(folder: Path, *segments: tuple[str, int, float, float]) -> Path:
    path = folder / "labels.csv"
    lines = [f"{v},{n},{start},{end},1,0,0,0,0,0,0,train" for v, n, start, end in segments]
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def texts(corpus) -> dict[str, str | None]:
    return dict(zip(corpus.sample_ids, corpus.texts, strict=True))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "Raw" / "Transcript" / "Segmented" / "Combined"


def test_lines_belong_to_labels_by_time_not_by_number(tmp_path: Path, lines: Path) -> None:
    labels = write_labels(
        tmp_path, ("v", 0, 82.753, 100.555), ("v", 1, -0.48, 4.84), ("v", 2, 13.2, 27.5)
    )
    put(
        lines / "v.txt",
        "v___0___0.0___4.9___First.\r\n"
        "v___1___3.9___14.0___No label.\n\n"
        "v___2___13.1___27.6___Third.\n"
        "v___10___82.7645___100.555___Last.",
    )
    result = mosei.read(labels, transcripts=lines)
    assert texts(result.corpus) == {"v_0": "Last.", "v_1": "First.", "v_2": "Third."}
    assert result.report.transcripts == {"by time": 3, "by number": 0, "missing": 0}
    assert result.corpus.column("start_s").tolist() == [82.753, 0.0, 13.2]


def test_a_number_alone_counts_only_where_a_line_has_no_time(tmp_path: Path, lines: Path) -> None:
    labels = write_labels(tmp_path, ("v", 0, 0, 2), ("v", 1, 3, 5), ("w", 0, 0, 2))
    put(lines / "v.txt", "v___0___40___44___Elsewhere.\nv___01___-___-___Untimed.\n")
    result = mosei.read(labels, transcripts=tmp_path)  # what `Raw` is in
    assert texts(result.corpus) == {"v_0": None, "v_1": "Untimed.", "w_0": None}
    assert result.report.transcripts == {"by time": 0, "by number": 1, "missing": 2}
    assert any("1 videos have no file" in note for note in result.report.notes)
    assert "transcripts: 0 by time, 1 by number, 2 missing" in result.report.lines()


def test_the_line_of_a_neighbour_is_not_taken(tmp_path: Path, lines: Path) -> None:
    # The closest two neighbours of the official labels.
    labels = write_labels(tmp_path, ("266938", 28, 150.729, 152.268), ("266938", 29, 151.3, 152.3))
    put(lines / "266938.txt", "266938___28___151.268___152.327___Later.\n")
    assert texts(mosei.read(labels, transcripts=lines).corpus) == {
        "266938_28": None,
        "266938_29": "Later.",
    }


@pytest.mark.parametrize("video", ["mjQfQx2K__8", "abc_", "a___b", "-x_1"])
def test_ids_with_underscores(tmp_path: Path, lines: Path, video: str) -> None:
    labels = write_labels(tmp_path, (video, 0, 0, 2))
    put(lines / f"{video}.txt", f"{video}___0___0___2___Fill in _____ and ___ here.\n")
    assert mosei.read(labels, transcripts=lines).corpus.texts == ["Fill in _____ and ___ here."]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("caf\xe9".encode("latin1"), "caf\xe9"),
        ("don\x92t".encode("latin1"), "don’t"),
        ("donâ€™t".encode(), "don’t"),
        ("so\x85 well".encode(), "so… well"),
        (b"(umm) I see [inaudible 00:00:16] it", "I see it"),
        (b"(uhh) wow (fanta-sci) (stutter) too", "wow (fanta-sci) too"),
        (b"(laughs)", None),
        (b"  ", None),
    ],
)
def test_marks_and_broken_characters(
    tmp_path: Path, lines: Path, written: bytes, text: str | None
) -> None:
    labels = write_labels(tmp_path, ("v", 0, 0, 2))
    put(lines / "v.txt", b"v___0___0___2___" + written + b"\n")
    result = mosei.read(labels, transcripts=lines)
    assert result.corpus.texts == [text]
    assert result.report.empty_texts == (text is None)


def test_lines_that_are_none_are_reported(tmp_path: Path, lines: Path) -> None:
    labels = write_labels(tmp_path, ("v", 0, 0, 2))
    path = put(lines / "v.txt", "v___0___0___2___Good.\nno line\nw___1___3___4___Other.\n")
    result = mosei.read(labels, transcripts=lines)
    assert result.corpus.texts == ["Good."]
    assert result.report.notes == ["2 lines are no transcripts, the first: v.txt, line 2"]
    with pytest.raises(DataError, match="v.txt, line 2"):
        mosei.read(labels, transcripts=lines, strict=True)
    put(path, b"\x89HDF\r\n\x00\xff")
    with pytest.raises(DataError, match="v.txt, line 1"):
        mosei.read(labels, transcripts=lines)


def test_what_holds_no_transcripts_is_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, ("v", 0, 0, 2))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none", labels):
        with pytest.raises(DataError, match="no transcripts of CMU-MOSEI"):
            mosei.read(labels, transcripts=path)


def write_csd(path: Path, videos: dict[str, list[tuple[bytes, float, float]]]) -> Path:
    h5py = pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")
    with h5py.File(path, "w") as file:
        for video, words in videos.items():
            group = file.create_group(f"words/data/{video}")
            group["features"] = np.array([[word] for word, _, _ in words], dtype="S32")
            group["intervals"] = np.array([times for _, *times in words], dtype=np.float32)
        file.create_group("words/metadata")
    return path


def test_timed_words(tmp_path: Path) -> None:
    labels = write_labels(
        tmp_path, ("v", 0, 2, 4), ("v", 1, -0.5, 2), ("v", 2, 50, 60), ("w", 0, 0, 1)
    )
    words = [
        (b"sp", 0, 0.2),
        (b"one", 0.2, 1.0),
        (b"two", 1.4, 2.4),  # its middle is in the first stretch
        (b"three", 2.4, 3.0),
        (b"sp", 3.0, 3.2),
        ("caf\xe9".encode(), 3.2, 3.8),
        (b"five", 3.8, 4.6),  # its middle is behind the second
    ]
    path = write_csd(tmp_path / "CMU_MOSEI_TimestampedWords.csd", {"v": words, "other": words})
    for given in (path, tmp_path):
        result = mosei.read(labels, transcripts=given)
        assert texts(result.corpus) == {
            "v_0": "three caf\xe9",
            "v_1": "one two",
            "v_2": None,
            "w_0": None,
        }
    assert result.report.transcripts == {"from timed words": 3, "missing": 1}
    assert result.report.empty_texts == 1
    assert any("1 videos have no words" in note for note in result.report.notes)


def test_csd_labels_with_folds_media_and_words(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="mepr-shared[csd] is not installed")
    with h5py.File(tmp_path / "CMU_MOSEI_Labels.csd", "w") as file:
        group = file.create_group("All Labels/data/v")
        group["features"] = np.array([[0, 2, 0, 0, 0, 0, 0], [0] * 7], dtype=np.float32)
        group["intervals"] = np.array([[-0.5, 2], [2, 4]], dtype=np.float32)
    write_csd(tmp_path / "words.csd", {"v": [(b"hello", 0, 1), (b"there", 2, 3)]})
    put(tmp_path / "media" / "v.mp4", "x")
    put(tmp_path / "folds.json", '{"train": ["other"], "test": ["v"]}')
    corpus = mosei.read(
        tmp_path,
        folds=tmp_path / "folds.json",
        media=tmp_path / "media",
        transcripts=tmp_path / "words.csd",
    ).corpus
    assert corpus.splits.tolist() == ["test", "test"]
    assert corpus.texts == ["hello", "there"]
    assert corpus.column("media").tolist() == [str(tmp_path / "media" / "v.mp4")] * 2
    assert corpus.column("start_s").tolist() == [0, 2]


def test_real_labels_with_lines_at_their_times(tmp_path: Path) -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real CMU-MOSEI labels here")
    source = Path(root) / "mosei" / "mosei_labels.csv"
    corpus = mosei.read(source).corpus
    by_video: dict[str, list[tuple[float, float, str]]] = {}
    rows = zip(
        corpus.source_ids,
        corpus.column("start_s"),
        corpus.column("end_s"),
        corpus.sample_ids,
        strict=True,
    )
    for video, start, end, sample_id in rows:
        by_video.setdefault(video, []).append((start, end, sample_id))
    for video, found in by_video.items():
        content = "".join(
            f"{video}___{number}___{start:.4f}___{end:.4f}___{sample_id}\n"
            for number, (start, end, sample_id) in enumerate(sorted(found))
        )
        put(tmp_path / f"{video}.txt", content)
    result = mosei.read(source, transcripts=tmp_path)
    assert result.corpus.texts == result.corpus.sample_ids
    assert result.report.transcripts == {"by time": len(corpus), "by number": 0, "missing": 0}
