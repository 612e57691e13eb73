"""Any team's table of embeddings and predictions as a valid export. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mepr_shared.contract.files import sha256_file
from mepr_shared.contract.living import set_alias
from mepr_shared.contract.schema import CorpusLike, EmotionOutput, ModelInfo
from mepr_shared.contract.statuses import STATUSES
from mepr_shared.contract.table import ARRAYS, FIXED_WIDTHS, INTEGERS, RowError, build_rows
from mepr_shared.contract.writer import ExportInfo, ExportWriter
from mepr_shared.errors import ContractError, DataError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS, emotion_name

_TEXTS = ("status", "status_reason", "source_sha256")
_FIELDS = ("sample_id", "split", *_TEXTS, *INTEGERS, *ARRAYS)
_LABELS = {"emotion_logits": EMOTIONS, "trait_scores": TRAITS}


def create_export(
    table_path: Path | str,
    corpus: CorpusLike,
    modality: str,
    out: Path | str,
    *,
    emotion_output: EmotionOutput | None = None,
    stage: str = "external",
    model: ModelInfo | None = None,
    train_rows: Literal["in_sample", "out_of_fold"] = "in_sample",
    missing_status: str = "no_media",
    alias: str | None = None,
) -> Path:
    """Make an export from a Parquet or CSV table.

    Args:
        table_path: one row per sample with `sample_id` and any of `emotion_logits` (7),
            `trait_scores` (5, in [0, 1]), `emotion_embedding`, `trait_embedding`, `status`,
            `status_reason`, `source_sha256`, `fold`, `n_frames`, `n_masked`; a `split`, if there
            is one, must be that of the corpus. An array is a list
            column, a text column with JSON lists, or columns `emotion_logits.anger`,
            `emotion_embedding.0`, ... Empty cells mean that a sample has none.
        corpus: its index; every sample of it gets a row.
        modality: any name.
        out: folder of all exports.
        emotion_output: how to read the logits; needed where there are any.
        stage: as recorded in the manifest.
        model: what made the table; by default the table's hash stands for it.
        train_rows: whether predictions for training rows come from models that saw them.
        missing_status: status of samples that the table lacks or has no data for.
        alias: a name for the export.

    Returns:
        The export's folder; the same table gives the same export.

    Raises:
        ContractError: the table cannot be used; names file, row and field.
    """
    path = Path(table_path)
    if missing_status not in STATUSES or missing_status in ("ok", "partial"):
        raise ContractError(f"{missing_status!r} is no status of a sample without data")
    table = _read_table(path)
    _check_columns(path, table)
    ids = _sample_ids(path, table, corpus)
    arrays = {name: _array(path, table, name) for name in ARRAYS}
    given = {name: values for name, values in arrays.items() if values is not None}
    if not given:
        raise ContractError(f"{path} has no data", hint=f"give one of the columns {ARRAYS}")
    texts, integers = _plain_columns(path, table)
    if "status" not in texts:
        texts["status"], reasons = _statuses(given, missing_status, path)
        texts.setdefault("status_reason", reasons)
    columns: dict[str, Any] = {**texts, **integers, **given}
    _check_rows(path, ids, columns)
    if "emotion_logits" in given and emotion_output is None:
        raise ContractError(
            f"{path} has emotion_logits", hint="say how to read them: emotion_output"
        )
    model = model or ModelInfo({"table_sha256": sha256_file(path)})
    info = ExportInfo(
        modality,
        stage,
        model,
        emotion_output if "emotion_logits" in given else None,
        train_rows,
    )
    writer = ExportWriter(out, corpus=corpus, info=info)
    row_of = {key: row for row, key in enumerate(ids)}
    for index, wanted in writer.pending():
        rows = [row_of.get(key, -1) for key in wanted]
        writer.write_part(index, _gather(columns, rows, missing_status, path))
    export = writer.commit()
    if alias is not None:
        set_alias(out, alias, export.name)
    return export


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        if path.suffix.lower() == ".csv":
            # Ids such as 007 are text, whatever they look like.
            text = dict.fromkeys(("sample_id", "split", *_TEXTS), pa.string())
            options = pa.csv.ConvertOptions(
                column_types=text, strings_can_be_null=True, null_values=[""]
            )
            return pa.csv.read_csv(path, convert_options=options)
    except FileNotFoundError:
        raise ContractError(f"no such file: {path}") from None
    except (OSError, pa.ArrowException) as error:
        raise ContractError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    raise ContractError(f"{path}: a table is .parquet or .csv")


def _check_columns(path: Path, table: pa.Table) -> None:
    for name in table.column_names:
        if name not in _FIELDS and name.partition(".")[0] not in ARRAYS:
            raise ContractError(
                f"{path}: unknown column {name!r}", hint=did_you_mean(name, _FIELDS)
            )
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise ContractError(f"{path}: column {min(repeated)!r} is there twice")


def _sample_ids(path: Path, table: pa.Table, corpus: CorpusLike) -> list[str]:
    if "sample_id" not in table.column_names:
        raise ContractError(f"{path} has no column 'sample_id'")
    ids = table["sample_id"].cast(pa.string()).to_pylist()
    known = set(corpus.sample_ids)
    seen: dict[str, int] = {}
    for row, key in enumerate(ids):
        if key is None:
            raise ContractError(f"{path}: row {row}: sample_id is empty")
        if key in seen:
            raise ContractError(f"{path}: rows {seen[key]} and {row} are both sample {key!r}")
        if key not in known:
            raise ContractError(
                f"{path}: row {row}: sample {key!r} is not in corpus {corpus.name!r}",
                hint="check that this is the corpus the table was made from",
            )
        seen[key] = row
    if "split" in table.column_names:
        splits = dict(zip(corpus.sample_ids, corpus.splits, strict=True))
        for row, (key, split) in enumerate(zip(ids, table["split"].to_pylist(), strict=True)):
            if split != splits[key]:
                raise ContractError(
                    f"{path}: row {row}: sample {key!r} has split {split!r}, in corpus "
                    f"{corpus.name!r} it is {splits[key]!r}"
                )
    return ids


def _array(path: Path, table: pa.Table, name: str) -> np.ndarray | None:
    """`[n, width]` float32 with rows of NaN where empty; None if the table has no such column."""
    parts = {c.partition(".")[2]: c for c in table.column_names if c.startswith(f"{name}.")}
    if parts and name in table.column_names:
        raise ContractError(f"{path}: there is both {name!r} and {name}.*")
    if parts:
        return _from_scalars(path, table, name, parts)
    if name not in table.column_names:
        return None
    column = table[name]
    values = column.to_pylist()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = [_json_list(path, row, name, text) for row, text in enumerate(values)]
    width = FIXED_WIDTHS.get(name) or next((len(v) for v in values if isinstance(v, list) and v), 0)
    out = np.full((len(values), width), np.nan, dtype=np.float32)
    for row, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != width:
            size = f"{len(value)} values" if isinstance(value, list) else repr(value)
            raise ContractError(f"{path}: row {row}: {name} is {size}, not {width} numbers")
        try:
            out[row] = value
        except (TypeError, ValueError):
            raise ContractError(f"{path}: row {row}: {name} is not all numbers") from None
        if not np.isfinite(out[row]).all():
            raise ContractError(f"{path}: row {row}: {name} holds a value that is not finite")
    return out


def _from_scalars(path: Path, table: pa.Table, name: str, parts: dict[str, str]) -> np.ndarray:
    order: Sequence[str]
    if name in _LABELS:
        order = _LABELS[name]
        if name == "emotion_logits":
            try:
                parts = {emotion_name(part): column for part, column in parts.items()}
            except DataError as error:
                raise ContractError(f"{path}: column {name}.*: {error}") from None
    else:
        order = [str(number) for number in range(len(parts))]
    if set(parts) != set(order):
        wrong = min(set(parts) ^ set(order))
        raise ContractError(f"{path}: columns {name}.*: {wrong!r} is missing or not expected")
    columns = []
    for part in order:
        try:
            column = table[parts[part]].cast(pa.float32())
        except pa.ArrowException:
            raise ContractError(f"{path}: column {parts[part]!r} is not all numbers") from None
        columns.append(column.to_numpy())
    return np.stack(columns, axis=1)


def _json_list(path: Path, row: int, name: str, text: str | None) -> Any:
    if text is None or not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise ContractError(f"{path}: row {row}: {name} is no JSON list: {text[:40]!r}") from None


def _plain_columns(
    path: Path, table: pa.Table
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    names = table.column_names
    texts = {name: table[name].cast(pa.string()).to_pylist() for name in _TEXTS if name in names}
    integers = {}
    for name in INTEGERS:
        if name in names:
            try:
                integers[name] = table[name].cast(pa.int32()).to_pylist()
            except pa.ArrowException:
                raise ContractError(f"{path}: column {name!r} is not all whole numbers") from None
    return texts, integers


def _statuses(
    arrays: dict[str, np.ndarray], missing_status: str, path: Path
) -> tuple[list[str], list[str | None]]:
    """`ok` with everything that the table has, `partial` with some, otherwise missing."""
    counts = sum((~np.isnan(values)).any(axis=1).astype(int) for values in arrays.values())
    statuses: list[str] = []
    reasons: list[str | None] = []
    for count in np.asarray(counts).tolist():
        complete = count == len(arrays)
        statuses.append("ok" if complete else "partial" if count else missing_status)
        reasons.append(None if complete else f"incomplete row in {path.name}")
    return statuses, reasons


def _check_rows(path: Path, ids: list[str], columns: dict[str, Any]) -> None:
    try:
        build_rows(ids, [None] * len(ids), columns)
    except RowError as error:
        place = f"{path}: row {ids.index(error.sample_id)}"
        raise ContractError(f"{place}: {error.message}", hint=error.hint) from None


def _gather(
    columns: dict[str, Any], rows: list[int], missing_status: str, path: Path
) -> dict[str, Any]:
    """The table's rows; row -1 is a sample that the table does not have."""
    gathered: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            empty = np.full((1, values.shape[1]), np.nan, dtype=np.float32)
            gathered[name] = np.concatenate([values, empty])[rows]
        else:
            absent = missing_status if name == "status" else None
            gathered[name] = [values[row] if row >= 0 else absent for row in rows]
    reasons = gathered.get("status_reason") or [None] * len(rows)
    gathered["status_reason"] = [
        f"no row in {path.name}" if row < 0 else reason
        for row, reason in zip(rows, reasons, strict=True)
    ]
    return gathered
