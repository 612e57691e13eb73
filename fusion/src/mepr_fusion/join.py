"""Outer join of exports against the corpus index.

Every corpus sample is looked up in every export; exports are never joined to one another, so a
modality that is missing takes nobody out. Absence is data: a sample without any modality is
dropped and counted with the reasons its exports give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mepr_fusion.calibrate import common_shift, comparable
from mepr_shared.contract.reader import Export
from mepr_shared.contract.statuses import WITH_DATA
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError, DataError
from mepr_shared.labels import EMOTIONS, TRAITS

NO_ROW = "no_row"

# (modality, corpus name) -> what that team exported for that corpus
Exports = Mapping[tuple[str, str], Export]


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
        emotion_predictions: `[N, M, 7]` comparable logits (`calibrate.comparable`) plus the
            common prior shift of the sample's kind.
        trait_predictions: `[N, M, 5]` scores in [0, 1].
        present: `[N, M]` bool: the export has data and at least one embedding.
        emotion_targets: `[N, 7]`; trait_targets: `[N, 5]`, score in [0, 1].
        multi_label: `[N]` bool, the kind of the sample's corpus.
        own_shift: (modality, corpus) -> `[7]` that turns the common shift of its predictions
            into the one its own model decides with.
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


def join(
    corpora: Sequence[Corpus],
    exports: Exports,
    *,
    prior_shift: Mapping[str, np.ndarray],
    multi_label: Mapping[str, bool],
    modalities: Sequence[str] | None = None,
    min_coverage: float = 0.0,
) -> Joined:
    """Look every sample of the corpora up in its exports.

    Args:
        corpora: with names of their own.
        exports: what to read; a corpus may lack some modalities, not all.
        prior_shift: kind (`sigmoid`, `softmax`) -> `[7]` that calibrated logits are shifted by,
            the same for all modalities.
        multi_label: corpus name -> kind of its emotion logits (`multi_label_by_corpus`).
        modalities: the order of the `M` axis; by name where None. A trained model passes its own.
        min_coverage: least share of a corpus's samples that each of its exports must have.

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
    joined = _allocate(corpora, order, widths)
    start = 0
    for number, corpus in enumerate(corpora):
        here = slice(start, start + len(corpus))
        start += len(corpus)
        joined.corpus_of[here] = number
        joined.rows[here] = np.arange(len(corpus))
        joined.splits[here] = corpus.splits
        joined.source_ids[here] = [f"{corpus.name}/{source}" for source in corpus.source_ids]
        joined.emotion_targets[here] = corpus.emotion_targets()
        joined.trait_targets[here] = corpus.trait_values
        joined.multi_label[here] = multi_label[corpus.name]
        kind = "sigmoid" if multi_label[corpus.name] else "softmax"
        statuses = []
        for index, modality in enumerate(order):
            export = exports.get((modality, corpus.name))
            if export is None:
                continue
            # An export keeps the rows it has read: this one is gone after its turn.
            export = Export(export.path, export.manifest)
            found = _look_up(corpus, export, joined.warnings)
            statuses.append(_fill(joined, here, index, export, found))
            _fill_predictions(joined, here, index, export, found, kind, prior_shift[kind])
            _count(joined, corpus, modality, statuses[-1], min_coverage)
        _count_dropped(joined, here, corpus, statuses)
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
) -> Joined:
    count, nodes = sum(len(corpus) for corpus in corpora), len(order)

    def unknown(*shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan, dtype=np.float32)

    return Joined(
        modalities=order,
        widths=widths,
        corpora=tuple(corpus.name for corpus in corpora),
        corpus_of=np.empty(count, dtype=np.int32),
        rows=np.empty(count, dtype=np.int64),
        splits=np.empty(count, dtype=object),
        source_ids=np.empty(count, dtype=object),
        features={modality: unknown(sum(widths[modality])) for modality in order},
        emotion_predictions=unknown(nodes, len(EMOTIONS)),
        trait_predictions=unknown(nodes, len(TRAITS)),
        present=np.zeros((count, nodes), dtype=bool),
        emotion_targets=unknown(len(EMOTIONS)),
        trait_targets=unknown(len(TRAITS)),
        multi_label=np.empty(count, dtype=bool),
    )


def _look_up(corpus: Corpus, export: Export, warnings: list[str]) -> np.ndarray:
    """`[N]` row of each corpus sample in the export, -1 where it has none; checks that they fit."""
    warnings += export.check_against(corpus)
    wanted = corpus.table["sample_id"].combine_chunks()
    found = pc.index_in(wanted, value_set=pa.array(export.sample_ids, wanted.type))
    rows = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = np.flatnonzero(rows < 0)
    if len(missing) and export.manifest.corpus.samples_sha256 == corpus.hashes.samples_sha256:
        raise ContractError(
            f"{export.path} lacks rows it must have: {corpus.sample_ids[missing[0]]!r} and "
            f"{len(missing) - 1} more",
            hint="a sample without data still has a row with its status",
        )
    return rows


def _fill(joined: Joined, here: slice, index: int, export: Export, rows: np.ndarray) -> np.ndarray:
    """Copy an export's embeddings to their place; gives each sample's status `[n]`."""
    matched = np.flatnonzero(rows >= 0)
    source, target = rows[matched], here.start + matched
    statuses = np.full(len(rows), NO_ROW, dtype=object)
    statuses[matched] = export.status[source]
    features = joined.features[joined.modalities[index]]
    at = 0
    for values in (export.emotion_embedding, export.trait_embedding):
        features[target, at : at + values.shape[1]] = values[source]
        at += values.shape[1]
    embedded = ~np.isnan(features[here]).all(axis=1)
    joined.present[here, index] = np.isin(statuses, WITH_DATA) & embedded
    return statuses


def _fill_predictions(
    joined: Joined,
    here: slice,
    index: int,
    export: Export,
    rows: np.ndarray,
    kind: str,
    shift: np.ndarray,
) -> None:
    """Copy an export's predictions, emotion logits made comparable."""
    matched = np.flatnonzero(rows >= 0)
    source, target = rows[matched], here.start + matched
    multi_label, output = kind == "sigmoid", export.manifest.emotion_output
    if output is not None and export.emotion_logits.shape[1]:
        logits = comparable(export.emotion_logits[source], output, multi_label=multi_label)
        joined.emotion_predictions[target, index] = logits + shift
        own = common_shift([output], multi_label=multi_label)
        joined.own_shift[export.modality, export.corpus_name] = own - shift
    if export.trait_scores.shape[1]:
        joined.trait_predictions[target, index] = export.trait_scores[source]


def _count(
    joined: Joined, corpus: Corpus, modality: str, statuses: np.ndarray, min_coverage: float
) -> None:
    pairs = Counter(zip(corpus.splits.tolist(), statuses.tolist(), strict=True))
    for (split, status), samples in sorted(pairs.items(), key=str):
        joined.coverage.append(Coverage(corpus.name, modality, split or "none", status, samples))
    share = float(np.isin(statuses, WITH_DATA).mean())
    if share < min_coverage:
        raise DataError(
            f"{modality} covers {share:.1%} of {corpus.name}, less than --min-coverage "
            f"{min_coverage:.1%}",
            hint="statuses: " + ", ".join(f"{k} {n}" for k, n in Counter(statuses).most_common()),
        )


def _count_dropped(
    joined: Joined, here: slice, corpus: Corpus, statuses: Sequence[np.ndarray]
) -> None:
    """Samples without any modality, with the statuses of their exports as the reason."""
    absent = np.flatnonzero(~joined.present[here].any(axis=1))
    for row in absent:
        reasons = sorted({str(status[row]) for status in statuses})
        joined.dropped[corpus.name, corpus.splits[row] or "none", "+".join(reasons)] += 1


def _keep_present(joined: Joined) -> Joined:
    """The table without samples that have no modality."""
    keep = joined.present.any(axis=1)
    if not keep.any():
        raise DataError("no sample has any modality", hint="the coverage table says why")
    if keep.all():
        return joined
    for name in joined.features:  # one at a time: both tables together may not fit
        joined.features[name] = joined.features[name][keep]
    for name, values in vars(joined).items():
        if isinstance(values, np.ndarray):
            setattr(joined, name, values[keep])
    return joined
