"""CMU-MOSEI's media: full videos first; a pre-cut clip only where it is known whose it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mepr_shared.corpora.importers import mosei
from mepr_shared.errors import DataError

HEADER = "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,split\n"
FULL, SOUND = "Raw/Videos/Full/Combined", "Raw/Audio/Full/WAV_16000"
CUT = "Raw/Videos/Segmented/Combined"
LINES = "Raw/Transcript/Segmented/Combined"


def put(path: Path, text: str = "x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Two segments of v1 (the later one first, as in the official table) and one of v2_8."""
    folder = tmp_path / "labels"
    times = {"v1,0": (10, 12), "v1,1": (-0.4, 2), "v2_8,0": (0, 3)}
    lines = [f"{key},{a},{b},1,0,0,0,0,0,0,train" for key, (a, b) in times.items()]
    put(folder / "mosei_labels.csv", HEADER + "\n".join(lines) + "\n")
    return folder


def columns(corpus, *names: str) -> dict[str, tuple]:
    values = zip(*(corpus.column(name).tolist() for name in names), strict=True)
    return dict(zip(corpus.sample_ids, values, strict=True))


def test_full_videos_keep_the_times_of_the_segments(tmp_path: Path, labels: Path) -> None:
    root = tmp_path / "MOSEI"
    video = put(root / FULL / "v1.mp4")
    put(root / SOUND / "v1.wav")
    sound = put(root / SOUND / "v2_8.wav")  # an id that looks like a segment of "v2"
    put(root / CUT / "v1_0.mp4")
    put(root / CUT / "v2_8_0.mp4")
    (root / "again").symlink_to(root, target_is_directory=True)
    result = mosei.read(labels, media=root)
    assert columns(result.corpus, "media", "start_s", "end_s") == {
        "v1_0": (video, 10.0, 12.0),
        "v1_1": (video, 0.0, 2.0),
        "v2_8_0": (sound, 0.0, 3.0),
    }
    report = result.report
    assert (report.media_found, report.media_missing, report.negative_starts) == (3, 0, 1)
    assert report.media_kinds == {"full videos": 2, "sound of full videos": 1}
    assert report.notes == []


def test_missing_media_are_counted(tmp_path: Path, labels: Path) -> None:
    put(tmp_path / "media" / "v2_8.webm")
    report = mosei.read(labels, media=tmp_path / "media").report
    assert (report.media_found, report.media_missing) == (1, 2)
    assert "2 rows have no media file (text and labels only)" in report.lines()


def test_media_beside_the_labels_need_no_option(labels: Path) -> None:
    put(labels / FULL / "v1.mp4")
    assert mosei.read(labels).report.media_found == 2
    assert mosei.read(labels / "mosei_labels.csv").report.media_found == 0


def test_clips_cut_from_the_labels(tmp_path: Path, labels: Path) -> None:
    clip = put(tmp_path / "cut" / "v1_1.mp4")
    put(tmp_path / "cut" / "v1_1.wav")
    full = put(tmp_path / "cut" / "v2_8.mp4")
    result = mosei.read(labels, media=tmp_path / "cut")
    # The file is the segment: it has no start and end of its own.
    assert columns(result.corpus, "media", "start_s", "end_s") == {
        "v1_0": (None, 10.0, 12.0),
        "v1_1": (clip, None, None),
        "v2_8_0": (full, 0.0, 3.0),
    }
    assert result.report.media_kinds == {"pre-cut clips": 1, "full videos": 1}
    assert result.report.notes == ["pre-cut clips were taken by the numbers of the labels"]


def test_an_id_that_looks_like_a_clip_is_a_video(tmp_path: Path) -> None:
    lines = [f"{video},0,0,2,1,0,0,0,0,0,0,train" for video in ("v", "v_7")]
    source = tmp_path / "mosei_labels.csv"
    put(source, HEADER + "\n".join(lines) + "\n")
    clip, video = put(tmp_path / "media" / "v_0.mp4"), put(tmp_path / "media" / "v_7.mp4")
    corpus = mosei.read(source, media=tmp_path / "media").corpus
    assert columns(corpus, "media", "end_s") == {"v_0": (clip, None), "v_7_0": (video, 2.0)}


def official_clips(root: Path) -> None:
    """As published: numbered in order of time, with segments that no label speaks of."""
    spoken = ((0, 0.0, 2.0), (1, 4.0, 9.0), (2, 10.0, 12.0))
    for number, _, _ in spoken:
        put(root / CUT / f"v1_{number}.mp4")
    text = "".join(f"v1___{n}___{start}___{end}___Words {n}.\n" for n, start, end in spoken)
    put(root / LINES / "v1.txt", text)


def test_official_clips_are_told_apart_by_the_transcripts(tmp_path: Path, labels: Path) -> None:
    root = tmp_path / "MOSEI"
    official_clips(root)
    result = mosei.read(labels, media=root, transcripts=root)
    assert columns(result.corpus, "media", "text") == {
        "v1_0": (str(root / CUT / "v1_2.mp4"), "Words 2."),
        "v1_1": (str(root / CUT / "v1_0.mp4"), "Words 0."),
        "v2_8_0": (None, None),
    }
    assert "pre-cut clips were taken by the numbers of the transcripts" in result.report.notes


def test_official_clips_without_transcripts_are_left_alone(tmp_path: Path, labels: Path) -> None:
    root = tmp_path / "MOSEI"
    official_clips(root)
    result = mosei.read(labels, media=root)
    assert result.report.media_found == 0
    (note,) = result.report.notes
    assert note.startswith("2 segments") and "--transcripts" in note


def test_clips_cut_from_the_labels_stay_so_beside_transcripts(tmp_path: Path, labels: Path) -> None:
    root = tmp_path / "MOSEI"
    official_clips(root)
    (root / CUT / "v1_2.mp4").unlink()  # the transcripts know a segment more than the clips
    media = mosei.read(labels, media=root, transcripts=root).corpus.column("media").tolist()
    assert media[:2] == [str(root / CUT / f"v1_{number}.mp4") for number in (0, 1)]


def test_a_video_in_two_folders_is_reported(tmp_path: Path, labels: Path) -> None:
    first = put(tmp_path / "media" / "a" / "v1.mp4")
    put(tmp_path / "media" / "b" / "v1.mp4")
    result = mosei.read(labels, media=tmp_path / "media")
    assert result.corpus.column("media").tolist() == [first, first, None]
    assert any(note.startswith("1 names") and "v1" in note for note in result.report.notes)


def test_a_media_folder_that_is_not_there_is_refused(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(DataError, match="no such folder of media"):
        mosei.read(labels, media=tmp_path / "none")


def test_real_labels_find_every_video(tmp_path: Path) -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real CMU-MOSEI labels here")
    source = Path(root) / "mosei" / "mosei_labels.csv"
    videos = set(mosei.read(source).corpus.source_ids)
    for number, video in enumerate(sorted(videos)):
        name = f"{FULL}/{video}.mp4" if number % 2 else f"{SOUND}/{video}.wav"
        put(tmp_path / name)
    result = mosei.read(source, media=tmp_path)
    assert result.report.media_missing == 0
    stems = [Path(path).stem for path in result.corpus.column("media")]
    assert stems == result.corpus.source_ids.tolist()
    assert result.report.notes == mosei.read(source).report.notes
