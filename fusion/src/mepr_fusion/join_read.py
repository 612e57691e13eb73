"""One modality of one corpus, read to its place in the joined table.

Row groups are read by a few threads and written where they belong: an export is never in memory
as a whole, and its statuses are numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mepr_fusion.calibrate import comparable
from mepr_shared.contract.reader import Export
from mepr_shared.contract.scan import RowGroup, row_groups, text_column
from mepr_shared.contract.statuses import STATUSES, WITH_DATA
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError

NO_ROW = "no_row"
# A sample's status is its number here; what is not among them is no status (`row_problems`).
WORDS = (NO_ROW, *STATUSES)
WITH_DATA_CODES = tuple(WORDS.index(word) for word in WITH_DATA)
READERS = 2


@dataclass(frozen=True)
class Columns:
    """Where the `n` samples of a corpus keep what one modality gives; views of the table.

    `features [n, width]`, `emotion [n, 7]`, `traits [n, 5]`, `present [n]`.
    """

    features: np.ndarray
    emotion: np.ndarray
    traits: np.ndarray
    present: np.ndarray

    def clear(self, rows: np.ndarray | slice = slice(None)) -> None:
        """Nothing is known of these rows."""
        for values in (self.features, self.emotion, self.traits):
            values[rows] = np.nan
        self.present[rows] = False


def look_up(corpus: Corpus, export: Export) -> np.ndarray | None:
    """`[rows of the export]` row of each in the corpus, -1 where it has none; None where both
    have the same samples, which are in the same order.

    Raises:
        ContractError: the export lacks a row that it must have.
    """
    wanted = corpus.table["sample_id"]
    given = text_column(export, "sample_id")
    if given.equals(wanted):
        return None
    found = pc.index_in(given, value_set=wanted.combine_chunks()).combine_chunks()
    places = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if export.manifest.corpus.samples_sha256 == corpus.hashes.samples_sha256:
        there = np.zeros(len(corpus), dtype=bool)
        there[places[places >= 0]] = True
        missing = np.flatnonzero(~there)
        if len(missing):
            first = wanted[int(missing[0])].as_py()
            raise ContractError(
                f"{export.path} lacks rows it must have: {first!r} and {len(missing) - 1} more",
                hint="a sample without data still has a row with its status",
            )
    return places


def read(
    export: Export, places: np.ndarray | None, columns: Columns, multi_label: bool
) -> np.ndarray:
    """Fill a modality's columns; gives each sample's status, `[n]` numbers of `WORDS`.

    Args:
        export: what that team exported for the corpus.
        places: see `look_up`.
        columns: to be written; rows the export says nothing of become NaN.
        multi_label: the corpus's kind, for which emotion logits are made comparable.
    """
    statuses = np.zeros(len(columns.present), dtype=np.int8)

    def take(group: RowGroup) -> None:
        _take(export, group, places, columns, statuses, multi_label)

    if places is not None:
        columns.clear()  # not every row will be written
    # Both threads wait for decompression, which holds no lock of Python's.
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(take, row_groups(export)):
            pass
    columns.present[:] &= np.isin(statuses, WITH_DATA_CODES)
    return statuses


def _take(
    export: Export,
    group: RowGroup,
    places: np.ndarray | None,
    columns: Columns,
    statuses: np.ndarray,
    multi_label: bool,
) -> None:
    manifest = export.manifest
    names = ("emotion_embedding", "trait_embedding", "emotion_logits", "trait_scores")
    widths = {name: manifest.width(name) or 0 for name in names}
    table = group.read(["status", *(name for name in names if widths[name])])
    # Rows of the export that this group holds and the corpus knows, and where they go.
    source: np.ndarray | slice = slice(None)
    target: np.ndarray | slice = slice(group.start, group.stop)
    if places is not None:
        here = places[group.start : group.stop]
        source = np.flatnonzero(here >= 0)
        target = here[source]
    statuses[target] = _codes(table["status"])[source]

    def put(name: str, where: np.ndarray) -> None:
        values, given = group.values(table, name, widths[name])
        if name == "emotion_logits" and manifest.emotion_output is not None:
            values = comparable(values, manifest.emotion_output, multi_label=multi_label)
        if given.all() and isinstance(target, slice):
            where[target] = values
            return
        block = np.full((len(given), widths[name]), np.nan, dtype=np.float32)
        block[given] = values
        where[target] = block[source]

    at = 0
    for name in names[:2]:
        part = columns.features[:, at : at + widths[name]]
        if widths[name]:
            put(name, part)
        at += widths[name]
    columns.present[target] = ~np.isnan(columns.features[target]).all(axis=1)
    for name, where in zip(names[2:], (columns.emotion, columns.traits), strict=True):
        if widths[name] and (name == "trait_scores" or manifest.emotion_output is not None):
            put(name, where)
        else:
            where[target] = np.nan


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(WORDS, pa.string()))
    return found.fill_null(0).to_numpy().astype(np.int8)


def split_codes(corpus: Corpus, known: Sequence[str | None]) -> np.ndarray:
    """`[n]` number of each sample's split among `known`."""
    values = pa.array(known, pa.string())
    return pc.index_in(corpus.table["split"], value_set=values).to_numpy().astype(np.int8)
