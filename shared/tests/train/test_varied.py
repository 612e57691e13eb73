"""Varied copies: every epoch draws one version of each training clip."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.train.clips import gather, shuffled_batches
from mepr_shared.train.statistics import frame_statistics
from mepr_shared.train.varied import vary_clips

CLIPS = 60


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    columns = {
        "sample_id": [f"clip-{i:02d}" for i in range(CLIPS)],
        "split": ["train"] * CLIPS,
        "source_id": [f"s{i}" for i in range(CLIPS)],
        "text": ["words"] * CLIPS,
        "emotion": np.eye(7, dtype=np.float32)[np.arange(CLIPS) % 7],
    }
    return Corpus.build(CorpusMeta("varied"), columns)


def store(root, corpus: Corpus, value: float, missing: set[str] = frozenset()) -> FrameStore:
    """Every clip holds frames of `value`, one frame more than the one before."""
    with FrameStoreWriter(root, corpus.name, "toy", {"encoder": "toy", "value": value}) as writer:
        for i, sample_id in enumerate(corpus.sample_ids):
            frames = np.full((1 + i + int(value), 2), value, dtype=np.float32)
            if sample_id in missing:
                writer.add(
                    sample_id, input_sha256="x", frames=None, status="decode_error", reason="-"
                )
            else:
                writer.add(sample_id, input_sha256="x", frames=frames)
    return FrameStore.open(writer.path)


def test_epochs_draw_versions_by_seed_and_epoch(corpus, tmp_path) -> None:
    clips = gather([corpus], [store(tmp_path, corpus, 0.0)], split="train")
    missing = {"clip-03"}
    copies = [[store(tmp_path, corpus, 1.0, missing)], [store(tmp_path, corpus, 2.0, missing)]]
    varied = vary_clips(clips, copies)
    counts = np.zeros((CLIPS, 3))
    for epoch in range(60):
        drawn = varied.drawn(seed=0, epoch=epoch)
        assert (drawn.store_of == varied.drawn(seed=0, epoch=epoch).store_of).all()
        counts[np.arange(CLIPS), drawn.store_of] += 1
    assert (counts[3] == [60, 0, 0]).all()  # no copy that could be used
    others = np.delete(counts, 3, axis=0)
    assert others.min() > 5 and np.allclose(others.mean(axis=0), 20, atol=2)


def test_batches_hold_the_drawn_version_with_its_own_length_and_label(corpus, tmp_path) -> None:
    clips = gather([corpus], [store(tmp_path, corpus, 0.0)], split="train")
    varied = vary_clips(clips, [[store(tmp_path, corpus, 1.0)]])
    drawn = varied.drawn(seed=1, epoch=1)
    for batch in shuffled_batches(drawn, 8, seed=1, epoch=1):
        version = drawn.store_of[batch.indices]
        assert (batch.mask.sum(dim=1).numpy() == 1 + batch.indices + version).all()
        assert (batch.frames[:, 0, 0].numpy() == version).all()
        assert (batch.emotion.argmax(dim=1).numpy() == batch.indices % 7).all()


def test_statistics_are_those_of_all_valid_frames(tmp_path, corpus) -> None:
    random = np.random.default_rng(0)
    frames = [random.normal(3, 5, (1 + i % 7, 4)).astype(np.float16) for i in range(CLIPS)]
    with FrameStoreWriter(tmp_path, corpus.name, "toy", {"encoder": "random"}) as writer:
        for sample_id, clip in zip(corpus.sample_ids, frames, strict=True):
            writer.add(sample_id, input_sha256="x", frames=clip.astype(np.float32))
    clips = gather([corpus], [FrameStore.open(writer.path)], split="train")
    mean, spread = frame_statistics(clips, batch_size=16, seed=0)
    together = np.concatenate(frames).astype(np.float64)
    np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(spread, together.std(axis=0), rtol=1e-5)
