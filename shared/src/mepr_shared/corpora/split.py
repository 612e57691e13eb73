"""Splits and folds in which no group (source, speaker, ...) straddles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError
from mepr_shared.labels import SPLITS

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def split_corpus(
    corpus: Corpus,
    *,
    by: str = "source_id",
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Corpus:
    """New `split` column: whole groups go to train, val and test.

    Labels are spread alike as far as the groups allow.

    Args:
        corpus: any index; its old splits are dropped.
        by: id column whose values must not straddle; a sample without one is a group of its own.
        fractions: share of the samples per split, summing to 1; default 70/15/15.
        seed: of the order in which groups are dealt out.
        name: of the new corpus; default the old one.

    Raises:
        DataError: unknown split or column, shares that do not sum to 1, fewer groups than splits.
    """
    fractions = dict(FRACTIONS if fractions is None else fractions)
    wrong = [split for split in fractions if split not in SPLITS]
    shares = np.array(list(fractions.values()), dtype=float)
    if wrong or (shares <= 0).any() or not np.isclose(shares.sum(), 1):
        raise DataError(
            f"fractions {fractions} are no shares of {', '.join(SPLITS)}",
            hint="positive numbers that sum to 1, e.g. train=0.7 val=0.15 test=0.15",
        )
    part = deal(groups_of(corpus, by), stratification(corpus), shares, seed)
    names = np.array(list(fractions), dtype=object)[part]
    said = ", ".join(f"{split} {share:g}" for split, share in fractions.items())
    table = _with_column(corpus.table, "split", pa.array(names.tolist(), pa.string()))
    return _renamed(corpus, table, name, f"split by {by}: {said}; seed {seed}")


def fold_corpus(
    corpus: Corpus, folds: int, *, by: str = "source_id", seed: int = 0, name: str | None = None
) -> Corpus:
    """A `fold` column with values 0 .. folds - 1; the splits stay as they are.

    Args and raises as `split_corpus`; `folds` is at least 2.
    """
    if folds < 2:
        raise DataError(f"{folds} folds are none", hint="at least 2")
    shares = np.full(folds, 1 / folds)
    part = deal(groups_of(corpus, by), stratification(corpus), shares, seed)
    table = _with_column(corpus.table, "fold", pa.array(part, pa.int32()))
    return _renamed(corpus, table, name, f"{folds} folds by {by}; seed {seed}")


def stratification(corpus: Corpus) -> np.ndarray:
    """`[N, L]` what should be spread alike: samples, each emotion, each trait's upper half."""
    emotion = np.nan_to_num(corpus.emotion_targets())
    traits = corpus.trait_values
    columns = [np.ones((len(corpus), 1)), emotion, ~np.isnan(traits)]
    known = ~np.isnan(traits).all(axis=0)
    if known.any():
        columns.append(traits[:, known] > np.nanmedian(traits[:, known], axis=0))
    matrix = np.hstack(columns).astype(np.float64)
    return matrix[:, matrix.any(axis=0)]


def deal(groups: np.ndarray, strata: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Deal whole groups to parts, the largest first, each to the part that lacks it most.

    The cost of a group in a part is the growth of the squared distance between the part's share
    of every stratum and the share it should have (greedy, after Sechidis et al. 2011, "On the
    stratification of multi-label data", for groups).

    Args:
        groups: `[N]` int group of each sample.
        strata: `[N, L]` counts to be spread.
        shares: `[P]` share of each part.
        seed: breaks ties between groups of equal size.

    Returns:
        `[N]` part of each sample.

    Raises:
        DataError: fewer groups than parts.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    if count < len(shares):
        raise DataError(
            f"{count} groups cannot fill {len(shares)} parts", hint="fewer parts or another --by"
        )
    totals = np.zeros((count, strata.shape[1]))
    np.add.at(totals, groups, strata)
    totals /= strata.sum(axis=0)
    sizes = np.bincount(groups, minlength=count)
    shuffled = np.random.default_rng(seed).permutation(count)
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    lack = np.repeat(shares[:, None], strata.shape[1], axis=1)
    part_of = np.empty(count, dtype=np.int64)
    filled = np.zeros(len(shares), dtype=bool)
    for position, group in enumerate(order):
        cost = (totals[group] * (totals[group] - 2 * lack)).sum(axis=1)
        # The last groups fill what would stay empty.
        if count - position <= (~filled).sum():
            cost[filled] = np.inf
        chosen = int(np.argmin(cost))
        part_of[group] = chosen
        filled[chosen] = True
        lack[chosen] -= totals[group]
    return part_of[groups]


def with_splits(corpus: Corpus, splits: Sequence[str]) -> Corpus:
    """The same corpus in memory with another `split` column, `[N]` names."""
    table = _with_column(corpus.table, "split", pa.array(list(splits), pa.string()))
    return Corpus(corpus.meta, table, corpus.path)


def groups_of(corpus: Corpus, by: str) -> np.ndarray:
    """`[N]` int: the group of each sample by the values of a column."""
    values = corpus.column(by)
    if all(value is None for value in values):
        raise DataError(f"corpus {corpus.name!r} has no {by}", hint="choose another column")
    keys = [
        ("sample", sample_id) if value is None else ("group", str(value))
        for value, sample_id in zip(values, corpus.sample_ids, strict=True)
    ]
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _renamed(corpus: Corpus, table: pa.Table, name: str | None, note: str) -> Corpus:
    meta = dataclasses.replace(
        corpus.meta, name=name or corpus.name, notes=(*corpus.meta.notes, note)
    )
    return Corpus(meta, table, corpus.path)
