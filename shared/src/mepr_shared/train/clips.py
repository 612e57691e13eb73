"""Clips with features and labels, over one or several corpora, as padded batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError

USABLE = ("ok", "partial")


class Frames(Protocol):
    """Where the frames of clips come from: a `FrameStore`, or frames computed from one."""

    width: int

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[B, T, width]` float32 padded with zeros, and the mask `[B, T]`."""


@dataclass
class ClipSet:
    """N clips of one split. Labels that a corpus does not have are NaN.

    Attributes:
        stores: frame stores; clip i is row `row_of[i]` of `stores[store_of[i]]`.
        corpora: corpus name of each store.
        lengths: `[N]` frames per clip.
        emotion_targets: `[N, 7]`; trait_targets: `[N, 5]`, score in [0, 1].
        multi_label: `[N]` bool, whether the clip's corpus is multi-label.
        dropped: (corpus, reason) -> clips that cannot be used.
    """

    stores: Sequence[Frames]
    corpora: list[str]
    store_of: np.ndarray
    row_of: np.ndarray
    lengths: np.ndarray
    sample_ids: list[str]
    source_ids: np.ndarray
    emotion_targets: np.ndarray
    trait_targets: np.ndarray
    multi_label: np.ndarray
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.row_of)

    def subset(self, keep: np.ndarray) -> ClipSet:
        """The clips at the given indices."""
        return ClipSet(
            self.stores,
            self.corpora,
            self.store_of[keep],
            self.row_of[keep],
            self.lengths[keep],
            [self.sample_ids[i] for i in keep],
            self.source_ids[keep],
            self.emotion_targets[keep],
            self.trait_targets[keep],
            self.multi_label[keep],
            self.dropped,
        )


@dataclass
class ClipBatch:
    """`frames [B, T, D]` float32, `mask [B, T]` True = valid, `emotion [B, 7]`, `traits [B, 5]`
    (NaN where unlabelled), `multi_label [B]`, `indices [B]` into the clip set."""

    frames: Tensor
    mask: Tensor
    emotion: Tensor
    traits: Tensor
    multi_label: Tensor
    indices: np.ndarray

    def to(self, device: str) -> ClipBatch:
        """The batch on a device."""
        if device == "cpu":
            return self
        return ClipBatch(
            self.frames.to(device),
            self.mask.to(device),
            self.emotion.to(device),
            self.traits.to(device),
            self.multi_label.to(device),
            self.indices,
        )


def gather(
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    *,
    split: str | None = None,
    labelled_for: Sequence[str] = (),
) -> ClipSet:
    """Collect the usable clips of a split.

    Args:
        corpora, stores: in the same order; the store may cover more or fewer clips.
        split: `train`, `val`, `test`, or None for all.
        labelled_for: keep clips with a label for any of these tasks; empty keeps all.

    Raises:
        DataError: the stores' feature widths differ.
    """
    if len({store.width for store in stores}) > 1:
        raise DataError(
            "the frame stores have different feature widths: "
            + ", ".join(f"{c.name} {s.width}" for c, s in zip(corpora, stores, strict=True)),
            hint="extract all corpora with the same encoder",
        )
    parts: list[tuple[np.ndarray, ...]] = []
    sample_ids: list[str] = []
    dropped: Counter[tuple[str, str]] = Counter()
    for index, (corpus, store) in enumerate(zip(corpora, stores, strict=True)):
        emotion, traits = corpus.emotion_targets(), corpus.trait_values
        chosen = corpus.select(split=split)
        if labelled_for:
            has = np.zeros(len(emotion), dtype=bool)
            if "emotion" in labelled_for:
                has |= ~np.isnan(emotion).any(axis=1)
            if "traits" in labelled_for:
                has |= ~np.isnan(traits).all(axis=1)
            chosen = chosen[has[chosen]]
        ids = np.array(corpus.sample_ids, dtype=object)
        rows = store.row_of(ids[chosen].tolist())
        statuses = np.where(rows >= 0, store.status[rows], "not_extracted")
        usable = np.isin(statuses, USABLE)
        for status in statuses[~usable]:
            dropped[corpus.name, str(status)] += 1
        chosen, rows = chosen[usable], rows[usable]
        sample_ids += ids[chosen].tolist()
        parts.append(
            (
                np.full(len(rows), index),
                rows,
                store.lengths[rows],
                corpus.source_ids[chosen],
                emotion[chosen],
                traits[chosen],
                np.full(len(rows), corpus.meta.scale.is_multi_label),
            )
        )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    store_of, row_of, lengths, sources, emotion, traits, multi_label = columns
    return ClipSet(
        list(stores),
        [corpus.name for corpus in corpora],
        store_of,
        row_of,
        lengths,
        sample_ids,
        sources,
        emotion,
        traits,
        multi_label,
        dropped,
    )


def shuffled_batches(
    clips: ClipSet, batch_size: int, *, seed: int, epoch: int
) -> Iterator[ClipBatch]:
    """One epoch in an order given by (seed, epoch); clips of like length share a batch.

    Clips are shuffled, sorted by length inside windows of 16 batches, and the batches are
    shuffled again: little padding at almost no loss of randomness. The last batch is smaller.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(clips))
    window = 16 * batch_size
    windows = [order[i : i + window] for i in range(0, len(order), window)]
    batches = []
    for part in windows:
        part = part[np.argsort(clips.lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    for index in generator.permutation(len(batches)):
        yield load_batch(clips, batches[index])


def ordered_batches(clips: ClipSet, batch_size: int) -> Iterator[ClipBatch]:
    """All clips once, longest last, for inference; `indices` says which are in a batch."""
    order = np.argsort(clips.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield load_batch(clips, order[start : start + batch_size])


def load_batch(clips: ClipSet, indices: np.ndarray) -> ClipBatch:
    """Read and pad some clips."""
    stores = np.unique(clips.store_of[indices])
    if len(stores) == 1:
        frames, mask = clips.stores[stores[0]].batch(clips.row_of[indices])
    else:
        length = max(1, int(clips.lengths[indices].max()))
        width = clips.stores[0].width
        frames = np.zeros((len(indices), length, width), dtype=np.float32)
        mask = np.zeros((len(indices), length), dtype=bool)
        for store in stores:
            here = np.flatnonzero(clips.store_of[indices] == store)
            part, part_mask = clips.stores[store].batch(clips.row_of[indices[here]])
            frames[here, : part.shape[1]] = part
            mask[here, : part.shape[1]] = part_mask
    return ClipBatch(
        torch.from_numpy(frames),
        torch.from_numpy(mask),
        torch.from_numpy(clips.emotion_targets[indices]),
        torch.from_numpy(clips.trait_targets[indices]),
        torch.from_numpy(clips.multi_label[indices]),
        indices,
    )


def steps_per_epoch(clips: ClipSet, batch_size: int) -> int:
    """How many batches `shuffled_batches` gives."""
    window = 16 * batch_size
    full, rest = divmod(len(clips), window)
    return full * 16 + -(-rest // batch_size)
