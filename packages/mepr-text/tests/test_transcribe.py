"""Missing texts are filled in, nothing else is touched, and nothing is lost or done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mepr_shared.contract.frames import store_key
from mepr_shared.contract.statuses import STATUSES
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_text import transcribe
from mepr_text.asr import Transcript
from mepr_text.transcribe import journal_path, transcribe_corpus

RATE = 16_000
WriteWav = Callable[[Path, np.ndarray], Path]


@dataclass
class Listener:
    """Says how long a sound is and how loud; interrupted after some calls."""

    spec: Mapping[str, Any] = field(default_factory=lambda: {"model": "listener"})
    calls_before_end: int = 10**9
    heard: list[np.ndarray] = field(default_factory=list)

    def transcribe_batch(self, recordings: Sequence[np.ndarray]) -> list[Transcript]:
        if not self.calls_before_end:
            raise KeyboardInterrupt
        self.calls_before_end -= 1
        self.heard += recordings
        return [self._transcript(samples) for samples in recordings]

    def _transcript(self, samples: np.ndarray) -> Transcript:
        level = float(np.abs(samples).max())
        if level < 0.01:
            return Transcript("", reason="no speech was found")
        seconds = len(samples) / RATE
        text = f"{seconds:.2f} s, {level:.1f}"
        return Transcript(text, "en", 0.9, level, ((0.0, seconds, text),), tokens=10)


def tone(seconds: float, level: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path, write_wav: WriteWav) -> Corpus:
    """Ten clips of 1.0 to 1.9 s, two of them with a text; one text without media."""
    folder = tmp_path / "x"
    for number in range(10):
        write_wav(folder / f"media/c{number}.wav", tone(1 + number / 10, 0.3 + number / 20))
    texts: list[str | None] = [None] * 10
    texts[3], texts[7] = "  As it\tis. ", "Grüße"
    columns = {
        "sample_id": [*(f"c{number}" for number in range(10)), "t"],
        "split": ["train", "val"] * 5 + [None],
        "source_id": [f"s{number % 3}" for number in range(11)],
        "media": [*(str(folder / f"media/c{number}.wav") for number in range(10)), None],
        "text": [*texts, "No media."],
        "emotion": [[0.0] * 6 + [1.0]] * 11,
        "group_gender": ["f"] * 11,
        "interview": [0.5] * 11,
    }
    return Corpus.build(CorpusMeta("c", notes=("A note.",)), columns).write(folder / "x.parquet")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "y/new/y.parquet"


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribe, "GROUP_CLIPS", 2)


def row(corpus: Corpus, sample_id: str) -> dict[str, Any]:
    return corpus.table.slice(corpus.sample_ids.index(sample_id), 1).to_pylist()[0]


def test_missing_texts_are_filled_in_and_nothing_else_changes(corpus: Corpus, out: Path) -> None:
    given, summary = transcribe_corpus(corpus, out, Listener())
    found = Corpus.read(out)
    assert found.table.equals(given.table)
    for name in corpus.table.column_names:
        if name not in ("text", "media"):
            assert found.table[name].equals(corpus.table[name]), name
    for before, after, source in zip(
        corpus.texts, found.texts, found.column("text_source"), strict=True
    ):
        assert (after, source) == (before, "given") if before else source == "asr"
    assert found.texts[4] == "1.40 s, 0.5"
    # The index lies elsewhere, the media do not.
    assert all(found.media_path(media).is_file() for media in found.column("media") if media)
    assert found.hashes.samples_sha256 == corpus.hashes.samples_sha256
    assert found.hashes.labels_sha256 == corpus.hashes.labels_sha256
    assert found.meta.notes == corpus.meta.notes
    assert (summary.kept, summary.transcribed, summary.reused) == (3, 8, 0)
    assert summary.statuses == {"ok": 8}
    assert summary.audio_s == pytest.approx(sum(1 + n / 10 for n in range(10)) - 1.3 - 1.7)


def test_each_row_says_where_its_text_is_from(corpus: Corpus, out: Path) -> None:
    listener = Listener()
    transcribe_corpus(corpus, out, listener)
    found = Corpus.read(out)
    spoken, given = row(found, "c2"), row(found, "c3")
    assert spoken["asr_status"] == "ok"
    assert spoken["asr_reason"] is None
    assert spoken["asr_language"] == "en"
    assert spoken["asr_language_probability"] == pytest.approx(0.9)
    assert spoken["asr_confidence"] == pytest.approx(0.4, abs=0.01)
    assert {given[name] for name in given if name.startswith("asr_")} == {None}
    key = store_key(listener.spec)
    assert spoken["asr_model"] == key
    assert found.meta.import_report["transcriptions"][key] == {
        "spec": {"model": "listener"},
        "kept": 3,
        "statuses": {"ok": 8},
    }


def test_a_blank_text_is_none(corpus: Corpus, tmp_path: Path, out: Path) -> None:
    texts = [" \n" if text is None else text for text in corpus.texts]
    table = corpus.table.set_column(
        corpus.table.schema.get_field_index("text"), "text", pa.array(texts)
    )
    blank = Corpus(corpus.meta, table, corpus.path)
    found, summary = transcribe_corpus(blank, out, Listener())
    assert summary.transcribed == 8
    assert row(found, "c0")["text"] == "1.00 s, 0.3"


def test_no_clip_is_lost_whatever_its_media_are(
    tmp_path: Path, write_wav: WriteWav, out: Path
) -> None:
    folder = tmp_path / "bad"
    good = write_wav(folder / "good.wav", tone(1))
    names = {
        "empty": folder / "empty.wav",
        "text": folder / "text.wav",
        "gone": folder / "gone.wav",
        "folder": folder,
        "loop": folder / "loop.wav",
        "late": good,
        "silent": write_wav(folder / "silent.wav", np.zeros(RATE, np.float32)),
        "path ü": write_wav(folder / "a b\nü.wav", tone(1)),
        "short": write_wav(folder / "short.wav", tone(0.001)),
        "long name": folder / ("x" * 300 + ".wav"),
    }
    names["empty"].touch()
    names["text"].write_text("This is no sound.")
    names["loop"].symlink_to(names["loop"])
    cut = folder / "cut.wav"
    cut.write_bytes(write_wav(folder / "whole.wav", tone(2)).read_bytes()[: RATE * 2])
    names["cut"] = cut
    ids = sorted([*names, "nothing"])
    corpus = Corpus.build(
        CorpusMeta("bad"),
        {
            "sample_id": ids,
            "split": ["train"] * len(ids),
            "source_id": ids,
            "media": [str(names[name]) if name in names else None for name in ids],
            "start_s": [5.0 if name == "late" else None for name in ids],
            "text": [None] * len(ids),
        },
    )
    found, summary = transcribe_corpus(corpus, out, Listener())
    statuses = dict(zip(found.sample_ids, found.column("asr_status"), strict=True))
    assert set(statuses.values()) <= set(STATUSES)
    expected = {
        "empty": "decode_error",
        "text": "decode_error",
        "gone": "no_media",
        "folder": "no_media",
        "loop": "no_media",
        "late": "too_short",
        "silent": "no_text",
        "path ü": "ok",
        "short": "ok",  # the listener's: a Whisper finds nothing in it
        "long name": "no_media",
        "cut": "partial",
        "nothing": "no_media",
    }
    assert statuses == expected
    reasons = dict(zip(found.sample_ids, found.column("asr_reason"), strict=True))
    assert all(bool(reasons[name]) == (status != "ok") for name, status in statuses.items())
    assert not any(str(tmp_path) in (reason or "") for reason in reasons.values())
    for name, text in zip(found.sample_ids, found.texts, strict=True):
        assert bool(text) == (expected[name] in ("ok", "partial"))
    assert summary.statuses.total() == len(ids)
    assert len(summary.problems) == sum(status != "ok" for status in expected.values())


def test_a_segment_is_heard_as_such(tmp_path: Path, write_wav: WriteWav, out: Path) -> None:
    sound = np.concatenate([tone(1, 0.2), tone(1, 0.8), tone(1, 0.5)])
    media = str(write_wav(tmp_path / "long.wav", sound))
    corpus = Corpus.build(
        CorpusMeta("segments"),
        {
            "sample_id": ["a", "b", "c"],
            "media": [media] * 3,
            "start_s": [None, 1.0, 2.25],
            "end_s": [0.75, 2.0, None],
            "text": [None] * 3,
        },
    )
    found, _ = transcribe_corpus(corpus, out, Listener())
    assert found.texts == ["0.75 s, 0.2", "1.00 s, 0.8", "0.75 s, 0.5"]


def test_long_recordings_are_heard_in_blocks(
    tmp_path: Path, write_wav: WriteWav, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcribe, "BLOCK_S", 2.0)
    monkeypatch.setattr(transcribe, "GROUP_S", 3.0)
    sound = np.concatenate([tone(2, 0.2), np.zeros(2 * RATE, np.float32), tone(1.5, 0.8)])
    sounds = {"a": sound, "b": sound / 2, "c": tone(1, 0.4)}
    media = [write_wav(tmp_path / f"{name}.wav", sounds[name]) for name in sounds]
    corpus = Corpus.build(
        CorpusMeta("long"),
        {"sample_id": list("abc"), "media": [str(m) for m in media], "text": [None] * 3},
    )
    listener = Listener()
    found, _ = transcribe_corpus(corpus, out, listener)
    assert found.texts == ["2.00 s, 0.2 1.50 s, 0.8", "2.00 s, 0.1 1.50 s, 0.4", "1.00 s, 0.4"]
    assert max(map(len, listener.heard)) == 2 * RATE
    assert sum(map(len, listener.heard)) == 2 * len(sound) + RATE
    first = json.loads(journal_path(out).read_text("utf-8").splitlines()[1])
    assert [segment[:2] for segment in first["segments"]] == [[0.0, 2.0], [4.0, 5.5]]
    assert first["confidence"] == pytest.approx(np.sqrt(0.2 * 0.8), abs=0.001)


@pytest.mark.usefixtures("small_groups")
def test_an_interrupted_run_goes_on(corpus: Corpus, out: Path, tmp_path: Path) -> None:
    whole, _ = transcribe_corpus(corpus, tmp_path / "whole/y.parquet", Listener())
    with pytest.raises(KeyboardInterrupt):
        transcribe_corpus(corpus, out, Listener(calls_before_end=2))
    assert not out.exists()
    assert len(journal_path(out).read_bytes().splitlines()) == 1 + 4
    with pytest.raises(DataError, match=r"--resume goes on with them, --overwrite starts anew"):
        transcribe_corpus(corpus, out, Listener())
    seen: list[tuple[int, int]] = []
    listener = Listener()
    found, summary = transcribe_corpus(
        corpus, out, listener, resume=True, on_progress=lambda *now: seen.append(now)
    )
    assert (summary.transcribed, summary.reused, len(listener.heard)) == (4, 4, 4)
    assert summary.statuses == {"ok": 8}
    assert seen == [(6, 8), (8, 8)]
    assert Corpus.read(out).table.drop(["media"]).equals(whole.table.drop(["media"]))
    assert found.meta.import_report == whole.meta.import_report


@pytest.mark.usefixtures("small_groups")
def test_a_torn_line_costs_one_clip(corpus: Corpus, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        transcribe_corpus(corpus, out, Listener(calls_before_end=2))
    journal = journal_path(out)
    journal.write_bytes(journal.read_bytes()[:-40])
    _, summary = transcribe_corpus(corpus, out, Listener(), resume=True)
    assert (summary.transcribed, summary.reused) == (5, 3)
    _, summary = transcribe_corpus(corpus, out, Listener(), resume=True, overwrite=True)
    assert (summary.transcribed, summary.reused) == (0, 8)


def test_only_the_same_sound_and_model_are_reused(
    corpus: Corpus, out: Path, write_wav: WriteWav
) -> None:
    transcribe_corpus(corpus, out, Listener())

    def again(changed: Corpus, **spec: Any) -> tuple[Corpus, int]:
        listener = Listener({"model": "listener", **spec})
        found, summary = transcribe_corpus(changed, out, listener, resume=True, overwrite=True)
        return found, summary.transcribed

    assert again(corpus)[1] == 0
    assert again(corpus, beam_size=1)[1] == 8
    write_wav(corpus.media_path("media/c0.wav"), tone(3))
    found, count = again(corpus)
    assert (found.texts[0], count) == ("3.00 s, 0.5", 1)
    corpus.media_path("media/c1.wav").unlink()
    found, count = again(corpus)
    assert (found.texts[1], found.column("asr_status")[1], count) == (None, "no_media", 1)
    write_wav(corpus.media_path("media/c1.wav"), tone(2))
    assert again(corpus)[0].texts[1] == "2.00 s, 0.5"
    starts = pa.array([0.5] + [None] * 10, pa.float64())
    place = corpus.table.schema.get_field_index("start_s")
    later = Corpus(corpus.meta, corpus.table.set_column(place, "start_s", starts), corpus.path)
    found, count = again(later)
    assert (found.texts[0], count) == ("2.50 s, 0.5", 1)


def test_a_finished_index_is_not_replaced_by_accident(corpus: Corpus, out: Path) -> None:
    transcribe_corpus(corpus, out, Listener())
    for options in ({}, {"resume": True}):
        listener = Listener()
        with pytest.raises(DataError, match=r"y.parquet exists .*--overwrite"):
            transcribe_corpus(corpus, out, listener, **options)
        assert not listener.heard
    _, summary = transcribe_corpus(corpus, out, Listener(), overwrite=True)
    assert (summary.transcribed, summary.reused) == (8, 0)
    with pytest.raises(DataError, match=r"is a .parquet file"):
        transcribe_corpus(corpus, out.with_suffix(".csv"), Listener())


def test_an_index_can_be_completed_in_place_and_by_a_second_model(
    corpus: Corpus, tmp_path: Path, write_wav: WriteWav
) -> None:
    write_wav(corpus.media_path("media/c0.wav"), np.zeros(RATE, np.float32))
    assert corpus.path is not None
    transcribe_corpus(corpus, corpus.path, Listener(), overwrite=True)
    first = Corpus.read(corpus.path)
    assert row(first, "c0")["asr_status"] == "no_text"
    assert row(first, "c0")["asr_reason"] == "no speech was found"
    assert row(first, "c0")["text_source"] is None
    write_wav(corpus.media_path("media/c0.wav"), tone(1))
    other = Listener({"model": "other"})
    transcribe_corpus(first, tmp_path / "z.parquet", other)
    second = Corpus.read(tmp_path / "z.parquet")
    assert len(other.heard) == 1
    assert row(second, "c0")["asr_model"] == store_key(other.spec)
    assert row(second, "c1") == {**row(first, "c1"), "media": row(second, "c1")["media"]}
    assert row(second, "c3")["text_source"] == "given"
    assert set(second.meta.import_report["transcriptions"]) == {
        store_key(other.spec),
        store_key(Listener().spec),
    }


def test_a_file_that_cannot_be_read_is_tried_again(
    corpus: Corpus, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its bytes nothing says that it is still the same file."""

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "input_sha256", refuse)
        transcribe_corpus(corpus, out, Listener())
    _, summary = transcribe_corpus(corpus, out, Listener(), resume=True, overwrite=True)
    assert (summary.transcribed, summary.reused) == (8, 0)


def test_a_copy_of_a_clip_is_heard_once(corpus: Corpus, out: Path) -> None:
    media = [corpus.column("media")[0]] * 11
    place = corpus.table.schema.get_field_index("media")
    same = Corpus(
        corpus.meta, corpus.table.set_column(place, "media", pa.array(media)), corpus.path
    )
    listener = Listener()
    transcribe_corpus(same, out, listener)
    transcribe_corpus(same, out, listener, resume=True, overwrite=True)
    assert len(listener.heard) == 8
    assert len(set(Corpus.read(out).texts)) == 4


def test_a_corpus_with_all_texts_needs_no_sound(tmp_path: Path, out: Path) -> None:
    corpus = Corpus.build(CorpusMeta("full"), {"sample_id": ["a"], "text": ["Hello."]})
    listener = Listener()
    found, summary = transcribe_corpus(corpus, out, listener)
    assert (found.texts, summary.kept, listener.heard) == (["Hello."], 1, [])
