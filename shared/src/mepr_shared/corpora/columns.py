"""The columns of a corpus index: their types, and the checks every index passes.

Everything here works on whole Arrow columns; a check that fails names the first rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS, EmotionScale

CORE = {
    "sample_id": pa.string(),
    "split": pa.string(),
    "source_id": pa.string(),
    "speaker_id": pa.string(),
    "context_id": pa.string(),
    "context_order": pa.int32(),
    "media": pa.string(),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "text": pa.string(),
    "emotion": pa.list_(pa.float32()),
    "traits": pa.list_(pa.float32()),
}
OPTIONAL = ("speaker_id", "context_id", "context_order")
REQUIRED = tuple(name for name in CORE if name not in OPTIONAL)
GROUP_PREFIX = "group_"
EXTRA_TARGETS = ("interview",)
# Where a text comes from and what speech recognition says about it. `asr_status` and `asr_reason`
# are as in an export, `asr_model` is the key of a model that the import report describes.
TRANSCRIPT = {
    "text_source": pa.string(),
    "asr_status": pa.string(),
    "asr_reason": pa.string(),
    "asr_language": pa.string(),
    "asr_language_probability": pa.float32(),
    "asr_confidence": pa.float32(),
    "asr_model": pa.string(),
}
TEXT_SOURCES = ("given", "asr")


def to_table(columns: Mapping[str, Any]) -> pa.Table:
    """Columns to a table with the index's types, sorted by `sample_id`.

    Args:
        columns: sequences or Arrow arrays of equal length. `emotion` and `traits` may be float
            arrays `[N, 7]` / `[N, 5]` with NaN for what is missing. Absent core columns are null.
            Beside the core: `fold` (int), `interview` (float), `group_*` (text, audits only), and
            those of `TRANSCRIPT`.

    Raises:
        DataError: an unknown column, or one whose values do not have the column's type.
    """
    if "sample_id" not in columns:
        raise DataError("a corpus needs the column 'sample_id'")
    rows = len(columns["sample_id"])
    arrays: dict[str, pa.Array] = {}
    for name in (*CORE, *(extra for extra in columns if extra not in CORE)):
        kind = column_type(name)
        if name not in columns:
            arrays[name] = pa.nulls(rows, kind)
        elif pa.types.is_list(kind):
            arrays[name] = _label_column(columns[name], _WIDTHS[name], name)
        else:
            arrays[name] = _plain_column(columns[name], kind, name)
    table = pa.table(arrays)
    return table.take(pc.sort_indices(table["sample_id"]))


def column_type(name: str) -> pa.DataType:
    """The Arrow type of an index column.

    Raises:
        DataError: an index has no such column.
    """
    if name in CORE:
        return CORE[name]
    if name == "fold":
        return pa.int32()
    if name in EXTRA_TARGETS:
        return pa.float32()
    if name in TRANSCRIPT:
        return TRANSCRIPT[name]
    if name.startswith(GROUP_PREFIX) and len(name) > len(GROUP_PREFIX):
        return pa.string()
    known = ", ".join((*CORE, "fold", *EXTRA_TARGETS, *TRANSCRIPT))
    raise DataError(f"a corpus has no column {name!r}", hint=f"known: {known} and {GROUP_PREFIX}*")


def label_matrix(column: pa.ChunkedArray | pa.Array, width: int) -> np.ndarray:
    """A `list<float32>` column as `[N, width]` float32, NaN where a value is missing."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    matrix = np.full((len(array), width), np.nan, dtype=np.float32)
    known = ~array.is_null().to_numpy(zero_copy_only=False)
    # flatten(), not .values: the latter ignores slice offsets and null rows.
    values = array.flatten().to_numpy(zero_copy_only=False)
    matrix[known] = values.astype(np.float32, copy=False).reshape(-1, width)
    return matrix


def label_array(matrix: np.ndarray) -> pa.Array:
    """`[N, width]` to a `list<float32>` column; rows of nothing but NaN become null."""
    # Adding 0 turns -0.0 into 0.0, so that equal labels have equal bytes and equal hashes.
    matrix = np.asarray(matrix, dtype=np.float32) + np.float32(0)
    known = ~np.isnan(matrix).all(axis=1)
    offsets = np.concatenate([[0], np.cumsum(known * matrix.shape[1])]).astype(np.int32)
    values = pa.array(matrix[known].reshape(-1), type=pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~known))


def check(table: pa.Table, scale: EmotionScale) -> None:
    """Refuse a table that is no valid index.

    Raises:
        DataError: naming the field and the first rows that break it.
    """
    ids = table["sample_id"]
    _refuse(table, pc.or_kleene(ids.is_null(), pc.equal(ids, "")), "sample_id", "is empty")
    if pc.count_distinct(ids).as_py() != len(table):
        _refuse(table, _repeated(ids), "sample_id", "occurs more than once")
    known_split = pc.is_in(table["split"], pa.array([*SPLITS, None], pa.string()))
    _refuse(table, pc.invert(known_split), "split", f"is none of {', '.join(SPLITS)}")
    start, end = table["start_s"], table["end_s"]
    _refuse(table, pc.less(start, 0.0), "start_s", "is negative")
    _refuse(table, pc.less_equal(end, pc.coalesce(start, 0.0)), "end_s", "is not after start_s")
    emotion = label_matrix(table["emotion"], len(EMOTIONS))
    missing = np.isnan(emotion)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    _refuse(table, pa.array(partly), "emotion", "has some values missing; give all or none")
    check_range(table, emotion, "emotion", scale.maximum)
    check_range(table, label_matrix(table["traits"], len(TRAITS)), "traits", 1.0)
    if scale.kind == "distribution":
        empty = np.nan_to_num(emotion, nan=1.0).sum(axis=1) <= 0
        _refuse(table, pa.array(empty), "emotion", "is a distribution that sums to 0")
    if "text_source" in table.column_names:
        known_source = pc.is_in(table["text_source"], pa.array([*TEXT_SOURCES, None], pa.string()))
        named = ", ".join(TEXT_SOURCES)
        _refuse(table, pc.invert(known_source), "text_source", f"is none of {named}")


def check_range(table: pa.Table, matrix: np.ndarray, field: str, maximum: float) -> None:
    """Refuse labels outside [0, maximum]; NaN counts as missing and passes."""
    outside = ((matrix < 0) | (matrix > maximum)).any(axis=1)
    _refuse(table, pa.array(outside), field, f"has a value outside [0, {maximum:g}]")


def _refuse(table: pa.Table, broken: Any, field: str, what: str) -> None:
    rows = np.flatnonzero(np.asarray(pc.fill_null(broken, False)))
    if len(rows):
        ids = table["sample_id"].take(pa.array(rows[:3])).to_pylist()
        values = table[field].take(pa.array(rows[:1])).to_pylist()
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        named = ", ".join(repr(i) for i in ids)
        raise DataError(f"{field} {what}: {named}{more} (value {values[0]!r})")


def _repeated(ids: pa.ChunkedArray) -> pa.Array:
    counts = pc.value_counts(ids.combine_chunks())
    often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return pc.is_in(ids, often)


def _plain_column(values: Any, kind: pa.DataType, name: str) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        if isinstance(values, pa.Array):
            return values.cast(kind)
        # NumPy's NaN means missing, as everywhere else in an index.
        return pa.array(values, type=kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise DataError(f"column {name!r} is not {kind}: {_first_line(error)}") from None


def _label_column(values: Any, width: int, name: str) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        if values.shape[1] != width:
            raise DataError(f"column {name!r} has {values.shape[1]} values a row, not {width}")
        return label_array(values)
    column = _plain_column(values, pa.list_(pa.float32()), name)
    lengths = pc.list_value_length(column)
    wrong = pc.fill_null(pc.not_equal(lengths, width), False)
    if pc.any(wrong).as_py():
        row = int(np.flatnonzero(np.asarray(wrong))[0])
        raise DataError(
            f"column {name!r} has {lengths[row].as_py()} values in row {row}, not {width}"
        )
    return label_array(label_matrix(column, width))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_WIDTHS = {"emotion": len(EMOTIONS), "traits": len(TRAITS)}
