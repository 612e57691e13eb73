"""The rows of an export group by group, as Arrow columns: nothing is copied and nothing is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mepr_shared.contract.files import sha256_unchanged
from mepr_shared.contract.schema import Manifest
from mepr_shared.contract.table import check_columns, list_values
from mepr_shared.errors import ContractError


class ExportLike(Protocol):
    """What is read of an `Export`."""

    @property
    def path(self) -> Path: ...
    @property
    def manifest(self) -> Manifest: ...


@dataclass(frozen=True)
class RowGroup:
    """Where some rows of an export lie.

    Attributes:
        path: the part.
        group: its row group.
        start, stop: numbers of the rows in the export.
    """

    path: Path
    group: int
    start: int
    stop: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of these rows.

        Raises:
            ContractError: the file cannot be read.
        """
        with _reading(self.path), pq.ParquetFile(self.path, memory_map=True) as file:
            return file.read_row_group(self.group, columns=list(columns))

    def values(self, table: pa.Table, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        """An array column of what `read` gave: `(values [n of those that have it, width],
        present [stop - start])`; see `list_values`."""
        chunks = [list_values(self.path, name, chunk, width) for chunk in table[name].chunks]
        if len(chunks) == 1:
            return chunks[0]
        if not chunks:
            return np.empty((0, width), np.float32), np.empty(0, bool)
        return np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])


def part_paths(export: ExportLike) -> Iterator[Path]:
    """The parts of an export, in the order of their rows, each found intact.

    Raises:
        ContractError: a part is not what was written.
    """
    for part in export.manifest.files:
        path = export.path / part.path
        with _reading(path):
            intact = sha256_unchanged(path) == part.sha256
        if not intact:
            raise ContractError(
                f"{path} is damaged: its SHA-256 is not that of the manifest",
                hint=f"mepr export verify {export.path} --deep",
            )
        yield path


def row_groups(export: ExportLike) -> list[RowGroup]:
    """All rows of an export, as groups that can be read one by one.

    Raises:
        ContractError: a part is not what was written.
    """
    found: list[RowGroup] = []
    start = 0
    for path in part_paths(export):
        with _reading(path), pq.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow)
            sizes = [
                file.metadata.row_group(index).num_rows
                for index in range(file.metadata.num_row_groups)
            ]
        for index, size in enumerate(sizes):
            found.append(RowGroup(path, index, start, start + size))
            start += size
    return found


def text_column(export: ExportLike, name: str) -> pa.ChunkedArray:
    """One text column of all rows."""
    parts = [group.read([name])[name] for group in row_groups(export)]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into one line that names it."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContractError(f"{path} is damaged: {line}") from None
