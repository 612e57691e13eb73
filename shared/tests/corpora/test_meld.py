"""MELD: dialogues in order, joy is happiness, broken characters mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mepr_shared.corpora.importers import meld
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"


def write(folder: Path, part: str, lines: list[str], encoding: str = "utf-8") -> None:
    content = HEADER + "\n".join(lines) + "\n"
    (folder / f"{part}_sent_emo.csv").write_bytes(content.encode(encoding))


def test_ids_context_and_labels(tmp_path: Path) -> None:
    train = ['1,"Oh, I\x92m fine.",Ross,joy,x,0,0,1', "2,What?,Monica,surprise,x,0,1,1"]
    write(tmp_path, "train", train)
    write(tmp_path, "dev", ["1,No.,Ross,anger,x,0,0,1"])
    result = meld.read(tmp_path)
    corpus = result.corpus
    assert corpus.sample_ids == ["train_dia0_utt0", "train_dia0_utt1", "val_dia0_utt0"]
    assert corpus.texts == ["Oh, I’m fine.", "What?", "No."]
    assert corpus.source_ids.tolist() == ["train_dia0", "train_dia0", "val_dia0"]
    assert corpus.column("context_order").tolist() == [0, 1, 0]
    assert corpus.column("speaker_id").tolist() == ["Ross", "Monica", "Ross"]
    named = [EMOTIONS[index] for index in corpus.emotion_values.argmax(axis=1)]
    assert named == ["happiness", "surprise", "anger"]
    assert corpus.meta.scale.kind == "single_label"
    assert result.report.straddling_sources == 0


def test_a_cp1252_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, "dev", ["1,Caf\xe9 isn’t open,Ross,neutral,x,0,0,1"], "cp1252")
    assert meld.read(tmp_path).corpus.texts == ["Café isn’t open"]


def test_impossible_rows(tmp_path: Path) -> None:
    lines = [
        "1,Hi,Ross,joy,x,0,0,1",
        "2,Hi,Ross,joy,x,0,0,1",
        "3,Hi,Ross,boredom,x,0,2,1",
        "4,Hi,Ross,joy,x,0,three,1",
    ]
    write(tmp_path, "train", lines)
    report = meld.read(tmp_path).report
    assert (report.rows_kept, report.duplicate_ids, report.out_of_range) == (1, 1, 2)
    with pytest.raises(DataError, match=r"train_sent_emo\.csv, line 3"):
        meld.read(tmp_path, strict=True)


def test_what_is_not_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_sent_emo\.csv"):
        meld.read(tmp_path)
    (tmp_path / "dev_sent_emo.csv").write_text("Utterance,Emotion\nHi,joy\n")
    with pytest.raises(DataError, match="lacks the columns Speaker"):
        meld.read(tmp_path)
    write(tmp_path, "dev", ["1,Hi,Ross"])
    with pytest.raises(DataError, match="line 2: fewer fields"):
        meld.read(tmp_path)


def test_real_files() -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real MELD here")
    corpus = meld.read(Path(root) / "meld").corpus
    assert corpus.meta.counts["split"]["train"] == 9989
    assert corpus.meta.counts["split"]["val"] == 1109
    train = corpus.emotion_values[corpus.select(split="train")].sum(axis=0)
    counts = {"neutral": 4710, "happiness": 1743, "surprise": 1205, "anger": 1109}
    for emotion, count in counts.items():
        assert train[EMOTIONS.index(emotion)] == count
    assert not any("\x80" <= character <= "\x9f" for text in corpus.texts for character in text)
