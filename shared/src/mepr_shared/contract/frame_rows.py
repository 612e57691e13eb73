"""Rows of a frame store: its index, its done-records, and its key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mepr_shared.contract.files import flush, replace, sha256_json
from mepr_shared.contract.packed import Part
from mepr_shared.errors import ContractError

FORMAT = "mepr-frames"
FORMAT_VERSION = "1.0"
MANIFEST = "manifest.json"
INDEX = "index.parquet"
DONE = "done"
PER_FRAME = ("mask", "frame_score", "time_s")

ROW_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("status_reason", pa.string()),
        pa.field("part", pa.int32()),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("len", pa.int64(), nullable=False),
        pa.field("hop_s", pa.float64()),
        pa.field("start_s", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("mask", pa.list_(pa.bool_())),
        pa.field("frame_score", pa.list_(pa.float32())),
        pa.field("time_s", pa.list_(pa.float32())),
        pa.field("input_sha256", pa.string(), nullable=False),
    ]
)


def store_key(spec: Mapping[str, Any]) -> str:
    """Folder name of a store: 16 hex digits over everything that determines its numbers.

    Args:
        spec: encoder id, revision and weights hash, every preprocessing parameter. Plain JSON.
    """
    return sha256_json({"format_version": FORMAT_VERSION, "spec": dict(spec)})[:16]


@dataclass
class Row:
    """One clip; `part` is None where it has no frames. Arrays are per frame, length `len`."""

    sample_id: str
    input_sha256: str
    status: str = "ok"
    status_reason: str | None = None
    part: int | None = None
    start: int = 0
    len: int = 0
    hop_s: float | None = None
    start_s: float | None = None
    score: float | None = None
    mask: np.ndarray | None = None
    frame_score: np.ndarray | None = None
    time_s: np.ndarray | None = None


def rows_to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table of `ROW_SCHEMA`."""
    rows = list(rows)
    columns = [
        pa.array([getattr(row, field.name) for row in rows], type=field.type)
        for field in ROW_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=ROW_SCHEMA)


def table_to_rows(table: pa.Table) -> list[Row]:
    """The reverse of `rows_to_table`."""
    rows = [Row(**values) for values in table.to_pylist()]
    for row in rows:
        for name in PER_FRAME:
            values = getattr(row, name)
            setattr(row, name, values if values is None else np.array(values))
    return rows


def newest_rows(tables: Iterable[pa.Table]) -> pa.Table:
    """The last row of every sample, sorted by `sample_id`."""
    table = pa.concat_tables([ROW_SCHEMA.empty_table(), *tables])
    newest = {name: row for row, name in enumerate(table["sample_id"].to_pylist())}
    return table.take(pa.array([newest[name] for name in sorted(newest)], type=pa.int64()))


def write_rows(path: Path, table: pa.Table, parts: Mapping[int, Part | None]) -> None:
    """A table of rows together with the parts it points into, atomically.

    `parts` maps the part number to its file, None for a part in which no clip has frames.
    """
    record = {str(number): part and asdict(part) for number, part in sorted(parts.items())}
    table = table.replace_schema_metadata({"mepr.parts": json.dumps(record)})
    unfinished = path.with_name(f".{path.name}.partial")
    with unfinished.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        flush(file)
    replace(unfinished, path)


def read_rows(path: Path) -> tuple[pa.Table, dict[int, Part | None]]:
    """What `write_rows` wrote.

    Raises:
        ContractError: unreadable, or other columns.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        record = json.loads((table.schema.metadata or {})[b"mepr.parts"])
        parts = {int(number): part and Part(**part) for number, part in record.items()}
        table = table.replace_schema_metadata(None).select(ROW_SCHEMA.names).cast(ROW_SCHEMA)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ContractError(
            f"{path} is damaged: {str(error).splitlines()[0]}",
            hint="remove the folder and extract again",
        ) from None
    return table, parts
