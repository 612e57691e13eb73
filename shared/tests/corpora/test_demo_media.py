"""The demo's media: real files beside the same texts and labels, all of them or none."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora import demo
from mepr_shared.corpora.demo import make_demo, oracle, usual_media
from mepr_shared.corpora.demo_media import clip_pictures, clip_samples, media_rows, write_mp4
from mepr_shared.corpora.demo_picture import HEIGHT, PICTURES_PER_S, WIDTH
from mepr_shared.corpora.demo_plan import DemoPlan
from mepr_shared.corpora.demo_voice import RATE
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError, MissingDependency

av = pytest.importorskip("av")
pytest.importorskip("skimage", reason="needs mepr-shared[demo]")


def both(folder: Path, **options) -> Corpus:
    return Corpus.read(make_demo(folder, **options)["demo_both"])


def voices(corpus: Corpus) -> dict[str, np.ndarray]:
    """sample_id -> the samples before encoding."""
    plan = DemoPlan.from_report(corpus.meta.import_report, corpus.name)
    content = demo._draw(plan).content
    return {
        f"{corpus.name}_{row:06d}": clip_samples(plan, content, row) for row in media_rows(plan)
    }


def seen(corpus: Corpus, sample_id: str, count: int) -> Iterator[np.ndarray]:
    """The pictures of a clip before encoding."""
    plan = DemoPlan.from_report(corpus.meta.import_report, corpus.name)
    return clip_pictures(plan, demo._draw(plan).content, int(sample_id.split("_")[-1]), count)


def has(corpus: Corpus, column: str) -> np.ndarray:
    return np.array([value is not None for value in corpus.column(column)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """600 clips as by default, but 8 with media."""
    return both(tmp_path_factory.mktemp("demo"), media=8)


def test_files_hold_the_voice_and_the_pictures(corpus: Corpus) -> None:
    found = voices(corpus)
    assert len(found) == corpus.meta.counts["media"] == 8
    for sample_id, media in zip(corpus.sample_ids, corpus.column("media"), strict=True):
        assert (media is not None) == (sample_id in found)
        if media is None:
            continue
        assert media == f"media/{sample_id}.mp4"
        samples = found[sample_id]
        duration_s = len(samples) / RATE
        with av.open(str(corpus.media_path(media))) as container:
            (video,), (audio,) = container.streams.video, container.streams.audio
            assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", RATE, 1)
            assert float(audio.duration * audio.time_base) == pytest.approx(duration_s, abs=1e-3)
            assert container.duration / 1e6 == pytest.approx(duration_s, abs=0.101)
            assert (video.width, video.height) == (WIDTH, HEIGHT)
            assert float(video.average_rate) == PICTURES_PER_S
            heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        # In place, not a coder's delay later.
        assert np.corrcoef(heard[: len(samples)], samples)[0, 1] > 0.98
        with av.open(str(corpus.media_path(media))) as container:
            pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert len(pictures) == round(duration_s * PICTURES_PER_S)
        drawn = list(seen(corpus, sample_id, len(pictures)))
        # Coded, but not beyond recognition.
        error = np.array(pictures, dtype=float) - np.array(drawn)
        assert np.sqrt((error**2).mean()) < 12
        assert corpus.media_path(media).stat().st_size < 150_000


def test_the_rest_of_the_corpus_is_the_same(corpus: Corpus, tmp_path: Path) -> None:
    without = both(tmp_path)
    assert corpus.meta.import_report["media_clips"] == 8
    assert corpus.hashes.samples_sha256 == without.hashes.samples_sha256
    assert corpus.hashes.labels_sha256 == without.hashes.labels_sha256
    assert corpus.texts == without.texts
    assert without.meta.counts["media"] == 0 and not (tmp_path / "media").exists()


def test_the_media_are_frozen() -> None:
    # If this fails the generator changed: give it a new version, or undo the change.
    plan = DemoPlan("both", 200, 2, True, False, "single_label", media_clips=6)
    content = demo._draw(plan).content
    rows = media_rows(plan).tolist()
    assert rows == [3, 18, 32, 43, 47, 126]
    lengths = [len(clip_samples(plan, content, row)) for row in rows]
    assert lengths == [28_640, 44_640, 27_360, 47_200, 51_680, 27_040]


def test_a_clip_does_not_depend_on_how_many_there_are(corpus: Corpus) -> None:
    more = dataclasses.replace(
        corpus.meta, import_report={**corpus.meta.import_report, "media_clips": 60}
    )
    many = voices(Corpus(more, corpus.table))
    assert len(many) == 60
    for sample_id, samples in voices(corpus).items():
        np.testing.assert_array_equal(many[sample_id], samples)
    sample_id = next(iter(voices(corpus)))
    for one, other in zip(
        seen(corpus, sample_id, 3), seen(Corpus(more, corpus.table), sample_id, 3), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_seed_decides_to_the_byte(tmp_path: Path) -> None:
    first, again = (both(tmp_path / name, clips=90, media=2) for name in "ab")
    other = both(tmp_path / "c", clips=90, seed=1, media=2)
    assert first.hashes == again.hashes
    names = [path.name for path in sorted((tmp_path / "a" / "media").iterdir())]
    assert len(names) == 2
    for name in names:
        one, two = ((tmp_path / folder / "media" / name).read_bytes() for folder in "ab")
        assert one == two
    one, two = ([len(voice) for voice in voices(corpus).values()] for corpus in (first, other))
    assert one != two


def test_clips_have_both_either_or_neither(tmp_path: Path) -> None:
    plan = DemoPlan("both", 200, 2, True, False, "single_label", media_clips=120)
    drawn = demo._draw(plan)
    text = np.array([text is not None for text in drawn.columns["text"]])
    media = np.isin(np.arange(200), media_rows(plan))
    for with_text in (False, True):
        for with_media in (False, True):
            assert ((text == with_text) & (media == with_media)).any()


def test_the_oracle_hears(corpus: Corpus) -> None:
    expected = oracle(corpus)
    text, media = has(corpus, "text"), has(corpus, "media")
    silent = ~text & ~media
    assert silent.any()
    np.testing.assert_allclose(expected.emotion_probability[~silent].max(axis=1), 0.9)
    assert (expected.emotion_probability[silent].max(axis=1) < 0.5).all()
    # What an index of before media holds.
    report = {k: v for k, v in corpus.meta.import_report.items() if k != "media_clips"}
    older = Corpus(dataclasses.replace(corpus.meta, import_report=report), corpus.table)
    known = oracle(older).emotion_probability.max(axis=1) > 0.89
    np.testing.assert_array_equal(known, text)


def test_voices_tell_with_two_emotions_too(tmp_path: Path) -> None:
    corpus = both(tmp_path, clips=90, media=6, emotion_kind="multi_label")
    assert len(voices(corpus)) == 6 == len(list((tmp_path / "media").iterdir()))


def test_fewer_clips_have_media_than_text() -> None:
    assert [usual_media(clips) for clips in (90, 210, 600, 10_000)] == [18, 42, 48, 48]


def test_the_usual_clips_take_seconds(tmp_path: Path) -> None:
    make_demo(tmp_path / "first", clips=90, media=1)  # reads the photographs
    began = time.process_time()
    make_demo(tmp_path / "second", clips=90, media=8)
    assert (time.process_time() - began) * 48 / 8 < 25


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "demo_both_000001.mp4").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(DataError, match="media exists"):
        make_demo(tmp_path, clips=90, media=3)
    assert listing(tmp_path) == before
    corpus = both(tmp_path, clips=90, media=3, overwrite=True)
    present = {path.name for path in (tmp_path / "media").iterdir()}
    assert present == {Path(media).name for media in corpus.column("media") if media}


@pytest.mark.parametrize("stranger", ["holiday.mp4", "demo_both_000001.txt", "demo_both_1.mp4"])
def test_a_folder_of_strangers_is_never_replaced(tmp_path: Path, stranger: str) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / stranger).write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(DataError, match="not the media folder of a demo"):
        make_demo(tmp_path, clips=90, media=3, overwrite=True)
    assert listing(tmp_path) == before


def test_a_link_to_a_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "media").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not the media folder of a demo"):
        make_demo(tmp_path, clips=90, media=3, overwrite=True)
    assert (tmp_path / "media").is_symlink()


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    make_demo(tmp_path, clips=90, media=3)
    before = listing(tmp_path)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, clips=90, media=4, seed=1, overwrite=True, on_progress=stop)
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo(tmp_path, clips=90, media=3)
    before = listing(tmp_path)
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise PermissionError(13, "Permission denied", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        make_demo(tmp_path, clips=90, media=4, seed=1, overwrite=True)
    assert listing(tmp_path) == before


def test_too_many_are_refused(tmp_path: Path) -> None:
    for media in (31, -1):
        with pytest.raises(DataError, match=r"of 30 clips"):
            make_demo(tmp_path / "demo", clips=90, media=media)
    with pytest.raises(DataError, match="seed"):
        make_demo(tmp_path / "demo", clips=90, seed=-1)
    assert not (tmp_path / "demo").exists()


def test_without_pyav_only_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mepr-shared\[media\]'"):
        make_demo(tmp_path / "demo", clips=90, media=1)
    assert not (tmp_path / "demo").exists()
    assert both(tmp_path / "demo", clips=90).meta.counts["media"] == 0


def test_without_scikit_image_only_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mepr-shared\[demo\]'.*clips 0"):
        make_demo(tmp_path / "demo", clips=90, media=1)
    assert not (tmp_path / "demo").exists()
    assert both(tmp_path / "demo", clips=90).meta.counts["media"] == 0


def test_progress_counts_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_demo(tmp_path, clips=90, media=3, on_progress=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_mp4(tmp_path / "no" / "x.mp4", np.zeros(RATE, np.float32), [])
