"""Any table of samples (CSV, TSV, Parquet) to a corpus index, with a column map.

A field is found under its own name or under the one the map gives it:
`sample_id, split, source_id, speaker_id, context_id, context_order, media, start_s, end_s, text,
fold, interview, group_*`; `emotion` (a column of emotion names, or lists of seven values) or
`emotion.<name>` (a number column each); `traits` (lists of five) or `traits.<name>`.
A table of files needs no more than `file` (or `path`, `filename`) and a label: `file` is then the
media, and the id where there is no other.

Labels that cannot be are refused with row and field: whoever made the table can mend it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mepr_shared.corpora.columns import CORE, EXTRA_TARGETS, GROUP_PREFIX
from mepr_shared.corpora.importers import table_labels
from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.importers.table_values import Cells, read_source
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError, did_you_mean
from mepr_shared.labels import EMOTION_ALIASES, EMOTIONS, TRAITS, EmotionScale, emotion_name

TEXT_FIELDS = tuple(name for name, kind in CORE.items() if pa.types.is_string(kind))
NUMBER_FIELDS = ("context_order", "start_s", "end_s", "fold", *EXTRA_TARGETS)
LABEL_FIELDS = (
    "emotion",
    "traits",
    *(f"emotion.{name}" for name in EMOTIONS),
    *(f"traits.{name}" for name in TRAITS),
)
MEDIA_NAMES = ("file", "filename", "path")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Understanding:
    """What a table's columns were taken for.

    Attributes:
        fields: index field -> column of the table.
        ignored: columns that became nothing.
        missing: useful fields that no column gives.
        rows: in the table.
    """

    fields: Mapping[str, str]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    rows: int

    def lines(self) -> list[str]:
        """For people (and `--dry-run`)."""
        out = [f"{self.rows} rows"]
        out += [f"{name} <- column {column!r}" for name, column in self.fields.items()]
        if self.missing:
            out.append("not in the table: " + ", ".join(self.missing))
        if self.ignored:
            out.append("ignored columns: " + ", ".join(self.ignored))
        return out


def understand(source: Path, *, columns: Mapping[str, str] | None = None) -> Understanding:
    """What `read` would take a table's columns for; no cell is looked at.

    Raises:
        DataError: no such file, or a map that names what is not there.
    """
    return _understand(Cells(read_source(source), str(source)), columns or {})


def read(
    source: Path,
    *,
    name: str,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    emotion_kind: str | None = None,
    emotion_max: float | None = None,
    present_above: float = 0.0,
    source_pattern: str | None = None,
) -> ImportResult:
    """Import a table.

    Args:
        source: .csv, .tsv or .parquet.
        name: of the corpus.
        strict: accepted like every importer's, and always on: nothing is dropped here.
        columns: index field -> column of the table, for names that differ.
        emotion_kind: one of `labels.EMOTION_KINDS`; found out where the values leave no doubt.
        emotion_max: largest possible value (needed for `intensity`).
        present_above: an emotion counts as present above this value.
        source_pattern: regular expression that the file name without its ending (without media:
            the sample id) begins with; its first group is the `source_id`. A row that it does not
            fit is a source of its own.

    Raises:
        DataError: no such column, a value out of range, a duplicate id, ...; row and field named.
    """
    cells = Cells(read_source(source), str(source))
    understood = _understand(cells, columns or {})
    fields = understood.fields
    ids = _sample_ids(cells, fields)
    report = ImportReport("table", strict=strict, rows_read=len(cells), rows_kept=len(cells))
    found: dict[str, Any] = {"sample_id": ids}
    for index_field, column in fields.items():
        if index_field in TEXT_FIELDS[1:] or index_field.startswith(GROUP_PREFIX):
            found[index_field] = cells.texts(column, index_field)
        elif index_field in NUMBER_FIELDS:
            found[index_field] = _numbers(cells, column, index_field)
    if "split" in found:
        found["split"] = [_split(cells, row, value) for row, value in enumerate(found["split"])]
    if source_pattern is not None:
        found["source_id"] = _sources(found, source_pattern, report)
    _check_times(cells, found)
    _attach_media(found, source, report)
    emotion = table_labels.emotions(cells, fields, emotion_kind, emotion_max, present_above)
    if emotion is not None:
        found["emotion"] = emotion.values
    traits = table_labels.traits(cells, fields)
    if traits is not None:
        found["traits"] = traits
        missing = np.isnan(traits).sum(axis=1)
        report.partly_missing_traits = int(((missing > 0) & (missing < len(TRAITS))).sum())
    scale = emotion.scale if emotion is not None else EmotionScale()
    report.notes += understood.lines()[1:]
    if emotion is not None:
        report.notes.append(
            f"emotions are {scale.kind}, at most {scale.maximum:g}, "
            f"present above {scale.present_above:g}"
        )
    if "text" in found:
        report.empty_texts = sum(text is None for text in found["text"])
    if "source_id" in found and "split" in found:
        pairs = [pair for pair in zip(found["source_id"], found["split"], strict=True) if pair[0]]
        report.note_straddling([p[0] for p in pairs], [p[1] for p in pairs])
    meta = CorpusMeta(name, scale, import_report=report.to_dict())
    return ImportResult(Corpus.build(meta, found), report)


def _understand(cells: Cells, columns: Mapping[str, str]) -> Understanding:
    fields = _match(cells, columns)
    ignored = [column for column in cells.table.column_names if column not in fields.values()]
    missing = [name for name in ("split", "source_id", "media", "text") if name not in fields]
    return Understanding(fields, tuple(ignored), tuple(missing), len(cells))


def _match(cells: Cells, columns: Mapping[str, str]) -> dict[str, str]:
    known = (*TEXT_FIELDS, *NUMBER_FIELDS, *LABEL_FIELDS)
    names = cells.table.column_names
    if len(set(names)) < len(names):
        raise DataError(f"{cells.where}: two columns have the same name")
    given = {}
    for wanted, column in columns.items():
        index_field = _canonical(wanted)
        if index_field not in known and not index_field.startswith(GROUP_PREFIX):
            raise DataError(f"an index has no field {wanted!r}", hint=did_you_mean(wanted, known))
        if column not in names:
            raise DataError(
                f"{cells.where} has no column {column!r} (for {wanted})",
                hint=did_you_mean(column, names),
            )
        given[index_field] = column
    fields = dict(given)
    families = {index_field.partition(".")[0] for index_field in given}
    for column in names:
        index_field = _canonical(column)
        # A map for some emotions (traits) says where all of them are.
        free = index_field.partition(".")[0] not in families & {"emotion", "traits"}
        free = free and index_field not in fields and column not in fields.values()
        if free and (index_field in known or index_field.startswith(GROUP_PREFIX)):
            fields[index_field] = column
    if "media" not in fields:
        media = next((n for n in names if n.lower() in MEDIA_NAMES and n not in given.values()), "")
        fields |= {"media": media} if media else {}
    if "sample_id" not in fields and "media" in fields:
        fields["sample_id"] = fields["media"]
    order = {name: position for position, name in enumerate(known)}
    return dict(sorted(fields.items(), key=lambda item: order.get(item[0], len(order))))


def _canonical(name: str) -> str:
    """`joy`, `emotion.joy` -> `emotion.happiness`; `openness`, `trait.openness` -> `traits...`."""
    key = name.strip()
    head, _, tail = key.rpartition(".")
    bare = tail.lower()
    if head in ("", "emotion") and bare in (*EMOTIONS, *EMOTION_ALIASES):
        return f"emotion.{emotion_name(bare)}"
    if head in ("", "traits", "trait") and bare in TRAITS:
        return f"traits.{bare}"
    return key


def _sample_ids(cells: Cells, fields: Mapping[str, str]) -> list[str]:
    if "sample_id" not in fields:
        raise DataError(
            f"{cells.where} has no column 'sample_id'",
            hint=f"--map sample_id=COLUMN; columns: {', '.join(cells.table.column_names)}",
        )
    first: dict[str, int] = {}
    ids = cells.texts(fields["sample_id"], "sample_id")
    for row, sample_id in enumerate(ids):
        if sample_id is None:
            raise cells.error(row, "sample_id", "is empty")
        if sample_id in first:
            raise cells.error(
                row, "sample_id", f"{sample_id!r} is already in row {first[sample_id] + 1}"
            )
        first[sample_id] = row
    if not ids:
        raise DataError(f"{cells.where} has no rows")
    return list(first)


def _split(cells: Cells, row: int, value: str | None) -> str | None:
    if value is None:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise cells.error(row, "split", f"is {value!r}, none of {', '.join(SPLIT_NAMES)} or empty")
    return SPLIT_NAMES[value.lower()]


def _numbers(cells: Cells, column: str, name: str) -> np.ndarray | list[int | None]:
    values = cells.numbers(column, name)
    if name in ("context_order", "fold"):
        for row in np.flatnonzero(~np.isnan(values) & (values != np.round(values))):
            raise cells.error(int(row), name, f"is {values[row]:g}, not a whole number")
        return [None if np.isnan(value) else int(value) for value in values]
    if name in EXTRA_TARGETS:
        table_labels.refuse_outside(cells, values[:, None], [name], 1.0)
    return values


def _check_times(cells: Cells, found: Mapping[str, Any]) -> None:
    nothing = np.full(len(cells), np.nan)
    start, end = (np.asarray(found.get(name, nothing)) for name in ("start_s", "end_s"))
    for row in np.flatnonzero(start < 0):
        raise cells.error(int(row), "start_s", f"is {start[row]:g}, below 0")
    for row in np.flatnonzero(end <= np.nan_to_num(start)):
        raise cells.error(int(row), "end_s", f"is {end[row]:g}, not after start_s")


def _sources(found: Mapping[str, Any], pattern: str, report: ImportReport) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--source-pattern {pattern!r} is no regular expression: {error}") from None
    if not compiled.groups:
        raise DataError(
            f"--source-pattern {pattern!r} has no group", hint="e.g. '(.+)_[0-9]+': in brackets"
        )
    names = [
        Path(media).stem if media else sample_id
        for media, sample_id in zip(
            found.get("media", [None] * len(found["sample_id"])), found["sample_id"], strict=True
        )
    ]
    matches = [compiled.match(name) for name in names]
    unfit = sum(not (match and match.group(1)) for match in matches)
    if unfit:
        report.notes.append(f"{unfit} rows do not fit the source pattern: each is its own source")
    return [
        match.group(1) if match and match.group(1) else name
        for match, name in zip(matches, names, strict=True)
    ]


def _attach_media(found: dict[str, Any], source: Path, report: ImportReport) -> None:
    if "media" not in found:
        return
    folder = Path(os.path.abspath(source.parent))
    found["media"] = [str(folder / media) if media else None for media in found["media"]]
    report.media_found = sum(bool(media) and Path(media).is_file() for media in found["media"])
    report.media_missing = len(found["media"]) - report.media_found
