"""CMU-MOSEI: labels from a table or the CMU SDK, with media and transcripts where they are given.

Six intensities in [0, 3]. `neutral` is 1 where all six are 0: it has no intensity of its own, only
presence. The SDK's file states no folds; a fold file may be given beside it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.corpora.importers.media_files import find_media
from mepr_shared.corpora.importers.mosei_labels import (
    MAXIMUM,
    TABLE_COLUMNS,
    Segment,
    label_file,
    read_folds,
    read_segments,
)
from mepr_shared.corpora.importers.mosei_media import Media, attach_media
from mepr_shared.corpora.importers.mosei_transcripts import (
    Transcripts,
    plain_number,
    read_transcripts,
)
from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, EmotionScale, reorder

FOLDS = {
    "train": "train",
    "training": "train",
    "valid": "val",
    "validation": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
LICENCE = "as CMU-MOSEI (research use)"


def read(
    source: Path,
    *,
    name: str = "mosei",
    strict: bool = False,
    folds: Path | None = None,
    media: Path | None = None,
    transcripts: Path | None = None,
) -> ImportResult:
    """Import the label table or the `.csd` file (or the folder that holds one of them).

    Args:
        source: file or folder.
        name: of the corpus.
        strict: refuse impossible rows instead of dropping them.
        folds: video ids of each fold: CSV with `id,split`, or JSON `{"train": [ids], ...}`.
            It wins over a `split` column.
        media: folder anywhere below which full videos, their sound, or pre-cut clips lie; `source`
            where it is a folder and this is not given.
        transcripts: folder of segmented transcripts, or the `.csd` file of timed words.

    Raises:
        DataError: no such file, broken columns, an impossible row (strict).
        MissingDependency: a `.csd` file without h5py.
    """
    path = label_file(source)
    report = ImportReport("mosei", strict=strict)
    kept, labelled = _segments(path, report)
    fold_of = read_folds(folds) if folds is not None else None
    spoken = None
    if transcripts is not None:
        spoken = read_transcripts(transcripts, kept, report)
    found: dict[str, Media] = {}
    where = media if media is not None else source if source.is_dir() else None
    if where is not None:
        found = attach_media(find_media(where), kept, labelled, spoken, report)
    folded = [fold_of.get(s.video) if fold_of is not None else s.fold for s in kept]
    return ImportResult(_corpus(kept, folded, found, spoken, name, report), report)


def _segments(path: Path, report: ImportReport) -> tuple[list[Segment], dict[str, frozenset[str]]]:
    """The segments that are kept, and per video the numbers of all."""
    kept: dict[str, Segment] = {}
    numbers: dict[str, set[str]] = defaultdict(set)
    for segment in read_segments(path):
        report.rows_read += 1
        numbers[segment.video].add(plain_number(segment.number))
        problem = segment.problem
        if problem:
            report.drop(segment.sample_id, problem, segment.where)
        elif segment.sample_id in kept:
            report.drop(segment.sample_id, "id was read before", segment.where, "duplicate_ids")
        else:
            report.negative_starts += segment.start_s < 0
            kept[segment.sample_id] = segment
    if not kept:
        raise DataError(f"{path}: no segment was left to import")
    report.rows_kept = len(kept)
    return list(kept.values()), {video: frozenset(found) for video, found in numbers.items()}


def _corpus(
    segments: list[Segment],
    folds: list[str | None],
    media: dict[str, Media],
    transcripts: Transcripts | None,
    name: str,
    report: ImportReport,
) -> Corpus:
    six = np.array([list(s.emotions.values()) for s in segments], dtype=np.float32)
    neutral = (six == 0).all(axis=1, keepdims=True).astype(np.float32)
    columns: dict[str, Any] = {
        "sample_id": [s.sample_id for s in segments],
        "split": [FOLDS.get((fold or "").strip().lower()) for fold in folds],
        "source_id": [s.video for s in segments],
        "emotion": reorder(np.hstack([neutral, six]), ("neutral", *TABLE_COLUMNS), EMOTIONS),
    }
    found = [media.get(s.sample_id) for s in segments]
    columns["media"] = [None if m is None else str(m.path) for m in found]
    report.count_media(columns["media"])
    # A pre-cut clip is the segment: its own time begins at 0.
    whole = [m is not None and not m.full for m in found]
    for key, times in (
        ("start_s", [max(0.0, s.start_s) for s in segments]),
        ("end_s", [s.end_s for s in segments]),
    ):
        columns[key] = [None if own else time for own, time in zip(whole, times, strict=True)]
    if transcripts is not None:
        spoken = [transcripts.spoken.get(s.sample_id) for s in segments]
        columns["text"] = [None if s is None else s.text for s in spoken]
    report.note_straddling(columns["source_id"], columns["split"])
    _note_folds(folds, columns["split"], report)
    meta = CorpusMeta(
        name,
        EmotionScale("intensity", maximum=MAXIMUM, present_above=0.0),
        licence=LICENCE,
        import_report=report.to_dict(),
        notes=("sample_id is <video>_<segment>; start_s and end_s are in the full video",),
    )
    return Corpus.build(meta, columns)


def _note_folds(folds: list[str | None], splits: list[str | None], report: ImportReport) -> None:
    without = [fold for fold, split in zip(folds, splits, strict=True) if split is None]
    if without:
        named = Counter(fold for fold in without if fold)
        stated = ", ".join(f"{n} are in {fold!r}" for fold, n in sorted(named.items()))
        report.notes.append(
            f"{len(without)} segments belong to no fold (split left null)"
            + (f": {stated}" if stated else "")
        )
