"""The audit finds what was planted, and nothing in a clean corpus."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora.audit import audit, lines
from mepr_shared.corpora.importers import fiv2
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.corpora.near_duplicates import near_duplicate_pairs
from mepr_shared.labels import EmotionScale

WORDS = [f"word{number}" for number in range(400)]


def sentence(seed: int, length: int = 40) -> list[str]:
    return list(np.random.default_rng(seed).choice(WORDS, size=length))


def corpus(**changes) -> Corpus:
    """Forty clips, a source each, 20/10/10."""
    emotion = np.eye(7)[np.arange(40) % 7]
    columns = {
        "sample_id": [f"s{row:02d}" for row in range(40)],
        "source_id": [f"v{row:02d}" for row in range(40)],
        "split": ["train"] * 20 + ["val"] * 10 + ["test"] * 10,
        "text": [" ".join(sentence(row)) for row in range(40)],
        "emotion": emotion,
    }
    return Corpus.build(CorpusMeta("clean"), {**columns, **changes})


def test_a_clean_corpus_raises_no_warning() -> None:
    report = audit(corpus())
    assert report["warnings"] == []
    assert report["text_duplicates"]["first_pairs"] == []
    assert report["shared"]["source_id"]["clips_unseen"] == {"val": 10, "test": 10}
    json.dumps(report)
    assert lines(report)[0] == "clean: 40 rows (train 20, val 10, test 10)"


def test_planted_duplicates_are_found() -> None:
    texts: list[str | None] = [" ".join(sentence(row)) for row in range(40)]
    texts[20] = texts[0].upper() + "!"  # identical but for case and punctuation
    near = sentence(1)
    near[10] = "changed"
    texts[30] = " ".join(near)  # one word of forty
    texts[2] = texts[3]  # the same split: no leak
    texts[4] = texts[25] = "What is this?"  # short: no leak
    texts[5] = texts[26] = None
    found = audit(corpus(text=texts))["text_duplicates"]
    assert (found["identical_pairs"], found["near_pairs"]) == (1, 1)
    assert found["clips"] == {"train": 2, "val": 1, "test": 1}
    pairs = {(first, second) for first, second, _ in found["first_pairs"]}
    assert pairs == {("s00", "s20"), ("s01", "s30")}
    assert audit(corpus(text=texts), threshold=0.99)["text_duplicates"]["near_pairs"] == 0


def test_near_duplicates_agree_with_comparing_all_pairs() -> None:
    random = np.random.default_rng(0)
    texts = []
    for base in range(30):
        for changes in (0, 1, 3, 8):
            words = sentence(base)
            for position in random.choice(40, size=changes, replace=False):
                words[position] = f"new{random.integers(10**9)}"
            texts.append(" ".join(words))

    def triples(text: str) -> set:
        words = text.split()
        return set(zip(words, words[1:], words[2:], strict=False))

    expected = []
    for a, b in combinations(range(len(texts)), 2):
        first, second = triples(texts[a]), triples(texts[b])
        similarity = len(first & second) / len(first | second)
        if similarity >= 0.8:
            expected.append((a, b, pytest.approx(similarity)))
    assert len(expected) >= 30
    assert near_duplicate_pairs(texts) == expected
    assert near_duplicate_pairs([]) == []


def test_shared_sources_and_speakers_are_counted() -> None:
    sources = [f"v{row:02d}" for row in range(40)]
    sources[20] = sources[21] = sources[30] = "v00"
    speakers = ["one"] * 39 + ["two"]
    report = audit(corpus(source_id=sources, speaker_id=speakers))
    shared = report["shared"]["source_id"]
    assert shared["in_several_splits"] == 1
    assert shared["clips_also_in_train"] == {"val": 2, "test": 1}
    assert shared["clips_unseen"] == {"val": 8, "test": 9}
    assert report["shared"]["speaker_id"]["clips_unseen"] == {"val": 0, "test": 1}
    assert any("2 of 10 clips of val" in line for line in report["warnings"])


def test_identical_media_are_found_by_content(tmp_path: Path) -> None:
    media: list[str | None] = [None] * 40
    contents = {0: b"same", 20: b"same", 1: b"samo", 21: b"longer", 2: b"x", 3: b"x"}
    for row, content in contents.items():
        media[row] = str(tmp_path / f"{row}.mp4")
        Path(media[row]).write_bytes(content)
    media[39] = str(tmp_path / "absent.mp4")
    media[4] = media[30] = str(tmp_path / "21.mp4")
    starts = [0.0 if row in (4, 30) else None for row in range(40)]
    found = audit(corpus(media=media, start_s=starts))["media_duplicates"]
    assert sorted(map(tuple, found["first_pairs"])) == [("s00", "s20"), ("s04", "s30")]
    assert found["files_not_found"] == 1


def test_labels_texts_and_gaps() -> None:
    emotion = np.zeros((40, 7))
    emotion[:, 4] = 1
    emotion[0, 1] = 2
    emotion[1:3] = np.nan
    traits = np.full((40, 5), 0.5)
    traits[0, 0] = np.nan
    multi = CorpusMeta("lopsided", EmotionScale("intensity", 3.0))
    columns = {name: corpus().column(name) for name in ("sample_id", "source_id", "text")}
    split = ["train"] * 39 + [None]
    report = audit(
        Corpus.build(multi, {**columns, "split": split, "emotion": emotion, "traits": traits})
    )
    assert report["emotion"]["counts"]["happiness"] == 38
    assert report["emotion"]["co_occurrence"][1][4] == 1
    assert report["emotion"]["imbalance"] == 38
    assert report["emotion"]["absent"] == ["neutral", "disgust", "fear", "sadness", "surprise"]
    assert report["traits"]["partly_missing"] == 1
    assert report["missing"]["emotion"] == 2
    assert report["text"]["train"]["words_median"] == 40
    said = " / ".join(report["warnings"])
    assert "no sample of neutral" in said and "38 times the rarest" in said
    assert "1 rows belong to no split" in said
    assert any("null:" in line for line in lines(report))


def test_real_splits_share_sources() -> None:
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real First Impressions v2 here")
    shared = audit(fiv2.read(Path(root) / "fiv2").corpus)["shared"]["source_id"]
    assert shared["clips_also_in_train"]["val"] == 1674
    assert shared["clips_unseen"]["val"] == 326
