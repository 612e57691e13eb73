"""The sample table of an export: NumPy columns to Parquet and back, with every rule checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from mepr_shared.contract.files import flush
from mepr_shared.contract.schema import Column
from mepr_shared.contract.statuses import STATUSES, WITH_DATA
from mepr_shared.errors import ContractError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS

ARRAYS = ("emotion_logits", "trait_scores", "emotion_embedding", "trait_embedding")
INTEGERS = ("fold", "n_frames", "n_masked")
FIXED_WIDTHS = {"emotion_logits": len(EMOTIONS), "trait_scores": len(TRAITS)}
COLUMNS = (
    "sample_id",
    "split",
    "status",
    "status_reason",
    "fold",
    *ARRAYS,
    "n_frames",
    "n_masked",
    "source_sha256",
)
_REQUIRED = ("sample_id", "status")


@dataclass
class SampleRows:
    """Rows of an export, aligned.

    Attributes:
        text: `split`, `status`, `status_reason`, `source_sha256`, `sample_id`: lists of str | None.
        integers: `fold`, `n_frames`, `n_masked`: lists of int | None.
        arrays: `[n, width]` float32, NaN where absent; width 0 where no row has the column.
        present: bool `[n]` for each array: which rows have it.
    """

    text: dict[str, list[Any]]
    integers: dict[str, list[int | None]]
    arrays: dict[str, np.ndarray]
    present: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.text["sample_id"])

    @property
    def widths(self) -> dict[str, int]:
        """Width of each array column that some row has."""
        return {name: a.shape[1] for name, a in self.arrays.items() if self.present[name].any()}


def schema_columns(widths: Mapping[str, int]) -> list[Column]:
    """The columns of a sample table whose array columns have these widths (0: all null)."""
    columns = []
    for name in COLUMNS:
        kind = "list<float32>" if name in ARRAYS else "int32" if name in INTEGERS else "string"
        width = (widths.get(name) or FIXED_WIDTHS.get(name)) if name in ARRAYS else None
        columns.append(Column(name, kind, name not in _REQUIRED, width))  # type: ignore[arg-type]
    return columns


def arrow_schema() -> pa.Schema:
    """Plain types only, so that Spark, DuckDB and pandas read it with no code of ours."""
    kinds = {"list<float32>": pa.list_(pa.float32()), "int32": pa.int32(), "string": pa.string()}
    return pa.schema([pa.field(c.name, kinds[c.type], c.nullable) for c in schema_columns({})])


def build_rows(
    sample_ids: Sequence[str], splits: Sequence[str | None], columns: Mapping[str, Any]
) -> SampleRows:
    """Columns as an encoder's outputs have them, checked against every rule of the table.

    Args:
        sample_ids: `n` ids.
        splits: their splits.
        columns: `status` (list of words), and where there is any: `status_reason`,
            `source_sha256` (lists of str | None), `fold`, `n_frames`, `n_masked` (lists of
            int | None), and the arrays `[n, width]`, with rows of NaN where a sample has none.

    Raises:
        ContractError: unknown column, wrong length or width, unknown status, a value that is not
            finite, data where the status says there is none, or none where it says there is.
    """
    unknown = set(columns) - set(COLUMNS) - {"sample_id"}
    if unknown:
        name = min(unknown)
        raise ContractError(f"unknown column {name!r}", hint=did_you_mean(name, COLUMNS))
    if "status" not in columns:
        raise ContractError("the column 'status' is missing", hint=f"one of {STATUSES} per row")
    count = len(sample_ids)
    for name, values in columns.items():
        if values is not None and len(values) != count:
            raise ContractError(f"{name} has {len(values)} rows for {count} samples")
    if list(columns.get("sample_id", sample_ids)) != list(sample_ids):
        raise ContractError("the rows are not in the order of the samples asked for")
    text: dict[str, list[Any]] = {"sample_id": list(sample_ids), "split": list(splits)}
    for name in ("status", "status_reason", "source_sha256"):
        values = columns.get(name)
        text[name] = [None] * count if values is None else [v or None for v in values]
    integers = {name: _integers(columns.get(name), count) for name in INTEGERS}
    arrays = {name: _array(name, columns.get(name), count) for name in ARRAYS}
    present = {name: (~np.isnan(a)).any(axis=1) for name, a in arrays.items()}
    rows = SampleRows(text, integers, arrays, present)
    for problem in row_problems(rows):
        raise RowError(problem)
    return rows


@dataclass(frozen=True)
class RowProblem:
    """A rule that rows break; `sample_id` is the first of them."""

    code: str
    sample_id: str
    message: str


class RowError(ContractError):
    """Rows that break a rule; `sample_id` is the first of them."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(problem.message)
        self.sample_id = problem.sample_id


def row_problems(rows: SampleRows) -> list[RowProblem]:
    """Every rule that the rows break, the first sample of each named."""
    problems: list[RowProblem] = []

    def report(code: str, where: ArrayLike, what: str) -> None:
        bad = np.asarray(where)
        if bad.any():
            sample = rows.text["sample_id"][int(np.argmax(bad))]
            message = f"sample {sample!r}: {what} ({bad.sum()} rows)"
            problems.append(RowProblem(code, sample, message))

    status = np.array([*rows.text["status"], None], dtype=object)[:-1]
    known = np.isin(status.astype(str), STATUSES)
    if not known.all():
        word = str(status[~known][0])
        report("status", ~known, f"unknown status {word!r}, {did_you_mean(word, STATUSES)}")
    with_data = np.isin(status.astype(str), WITH_DATA)
    usable = status == "ok"
    for name in ARRAYS:
        values, present = rows.arrays[name], rows.present[name]
        report("not_finite", present & ~np.isfinite(values).all(axis=1), f"{name} is not finite")
        report("null_rule", present & known & ~with_data, f"{name} although status has no data")
        if (present & usable).any():
            report("null_rule", ~present & usable, f"no {name} although status is ok")
    empty = ~np.any(list(rows.present.values()), axis=0)
    report("null_rule", with_data & empty, "status says there is data, but there is none")
    scores = rows.arrays["trait_scores"]
    if scores.shape[1]:
        outside = ((scores < 0) | (scores > 1)).any(axis=1)
        report("range", outside, "a trait score is outside [0, 1]")
    for name in ("n_frames", "n_masked"):
        negative = np.array(
            [value is not None and value < 0 for value in rows.integers[name]], bool
        )
        report("range", negative, f"{name} is negative")
    return problems


def write_part(path: Path, rows: SampleRows) -> None:
    """Rows as a Parquet file, the same bytes for the same rows, on the disk."""
    columns = []
    for field in arrow_schema():
        if field.name in rows.arrays:
            columns.append(_list_array(rows.arrays[field.name], rows.present[field.name]))
        else:
            values = rows.text.get(field.name) or rows.integers.get(field.name) or []
            columns.append(pa.array(values, type=field.type))
    table = pa.Table.from_arrays(columns, schema=arrow_schema())
    with path.open("wb") as file:
        pq.write_table(
            table, file, version="2.6", compression="zstd", row_group_size=16384, store_schema=False
        )
        flush(file)


def read_part(path: Path, widths: Mapping[str, int | None]) -> SampleRows:
    """Rows of a part.

    Args:
        path: the Parquet file.
        widths: width of each array column as the manifest states it, None where it is absent.

    Raises:
        ContractError: unreadable, or other columns, types or list widths.
    """
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ContractError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    check_columns(path, table.schema)
    texts = [field.name for field in arrow_schema() if pa.types.is_string(field.type)]
    lists = {name: _from_lists(path, name, table[name], widths.get(name) or 0) for name in ARRAYS}
    return SampleRows(
        {name: table[name].to_pylist() for name in texts},
        {name: table[name].to_pylist() for name in INTEGERS},
        {name: values for name, (values, _) in lists.items()},
        {name: present for name, (_, present) in lists.items()},
    )


def check_columns(path: Path, schema: pa.Schema) -> None:
    """Refuse a part that does not start with the columns of `arrow_schema`.

    Raises:
        ContractError: other columns or types.
    """
    found, wanted = _describe(schema), _describe(arrow_schema())
    if found[: len(wanted)] != wanted:
        wrong = next((f for f, w in zip(found, wanted, strict=False) if f != w), "too few columns")
        raise ContractError(f"{path}: wrong columns: {wrong}", hint=f"they are: {wanted}")


def concatenate(parts: Sequence[SampleRows]) -> SampleRows:
    """Rows of several parts; their array widths are the same."""
    first = parts[0]
    return SampleRows(
        {name: [v for part in parts for v in part.text[name]] for name in first.text},
        {name: [v for part in parts for v in part.integers[name]] for name in first.integers},
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in ARRAYS},
        {name: np.concatenate([part.present[name] for part in parts]) for name in ARRAYS},
    )


def take(rows: SampleRows, indices: np.ndarray) -> SampleRows:
    """Rows by number."""
    return SampleRows(
        {name: [values[i] for i in indices] for name, values in rows.text.items()},
        {name: [values[i] for i in indices] for name, values in rows.integers.items()},
        {name: values[indices] for name, values in rows.arrays.items()},
        {name: values[indices] for name, values in rows.present.items()},
    )


def interleave(a: SampleRows, b: SampleRows) -> SampleRows:
    """Rows of both, sorted by `sample_id`. An array column that one of them lacks is absent there.

    Raises:
        ContractError: the widths of an array column differ.
    """
    widths = {}
    for name in ARRAYS:
        found = {rows.arrays[name].shape[1] for rows in (a, b) if rows.present[name].any()}
        if len(found) > 1:
            raise ContractError(f"{name} has several widths: {sorted(found)}")
        widths[name] = max(found, default=0)
    both = concatenate([_widened(a, widths), _widened(b, widths)])
    keys = both.text["sample_id"]
    return take(both, np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64))


def _widened(rows: SampleRows, widths: Mapping[str, int]) -> SampleRows:
    arrays = {
        name: values
        if values.shape[1] == widths[name]
        else np.full((len(rows), widths[name]), np.nan, dtype=np.float32)
        for name, values in rows.arrays.items()
    }
    return SampleRows(rows.text, rows.integers, arrays, rows.present)


def _describe(schema: pa.Schema) -> list[str]:
    """One phrase per column; the name of a list's inner field differs between writers."""
    phrases = []
    for field in schema:
        kind = field.type
        kind = f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)
        phrases.append(f"{field.name} {kind}{'' if field.nullable else ' not null'}")
    return phrases


def _integers(values: Any, count: int) -> list[int | None]:
    if values is None:
        return [None] * count
    return [None if value is None else int(value) for value in values]


def _array(name: str, values: Any, count: int) -> np.ndarray:
    if values is None:
        return np.empty((count, 0), dtype=np.float32)
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype=np.float32)
    width = FIXED_WIDTHS.get(name)
    if array.ndim != 2 or (width and count and array.shape[1] != width):
        raise ContractError(f"{name} is [n, {width or 'width'}], got {list(array.shape)}")
    return array


def _list_array(values: np.ndarray, present: np.ndarray) -> pa.Array:
    offsets = np.zeros(len(present) + 1, dtype=np.int32)
    np.cumsum(present * values.shape[1], out=offsets[1:])
    flat = pa.array(np.ascontiguousarray(values[present]).reshape(-1), type=pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(~present))


def list_values(
    path: Path, name: str, chunk: pa.ListArray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A chunk of an array column, without a copy: `(values [n of those that have it, width],
    present [n])`.

    Raises:
        ContractError: a list of another length, or with nulls inside.
    """
    present = chunk.is_valid().to_numpy(zero_copy_only=False)
    # flatten() honours slice offsets and skips null rows, `.values` does neither.
    values = chunk.flatten()
    # value_lengths() of null rows are null: they count for nothing here.
    lengths = pc.min_max(chunk.value_lengths()).as_py()
    if {lengths["min"], lengths["max"]} - {width, None}:
        found = sorted(set(chunk.value_lengths().drop_null().to_pylist()))
        raise ContractError(f"{path}: {name} has rows of {found} values, not {width}")
    if values.null_count:
        raise ContractError(f"{path}: {name} has null values inside its lists")
    return values.to_numpy().reshape(int(present.sum()), width), present


def _from_lists(
    path: Path, name: str, column: pa.ChunkedArray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((len(column), width), np.nan, dtype=np.float32)
    given = np.zeros(len(column), dtype=bool)
    start = 0
    for chunk in column.chunks:
        here = slice(start, start + len(chunk))
        values, given[here] = list_values(path, name, chunk, width)
        out[here][given[here]] = values
        start = here.stop
    return out, given
