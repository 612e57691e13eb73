"""Taking a person or a clip out of an index for good.

The rows go, and a tombstone stays in the JSON: later imports over the same index leave these
samples out, and stores and exports know what to blank. A tombstone holds nothing but the sample's
id, the day and the reason.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection

import numpy as np

from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError

BY = ("sample_id", "source_id", "speaker_id")


def withdraw(
    corpus: Corpus,
    ids: Collection[str],
    *,
    by: str = "sample_id",
    reason: str = "",
    day: datetime.date | None = None,
) -> tuple[Corpus, list[str]]:
    """Remove all samples of the named samples, sources or speakers.

    Args:
        corpus: the index; write the result over it.
        ids: what to remove.
        by: which column the ids are of: `sample_id`, `source_id` or `speaker_id`.
        reason: kept in the tombstones.
        day: of the withdrawal; default today.

    Returns:
        the corpus without them, and the ids of the samples that were removed.

    Raises:
        DataError: an id that the corpus does not have, or nothing would be left.
    """
    if by not in BY:
        raise DataError(f"cannot withdraw by {by!r}", hint="one of " + ", ".join(BY))
    column = corpus.column(by)
    unknown = sorted(set(ids) - set(column))
    if unknown or not ids:
        raise DataError(
            f"corpus {corpus.name!r} has no {by} {', '.join(map(repr, unknown)) or '(none given)'}",
            hint="nothing was withdrawn",
        )
    leaves = np.isin(column, list(ids))
    if leaves.all():
        raise DataError(
            f"this would withdraw every sample of {corpus.name!r}", hint="delete the index instead"
        )
    removed = [corpus.sample_ids[row] for row in np.flatnonzero(leaves)]
    stated = (day or datetime.datetime.now(datetime.UTC).date()).isoformat()
    stones = [{"sample_id": i, "withdrawn": stated, "reason": reason} for i in removed]
    meta = dataclasses.replace(corpus.meta, tombstones=(*corpus.meta.tombstones, *stones))
    kept = corpus.take(np.flatnonzero(~leaves))
    return Corpus(meta, kept.table, corpus.path), removed
