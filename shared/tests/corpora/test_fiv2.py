"""First Impressions v2: official files in, an index out, everything odd counted."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.importers import fiv2
from mepr_shared.errors import DataError
from mepr_shared.labels import TRAITS

OFFICIAL = ("extraversion", "neuroticism", "agreeableness", "conscientiousness", "interview")
OFFICIAL += ("openness",)


def write_part(folder: Path, part: str, clips: dict[str, dict], texts: dict[str, str]) -> None:
    scores = {
        name: {clip: values.get(name, 0.5) for clip, values in clips.items()} for name in OFFICIAL
    }
    for kind, content in (("annotation", scores), ("transcription", texts)):
        (folder / f"{kind}_{part}.pkl").write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    clips = {
        "vid-A.000.mp4": {"neuroticism": np.float64(0.75), "openness": 0.25, "interview": 0.125},
        "vid_B.001.mp4": {},
    }
    texts = {"vid-A.000.mp4": "Hello [inaudible 00:00:16] you.", "vid_B.001.mp4": "(laughs)"}
    write_part(tmp_path, "training", clips, texts)
    write_part(tmp_path, "validation", {"vid-A.003.mp4": {}}, {"vid-A.003.mp4": "Bye."})
    return tmp_path


def test_names_scores_and_texts(official: Path) -> None:
    result = fiv2.read(official)
    corpus, report = result.corpus, result.report
    assert corpus.sample_ids == ["vid-A.000", "vid-A.003", "vid_B.001"]
    assert corpus.source_ids.tolist() == ["vid-A", "vid-A", "vid_B"]
    assert corpus.splits.tolist() == ["train", "val", "train"]
    assert corpus.texts == ["Hello you.", "Bye.", None]
    # "neuroticism" is stability, unflipped.
    assert corpus.trait_values[0, TRAITS.index("emotional_stability")] == 0.75
    assert corpus.trait_values[0, TRAITS.index("openness")] == 0.25
    assert corpus.column("interview").tolist() == [0.125, 0.5, 0.5]
    assert (report.marks_stripped, report.empty_texts, report.media_missing) == (2, 1, 3)
    assert (report.straddling_sources, report.straddling_clips) == (1, {"val": 1})
    assert any("test" in note for note in report.notes)


def test_media_are_found_in_sub_folders_and_flat(official: Path) -> None:
    nested = official / "train-1" / "training80_01" / "vid-A.000.mp4"
    nested.parent.mkdir(parents=True)
    nested.write_bytes(b"x")
    (official / "vid_B.001.mp4").write_bytes(b"y")
    os.symlink(official, official / "train-1" / "loop")
    result = fiv2.read(official)
    assert result.corpus.column("media").tolist() == [
        str(nested),
        None,
        str(official / "vid_B.001.mp4"),
    ]
    assert (result.report.media_found, result.report.media_missing) == (2, 1)


def put(path: Path, content: bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def test_official_sub_folders_of_all_splits_elsewhere(tmp_path: Path) -> None:
    places = {
        "training": [
            f"train-{1 + number // 13}/training80_{number + 1:02}" for number in range(75)
        ],
        "validation": [
            f"val-{1 + number // 13}/validation80_{number + 1:02}" for number in range(25)
        ],
        "test": [f"test-{1 + number // 13}/test80_{number + 1:02}" for number in range(25)],
    }
    pickles, media = tmp_path / "labels", tmp_path / "media"
    pickles.mkdir()
    wanted = {}
    for part, folders in places.items():
        clips = {f"{part}_-{number:02}.003.mp4": {} for number in range(len(folders))}
        write_part(pickles, part, clips, dict.fromkeys(clips, "text"))
        for clip, folder in zip(clips, folders, strict=True):
            wanted[clip.removesuffix(".mp4")] = put(media / folder / clip)
    result = fiv2.read(pickles, media=media, strict=True)
    found = dict(zip(result.corpus.sample_ids, result.corpus.column("media"), strict=True))
    assert found == wanted and len(found) == 125
    assert (result.report.media_found, result.report.media_missing) == (125, 0)
    assert result.corpus.meta.counts["split"] == {"train": 75, "val": 25, "test": 25}
    assert fiv2.read(pickles).report.media_missing == 125


def test_a_clip_in_two_folders_is_reported(official: Path) -> None:
    first = put(official / "train-1" / "training80_01" / "vid-A.000.mp4")
    put(official / "train-2" / "training80_13" / "vid-A.000.mp4")
    video = put(official / "val-1" / "validation80_01" / "vid-A.003.mp4")
    put(official / "sound" / "vid-A.003.wav")  # another form of the clip, not a rival of it
    os.symlink(video, official / "vid-A.003.mp4")  # and this is the very same
    put(official / "a" / "stranger.000.mp4")  # no label speaks of these two
    put(official / "b" / "stranger.000.mp4")
    result = fiv2.read(official)
    media = result.corpus.column("media").tolist()
    assert media[0] == first and os.path.realpath(media[1]) == video
    (note,) = (note for note in result.report.notes if "more than one folder" in note)
    assert note.startswith("1 names") and "vid-A.000" in note


def test_a_media_folder_that_is_not_there_is_refused(official: Path) -> None:
    with pytest.raises(DataError, match="no such folder of media: .*none"):
        fiv2.read(official, media=official / "none")


def test_impossible_rows_are_dropped_named_and_counted(tmp_path: Path) -> None:
    clips = {
        "ok.000.mp4": {},
        "high.000.mp4": {"openness": 1.5},
        "word.000.mp4": {"openness": "much"},
        "odd.mp4": {},
        "part.000.mp4": {"openness": None},
    }
    write_part(tmp_path, "training", clips, dict.fromkeys(clips, "text"))
    write_part(tmp_path, "validation", {"ok.000.mp4": {}}, {})
    report = fiv2.read(tmp_path).report
    assert (report.rows_read, report.rows_kept) == (6, 2)
    assert (report.out_of_range, report.duplicate_ids, report.partly_missing_traits) == (3, 1, 1)
    assert report.dropped["openness is outside [0, 1]"] == ["high.000", "word.000"]
    assert report.to_dict()["dropped"]["id was read before"] == {"rows": 1, "first_ids": ["ok.000"]}
    assert any("high.000" in line for line in report.lines())
    with pytest.raises(DataError, match=r"annotation_training\.pkl: high\.000: openness"):
        fiv2.read(tmp_path, strict=True)


def test_test_transcripts_without_annotation_are_unlabelled_rows(official: Path) -> None:
    content = pickle.dumps({"vid_T.000.mp4": "Unseen."})
    (official / "transcription_test.pkl").write_bytes(content)
    corpus = fiv2.read(official).corpus
    row = corpus.sample_ids.index("vid_T.000")
    assert corpus.splits[row] == "test" and np.isnan(corpus.trait_values[row]).all()


def test_an_annotation_without_transcripts_gives_rows_without_text(official: Path) -> None:
    (official / "transcription_validation.pkl").unlink()
    result = fiv2.read(official)
    assert result.corpus.texts[1] is None
    assert any("no transcription_validation.pkl" in note for note in result.report.notes)


def test_what_is_not_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotation_\{training,validation,test\}\.pkl"):
        fiv2.read(tmp_path)
    (tmp_path / "annotation_training.pkl").write_bytes(pickle.dumps({"openness": {}}))
    with pytest.raises(DataError, match="not an annotation file"):
        fiv2.read(tmp_path)


def test_real_files() -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real First Impressions v2 here")
    corpus, report = (result := fiv2.read(Path(root) / "fiv2")).corpus, result.report
    counts = corpus.meta.counts
    assert (counts["split"]["train"], counts["split"]["val"]) == (6000, 2000)
    assert counts["traits"] == report.rows_kept == report.rows_read == len(corpus)
    # 84 % of the validation clips come from a video that is also in training.
    assert 0.82 < report.straddling_clips["val"] / 2000 < 0.86
    interview = corpus.column("interview").astype(float)
    stability = corpus.trait_values[:, TRAITS.index("emotional_stability")]
    training = corpus.select(split="train")
    correlation = np.corrcoef(interview[training], stability[training])[0, 1]
    assert correlation == pytest.approx(0.88, abs=0.01)
    texts = " ".join(text for text in corpus.texts if text)
    assert "[" not in texts and "inaudible" not in texts and "00:00:" not in texts
    assert 8 <= report.empty_texts < 20
