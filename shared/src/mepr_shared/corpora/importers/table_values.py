"""Reading a CSV or Parquet table and parsing its cells, with errors that name row and field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mepr_shared.errors import DataError

# What a number column writes where it knows nothing.
_MISSING = ("", "na", "n/a", "nan", "none", "null")


def read_source(path: Path) -> pa.Table:
    """A Parquet file, or a CSV/TSV file with all cells as text (null where empty).

    Raises:
        DataError: missing, unreadable, or of another kind.
    """
    if not path.is_file():
        raise DataError(f"no such table: {path}", hint="a .csv, .tsv or .parquet file")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise DataError(f"{path} is neither .csv, .tsv nor .parquet")
    try:
        return pq.read_table(path) if suffix == ".parquet" else _read_csv(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not readable: {message}") from None


def _read_csv(path: Path) -> pa.Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    delimiter = max("\t;,", key=header.count)
    names = pa_csv.open_csv(path, parse_options=_parse(delimiter)).schema.names
    return pa_csv.read_csv(
        path,
        parse_options=_parse(delimiter),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _parse(delimiter: str) -> pa_csv.ParseOptions:
    return pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


class Cells:
    """The columns of a source table, by name.

    Args:
        table: as `read_source` gives it.
        where: the file, for messages.
    """

    def __init__(self, table: pa.Table, where: str) -> None:
        self.table = table
        self.where = where

    def __len__(self) -> int:
        return len(self.table)

    def is_list(self, name: str) -> bool:
        kind = self.table[name].type
        return pa.types.is_list(kind) or pa.types.is_large_list(kind)

    def texts(self, name: str, field: str) -> list[str | None]:
        """A column as text; an empty cell is None.

        Raises:
            DataError: the column holds lists or the like.
        """
        column = self.table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not _is_text(column.type) and not pa.types.is_primitive(column.type):
            raise DataError(f"{self.where}: column {name!r} ({column.type}) is no {field}")
        trimmed = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return [value or None for value in trimmed.to_pylist()]

    def numbers(self, name: str, field: str) -> np.ndarray:
        """A column as `[N]` float64, NaN where a cell is empty or says so.

        Raises:
            DataError: a cell is not a number; row and field are named.
        """
        column = self.table[name]
        if _is_text(column.type):
            text = pc.utf8_trim_whitespace(column.cast(pa.string()))
            missing = pc.is_in(pc.utf8_lower(text), pa.array(_MISSING))
            column = pc.if_else(missing, pa.scalar(None, pa.string()), text)
        try:
            values = column.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            self._name_the_culprit(column, field)
            raise DataError(f"{self.where}: column {name!r} holds no numbers") from None
        return np.array(values.to_numpy(), dtype=np.float64)

    def _name_the_culprit(self, column: pa.ChunkedArray, field: str) -> None:
        for row, cell in enumerate(column.to_pylist()):
            try:
                float(cell) if cell is not None else None
            except (TypeError, ValueError):
                raise self.error(row, field, f"is {cell!r}, not a number") from None

    def error(self, row: int, field: str, what: str) -> DataError:
        """A refusal that names the row (1 is the first after the header) and the field."""
        return DataError(f"{self.where}, row {row + 1}: {field} {what}")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
