"""CMU-MOSEI's labelled segments: from a table, or from the CMU SDK's `CMU_MOSEI_Labels.csd`.

The table has the columns `id, segment_id, start, end, happy, ... , split`; the `.csd` features are
sentiment, happy, sad, anger, surprise, disgust, fear. Six intensities in [0, 3].
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mepr_shared.corpora.importers.csd import sequences
from mepr_shared.errors import DataError
from mepr_shared.labels import reorder

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
MAXIMUM = 3.0


@dataclass(frozen=True)
class Segment:
    """One labelled stretch of a video, as the file states it (times in s)."""

    video: str
    number: str
    start_s: float
    end_s: float
    emotions: Mapping[str, float]
    fold: str | None
    where: str

    @property
    def sample_id(self) -> str:
        return f"{self.video}_{self.number}"

    @property
    def problem(self) -> str | None:
        """Why the segment cannot be kept; None where it can."""
        if not (self.video and self.number):
            return "no video id or no segment number"
        for emotion, value in self.emotions.items():
            if not 0 <= value <= MAXIMUM:
                return f"{emotion} is outside [0, {MAXIMUM:g}]"
        if not max(0.0, self.start_s) < self.end_s < float("inf"):
            return "the segment does not end after it starts"
        return None


def label_file(source: Path) -> Path:
    """The label file in a folder, or the file itself.

    Raises:
        DataError: the folder has none.
    """
    if source.is_file():
        return source
    for candidate in (TABLE_FILE, CSD_FILE):
        if (source / candidate).is_file():
            return source / candidate
    raise DataError(
        f"{source} holds neither {TABLE_FILE} nor {CSD_FILE}",
        hint="give the folder with one of them, or the file itself",
    )


def read_segments(path: Path) -> Iterator[Segment]:
    """The segments of a table or a `.csd` file, impossible ones too.

    Raises:
        DataError: an unreadable file, or columns that are not these.
        MissingDependency: a `.csd` file without h5py.
    """
    return _csd_segments(path) if path.suffix == ".csd" else _table_segments(path)


def read_folds(path: Path) -> dict[str, str]:
    """Video id -> fold, from a CSV with `id,split` or a JSON object of lists.

    Raises:
        DataError: not readable as either, or a video in two folds.
    """
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".json":
            pairs = [(video, fold) for fold, ids in json.loads(text).items() for video in _ids(ids)]
        else:
            pairs = [(row["id"], row["split"]) for row in csv.DictReader(text.splitlines())]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is no fold file: {error}",
            hint='a CSV with the columns id,split or a JSON {"train": [ids], ...}',
        ) from None
    folds: dict[str, str] = {}
    for video, fold in pairs:
        if folds.setdefault(video, fold) != fold:
            raise DataError(f"{path}: video {video!r} is in {folds[video]!r} and in {fold!r}")
    return folds


def _ids(ids: object) -> list[str]:
    if not isinstance(ids, list):
        raise TypeError("every fold needs a list of video ids")
    return [str(video) for video in ids]


def _table_segments(path: Path) -> Iterator[Segment]:
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    with file:
        reader = csv.DictReader(file)
        try:
            wanted = ("id", "segment_id", "start", "end", *TABLE_COLUMNS.values())
            missing = [column for column in wanted if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}")
            for row in reader:
                yield Segment(
                    row["id"] or "",
                    row["segment_id"] or "",
                    _number(row["start"]),
                    _number(row["end"]),
                    {ours: _number(row[theirs]) for ours, theirs in TABLE_COLUMNS.items()},
                    row.get("split"),
                    f"{path.name}, line {reader.line_num}",
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _csd_segments(path: Path) -> Iterator[Segment]:
    for found in sequences(path):
        if found.features.dtype.kind not in "fiu" or found.features.shape[1:] != (len(CSD_ORDER),):
            raise DataError(
                f"{found.where}: features {found.features.shape} of {found.features.dtype}, "
                f"expected [n, {len(CSD_ORDER)}] numbers",
                hint=f"the labels are in {CSD_FILE} ('All Labels')",
            )
        values = reorder(found.features.astype(np.float64), CSD_ORDER, tuple(TABLE_COLUMNS))
        for number, (row, (start, end)) in enumerate(zip(values, found.intervals, strict=True)):
            emotions = dict(zip(TABLE_COLUMNS, row.tolist(), strict=True))
            yield Segment(
                found.video, str(number), float(start), float(end), emotions, None, found.where
            )


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")
