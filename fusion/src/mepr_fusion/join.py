"""Outer join of exports against the corpus index.

Every corpus sample is looked up in every export; exports are never joined to one another, so a
modality that is missing takes nobody out. Absence is data: a sample without any modality is
dropped and counted with the reasons its exports give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from mepr_fusion.calibrate import common_shift
from mepr_fusion.join_read import NO_ROW, WORDS, Columns, look_up, read, split_codes
from mepr_shared.contract.reader import Export
from mepr_shared.contract.statuses import WITH_DATA
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError, DataError
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS

__all__ = ["NO_ROW", "Coverage", "Exports", "Joined", "join", "multi_label_by_corpus"]

SPLIT_WORDS = (None, *SPLITS)
MOVED_BYTES = 1 << 26

# (modality, corpus name) -> what that team exported for that corpus
Exports = Mapping[tuple[str, str], Export]
Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class Coverage:
    """How many samples of a corpus's split a modality has with a status."""

    corpus: str
    modality: str
    split: str
    status: str
    samples: int


@dataclass
class Joined:
    """`N` samples with at least one of `M` modalities, over all corpora.

    Attributes:
        modalities: names, in the order of every `M` axis.
        widths: modality -> (width of the emotion embedding, width of the trait embedding).
        corpora: corpus names; `corpus_of [N]` indexes them.
        rows: `[N]` row of the sample in its corpus.
        splits: `[N]` objects; None where a sample has no split.
        source_ids: `[N]` objects, unique over corpora.
        features: modality -> `[N, width]` float32 `[emotion embedding | trait embedding]`.
        emotion_predictions: `[N, M, 7]` comparable, calibrated logits (`calibrate.comparable`).
        trait_predictions: `[N, M, 5]` scores in [0, 1].
        present: `[N, M]` bool: the export has data and at least one embedding.
        emotion_targets: `[N, 7]`; trait_targets: `[N, 5]`, score in [0, 1].
        multi_label: `[N]` bool, the kind of the sample's corpus.
        prior_shift: `[C, 7]`, what is added to the calibrated logits of a corpus's samples
            before a decision; losses weight classes accordingly.
        own_shift: (modality, corpus) -> `[7]`, the shift that modality's own model decides with.
        coverage: samples per corpus, modality, split and status.
        dropped: (corpus, split, reason) -> samples without any modality.
        warnings: what a reader of the results should know.

    Embeddings and predictions a sample lacks are NaN, labels too.
    """

    modalities: tuple[str, ...]
    widths: dict[str, tuple[int, int]]
    corpora: tuple[str, ...]
    corpus_of: np.ndarray
    rows: np.ndarray
    splits: np.ndarray
    source_ids: np.ndarray
    features: dict[str, np.ndarray]
    emotion_predictions: np.ndarray
    trait_predictions: np.ndarray
    present: np.ndarray
    emotion_targets: np.ndarray
    trait_targets: np.ndarray
    multi_label: np.ndarray
    prior_shift: np.ndarray
    own_shift: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    coverage: list[Coverage] = field(default_factory=list)
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, *, split: str, corpus: str | None = None) -> np.ndarray:
        """Row indices `[n]` of a split, of all corpora or of one."""
        chosen = self.splits == split
        if corpus is not None:
            chosen &= self.corpus_of == self.corpora.index(corpus)
        return np.flatnonzero(chosen)


def _in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.empty(shape, dtype=dtype)


def join(
    corpora: Sequence[Corpus],
    exports: Exports,
    *,
    prior_shift: Mapping[str, np.ndarray],
    multi_label: Mapping[str, bool],
    modalities: Sequence[str] | None = None,
    min_coverage: float = 0.0,
    allocate: Allocate = _in_memory,
) -> Joined:
    """Look every sample of the corpora up in its exports.

    Args:
        corpora: with names of their own.
        exports: what to read; a corpus may lack some modalities, not all.
        prior_shift: corpus name -> `[7]` by which its calibrated logits are shifted before a
            decision; 0 where a corpus is not named.
        multi_label: corpus name -> kind of its emotion logits (`multi_label_by_corpus`).
        modalities: the order of the `M` axis; by name where None. A trained model passes its own.
        min_coverage: least share of a corpus's samples that each of its exports must have.
        allocate: (name, shape, dtype) -> the array that a large column is written to.

    Raises:
        ContractError: a split differs from the corpus, rows are missing, nothing overlaps, or
            the widths of a modality differ between corpora. (Another label order is refused
            when the export is opened.)
        DataError: coverage is below `min_coverage`, or no sample has any modality.
    """
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise DataError(f"two corpora have the same name: {', '.join(names)}")
    order = tuple(modalities or sorted({modality for modality, _ in exports}))
    widths = _common_widths(exports, order)
    joined = _allocate(corpora, order, widths, allocate)
    start = 0
    for number, corpus in enumerate(corpora):
        here = slice(start, start + len(corpus))
        start += len(corpus)
        _describe(joined, here, number, corpus, multi_label[corpus.name])
        joined.prior_shift[number] = prior_shift.get(corpus.name, 0.0)
        splits = split_codes(corpus, SPLIT_WORDS)
        statuses = []
        for index, modality in enumerate(order):
            columns = Columns(
                joined.features[modality][here],
                joined.emotion_predictions[here, index],
                joined.trait_predictions[here, index],
                joined.present[here, index],
            )
            export = exports.get((modality, corpus.name))
            if export is None:
                columns.clear()
                continue
            joined.warnings += export.check_against(corpus)
            places = look_up(corpus, export)
            statuses.append(read(export, places, columns, multi_label[corpus.name]))
            output = export.manifest.emotion_output
            if output is not None and export.manifest.width("emotion_logits"):
                shift = common_shift([output], multi_label=multi_label[corpus.name])
                joined.own_shift[modality, corpus.name] = shift
            _count(joined, corpus, modality, splits, statuses[-1])
        _count_dropped(joined, here, corpus, splits, statuses)
    refuse_low_coverage(joined, min_coverage)
    return _keep_present(joined)


def multi_label_by_corpus(corpora: Sequence[Corpus]) -> dict[str, bool]:
    """Corpus name -> its kind; one without emotion labels takes the kind of those with."""
    kinds = {c.name: c.meta.scale.is_multi_label for c in corpora if c.meta.counts["emotion"]}
    default = bool(kinds) and all(kinds.values())
    return {corpus.name: kinds.get(corpus.name, default) for corpus in corpora}


def _common_widths(exports: Exports, order: Sequence[str]) -> dict[str, tuple[int, int]]:
    widths: dict[str, tuple[int, int]] = {}
    first: dict[str, str] = {}
    for (modality, corpus), export in exports.items():
        manifest = export.manifest
        width = (manifest.width("emotion_embedding") or 0, manifest.width("trait_embedding") or 0)
        if sum(width) == 0:
            raise ContractError(f"{export.path} has no embedding: stage 3 needs at least one")
        if widths.setdefault(modality, width) != width:
            raise ContractError(
                f"{modality}: the embeddings of {corpus} have widths {width}, those of "
                f"{first[modality]} {widths[modality]}",
                hint="one stage-2 model must make a modality's exports of all corpora",
            )
        first.setdefault(modality, corpus)
    return {modality: widths[modality] for modality in order}


def _allocate(
    corpora: Sequence[Corpus],
    order: tuple[str, ...],
    widths: dict[str, tuple[int, int]],
    allocate: Allocate,
) -> Joined:
    count, nodes = sum(len(corpus) for corpus in corpora), len(order)

    def floats(name: str, *shape: int) -> np.ndarray:
        return allocate(name, (count, *shape), np.dtype(np.float32))

    return Joined(
        modalities=order,
        widths=widths,
        corpora=tuple(corpus.name for corpus in corpora),
        corpus_of=np.empty(count, dtype=np.int32),
        rows=np.empty(count, dtype=np.int64),
        splits=np.empty(count, dtype=object),
        source_ids=np.empty(count, dtype=object),
        features={name: floats(f"features.{name}", sum(widths[name])) for name in order},
        emotion_predictions=floats("emotion_predictions", nodes, len(EMOTIONS)),
        trait_predictions=floats("trait_predictions", nodes, len(TRAITS)),
        present=np.zeros((count, nodes), dtype=bool),
        emotion_targets=floats("emotion_targets", len(EMOTIONS)),
        trait_targets=floats("trait_targets", len(TRAITS)),
        multi_label=np.empty(count, dtype=bool),
        prior_shift=np.zeros((len(corpora), len(EMOTIONS)), dtype=np.float32),
    )


def _describe(joined: Joined, here: slice, number: int, corpus: Corpus, multi_label: bool) -> None:
    """What the corpus itself says of its samples."""
    joined.corpus_of[here] = number
    joined.rows[here] = np.arange(len(corpus))
    joined.splits[here] = np.array(SPLIT_WORDS, dtype=object)[split_codes(corpus, SPLIT_WORDS)]
    own = pc.coalesce(corpus.table["source_id"], corpus.table["sample_id"])
    sources = pc.binary_join_element_wise(corpus.name, own, "/")
    joined.source_ids[here] = sources.to_numpy()
    joined.emotion_targets[here] = corpus.emotion_targets()
    joined.trait_targets[here] = corpus.trait_values
    joined.multi_label[here] = multi_label


def _count(
    joined: Joined, corpus: Corpus, modality: str, splits: np.ndarray, statuses: np.ndarray
) -> None:
    table = np.zeros((len(SPLIT_WORDS), len(WORDS)), dtype=np.int64)
    np.add.at(table, (splits, statuses), 1)
    found = [
        (str(SPLIT_WORDS[split]), WORDS[status], int(table[split, status]))
        for split, status in np.argwhere(table)
    ]
    for split, status, samples in sorted(found):
        name = "none" if split == "None" else split
        joined.coverage.append(Coverage(corpus.name, modality, name, status, samples))


def refuse_low_coverage(joined: Joined, least: float) -> None:
    """Refuse an export that has data for less than this share of a corpus.

    Raises:
        DataError: names the first, with its statuses.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for entry in joined.coverage:
        here = counts.setdefault((entry.modality, entry.corpus), Counter())
        here[entry.status] += entry.samples
    for (modality, corpus), statuses in counts.items():
        share = sum(statuses[word] for word in WITH_DATA) / max(1, statuses.total())
        if share < least:
            raise DataError(
                f"{modality} covers {share:.1%} of {corpus}, less than --min-coverage {least:.1%}",
                hint="statuses: " + ", ".join(f"{k} {n}" for k, n in statuses.most_common()),
            )


def _count_dropped(
    joined: Joined,
    here: slice,
    corpus: Corpus,
    splits: np.ndarray,
    statuses: Sequence[np.ndarray],
) -> None:
    """Samples without any modality, with the statuses of their exports as the reason."""
    absent = np.flatnonzero(~joined.present[here].any(axis=1))
    rows = np.stack([splits[absent], *(status[absent] for status in statuses)], axis=1)
    kinds, samples = np.unique(rows, axis=0, return_counts=True)
    for (split, *codes), count in zip(kinds.tolist(), samples.tolist(), strict=True):
        reasons = sorted({WORDS[code] for code in codes})
        key = (corpus.name, SPLIT_WORDS[split] or "none", "+".join(reasons))
        joined.dropped[key] += count


def _keep_present(joined: Joined) -> Joined:
    """The table without samples that have no modality; rows move up in place."""
    rows = np.flatnonzero(joined.present.any(axis=1))
    if not len(rows):
        raise DataError("no sample has any modality", hint="the coverage table says why")
    if len(rows) == len(joined):
        return joined
    for name, values in joined.features.items():
        joined.features[name] = _move_up(values, rows)
    for name, values in vars(joined).items():
        if isinstance(values, np.ndarray) and name != "prior_shift":  # by corpus, not by sample
            setattr(joined, name, _move_up(values, rows))
    return joined


def _move_up(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]` for ascending rows, written over `values`: there is no second copy."""
    step = max(1, MOVED_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(rows), step):
        # A row never moves down, so no later row has been written over yet.
        chosen = rows[start : start + step]
        if chosen[-1] >= start + len(chosen):
            values[start : start + len(chosen)] = values[chosen]
    return values[: len(rows)]
