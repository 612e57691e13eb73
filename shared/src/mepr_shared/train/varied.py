"""Varied copies of training clips: other features of the same clips, drawn anew in every epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mepr_shared.contract.frames import FrameStore
from mepr_shared.train.clips import USABLE, ClipSet


@dataclasses.dataclass(frozen=True)
class VariedClips:
    """Training clips and where their copies lie.

    Attributes:
        clips: the clips; their `stores` end with those of the copies.
        store_of, row_of, lengths: `[V + 1, N]` of the clips themselves and of their V copies; a
            clip that has no usable copy stands for it.
    """

    clips: ClipSet
    store_of: np.ndarray
    row_of: np.ndarray
    lengths: np.ndarray

    def drawn(self, *, seed: int, epoch: int) -> ClipSet:
        """One version of every clip, each as likely as the others; given by (seed, epoch)."""
        count = len(self.clips)
        version = np.random.default_rng((seed, epoch, 1)).integers(len(self.row_of), size=count)
        columns = np.arange(count)
        return dataclasses.replace(
            self.clips,
            store_of=self.store_of[version, columns],
            row_of=self.row_of[version, columns],
            lengths=self.lengths[version, columns],
        )


def vary_clips(clips: ClipSet, copies: Sequence[Sequence[FrameStore]]) -> VariedClips:
    """Find the copies of training clips.

    Args:
        clips: of one or several corpora.
        copies: for each copy the stores of all corpora, in the order of `clips.corpora`.
    """
    stores = list(clips.stores)
    store_of, row_of, lengths = [clips.store_of], [clips.row_of], [clips.lengths]
    for versions in copies:
        where, rows, length = clips.store_of.copy(), clips.row_of.copy(), clips.lengths.copy()
        for number, store in enumerate(versions):
            here = np.flatnonzero(clips.store_of == number)
            found = store.row_of([clips.sample_ids[i] for i in here])
            usable = (found >= 0) & np.isin(store.status[found], USABLE)
            here, found = here[usable], found[usable]
            where[here], rows[here], length[here] = len(stores), found, store.lengths[found]
            stores.append(store)
        store_of.append(where)
        row_of.append(rows)
        lengths.append(length)
    varied = dataclasses.replace(clips, stores=stores)
    return VariedClips(varied, np.stack(store_of), np.stack(row_of), np.stack(lengths))
