"""CMU-MOSEI segment labels: a table (`id, segment_id, start, end, happy, ... , split`), or the
CMU SDK's `CMU_MOSEI_Labels.csd` (HDF5: `All Labels/data/<video>/{features [n, 7], intervals
[n, 2]}`, features in the order sentiment, happy, sad, anger, surprise, disgust, fear).

Six intensities in [0, 3]. `neutral` is 1 where all six are 0: it has no intensity of its own, only
presence. The SDK's file states no folds; a fold file may be given beside it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError, require
from mepr_shared.labels import EMOTIONS, EmotionScale, reorder

CSD_ORDER = ("sentiment", "happiness", "sadness", "anger", "surprise", "disgust", "fear")
TABLE_COLUMNS = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "anger",
    "surprise": "surprise",
    "disgust": "disgust",
    "fear": "fear",
}
TABLE_FILE, CSD_FILE = "mosei_labels.csv", "CMU_MOSEI_Labels.csd"
FOLDS = {"train": "train", "valid": "val", "val": "val", "dev": "val", "test": "test"}
MAXIMUM = 3.0
LICENCE = "as CMU-MOSEI (research use)"


@dataclass(frozen=True)
class Segment:
    """One labelled stretch of a video, as the file states it."""

    video: str
    number: str
    start_s: float
    end_s: float
    emotions: Mapping[str, float]
    fold: str | None
    where: str


def read(
    source: Path, *, name: str = "mosei", strict: bool = False, folds: Path | None = None
) -> ImportResult:
    """Import the label table or the `.csd` file (or the folder that holds one of them).

    Args:
        source: file or folder.
        name: of the corpus.
        strict: refuse impossible rows instead of dropping them.
        folds: video ids of each fold: CSV with `id,split`, or JSON `{"train": [ids], ...}`.
            It wins over a `split` column.

    Raises:
        DataError: no such file, broken columns, an impossible row (strict).
        MissingDependency: a `.csd` file without h5py.
    """
    path = _label_file(source)
    report = ImportReport("mosei", strict=strict)
    segments = _csd_segments(path) if path.suffix == ".csd" else _table_segments(path)
    fold_of = read_folds(folds) if folds is not None else None
    rows: dict[str, dict[str, Any]] = {}
    for segment in segments:
        report.rows_read += 1
        sample_id = f"{segment.video}_{segment.number}"
        problem = _problem(segment)
        if problem:
            report.drop(sample_id, problem, segment.where)
        elif sample_id in rows:
            report.drop(sample_id, "id was read before", segment.where, "duplicate_ids")
        else:
            report.negative_starts += segment.start_s < 0
            fold = fold_of.get(segment.video) if fold_of is not None else segment.fold
            rows[sample_id] = {
                "sample_id": sample_id,
                "split": FOLDS.get(fold or ""),
                "source_id": segment.video,
                "start_s": max(0.0, segment.start_s),
                "end_s": segment.end_s,
                "emotion": [segment.emotions[emotion] for emotion in TABLE_COLUMNS],
            }
    return ImportResult(_corpus(list(rows.values()), name, path, report), report)


def read_folds(path: Path) -> dict[str, str]:
    """Video id -> fold, from a CSV with `id,split` or a JSON object of lists.

    Raises:
        DataError: not readable as either.
    """
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            return {str(video): fold for fold, ids in json.loads(text).items() for video in ids}
        return {row["id"]: row["split"] for row in csv.DictReader(text.splitlines())}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is no fold file: {error}",
            hint='a CSV with the columns id,split or a JSON {"train": [ids], ...}',
        ) from None


def _label_file(source: Path) -> Path:
    if source.is_file():
        return source
    for candidate in (TABLE_FILE, CSD_FILE):
        if (source / candidate).is_file():
            return source / candidate
    raise DataError(
        f"{source} holds neither {TABLE_FILE} nor {CSD_FILE}",
        hint="give the folder with one of them, or the file itself",
    )


def _table_segments(path: Path) -> Iterator[Segment]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            wanted = ("id", "segment_id", "start", "end", *TABLE_COLUMNS.values())
            missing = [column for column in wanted if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}")
            for row in reader:
                yield Segment(
                    row["id"],
                    row["segment_id"],
                    _number(row["start"]),
                    _number(row["end"]),
                    {ours: _number(row[theirs]) for ours, theirs in TABLE_COLUMNS.items()},
                    row.get("split"),
                    f"{path.name}, line {reader.line_num}",
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _csd_segments(path: Path) -> Iterator[Segment]:
    h5py = require("h5py", extra="mepr-shared[csd]")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from None
    with file:
        roots = [
            root for root in file if isinstance(file[root], h5py.Group) and "data" in file[root]
        ]
        if len(roots) != 1:
            raise DataError(
                f"{path} is no computational sequence: expected one group with 'data', "
                f"found {list(file)}"
            )
        for video, group in file[roots[0]]["data"].items():
            where = f"{path.name}, {roots[0]}/data/{video}"
            if not {"features", "intervals"} <= set(group):
                raise DataError(f"{where} has no features and intervals")
            features = np.asarray(group["features"], dtype=np.float64)
            intervals = np.asarray(group["intervals"], dtype=np.float64)
            if features.shape[1:] != (len(CSD_ORDER),) or intervals.shape != (len(features), 2):
                raise DataError(
                    f"{where}: features {features.shape} and intervals {intervals.shape}, "
                    f"expected [n, {len(CSD_ORDER)}] and [n, 2]",
                    hint="the labels are in CMU_MOSEI_Labels.csd ('All Labels')",
                )
            values = reorder(features, CSD_ORDER, tuple(TABLE_COLUMNS))
            for number, (row, (start, end)) in enumerate(zip(values, intervals, strict=True)):
                emotions = dict(zip(TABLE_COLUMNS, row.tolist(), strict=True))
                yield Segment(video, str(number), float(start), float(end), emotions, None, where)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")


def _problem(segment: Segment) -> str | None:
    for emotion, value in segment.emotions.items():
        if not 0 <= value <= MAXIMUM:
            return f"{emotion} is outside [0, {MAXIMUM:g}]"
    if not max(0.0, segment.start_s) < segment.end_s < float("inf"):
        return "the segment does not end after it starts"
    return None


def _corpus(rows: list[dict[str, Any]], name: str, path: Path, report: ImportReport) -> Corpus:
    if not rows:
        raise DataError(f"{path}: no segment was left to import")
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    six = np.array(columns["emotion"], dtype=np.float32)
    neutral = (six == 0).all(axis=1, keepdims=True).astype(np.float32)
    names = ("neutral", *TABLE_COLUMNS)
    columns["emotion"] = reorder(np.hstack([neutral, six]), names, EMOTIONS)
    report.rows_kept = len(rows)
    report.note_straddling(columns["source_id"], columns["split"])
    without = sum(split is None for split in columns["split"])
    if without:
        report.notes.append(f"{without} segments belong to no fold (split left null)")
    meta = CorpusMeta(
        name,
        EmotionScale("intensity", maximum=MAXIMUM, present_above=0.0),
        licence=LICENCE,
        import_report=report.to_dict(),
        notes=("sample_id is <video>_<segment>; start_s and end_s are in the full video",),
    )
    return Corpus.build(meta, columns)
