"""Withdrawn consent: a person leaves stores and exports, a row of status `withdrawn` stays."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mepr_shared.contract.files import checked_name, disk_errors, sha256_file, write_json
from mepr_shared.contract.frame_rows import MANIFEST as STORE_MANIFEST
from mepr_shared.contract.frames import FrameStoreWriter, read_store_manifest
from mepr_shared.contract.living import JOINED, export_folders
from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import Original, PartFile, Withdrawal, sealed
from mepr_shared.contract.statuses import WITHDRAWN
from mepr_shared.contract.summary import summarise, total_counts, total_stats
from mepr_shared.contract.table import ARRAYS, SampleRows, read_part, write_part
from mepr_shared.contract.verify import MANIFEST
from mepr_shared.contract.writer import STAGING


def withdraw_from_stores(
    root: Path | str, corpus_name: str, sample_ids: Collection[str], *, reason: str
) -> list[Path]:
    """Erase samples from every frame store of a corpus, of all modalities, finished or not.

    Returns:
        The stores that held one of them.
    """
    changed = []
    folder = Path(root) / checked_name(corpus_name, "corpus name")
    for file in sorted(folder.glob(f"*/frames/*/{STORE_MANIFEST}")):
        manifest = read_store_manifest(file.parent)
        writer = FrameStoreWriter(root, corpus_name, manifest["modality"], manifest["spec"])
        try:
            if writer.withdraw(set(sample_ids), reason):
                changed.append(file.parent)
        finally:
            writer.release()
    return changed


def withdraw_from_exports(
    root: Path | str, corpus_name: str, sample_ids: Collection[str], *, reason: str
) -> list[Path]:
    """Erase samples from every export of a corpus; their rows stay with nulls.

    The export keeps its id, so that what refers to it stays valid; the manifest records the
    withdrawal. Unfinished exports of the corpus are removed, and all joined tables, which hold
    copies.

    Returns:
        The exports that were rewritten.

    Raises:
        ContractError: an export cannot be read, or the disk is full. Run it again: what is done
            stays done.
    """
    folder = Path(root) / checked_name(corpus_name, "corpus name")
    for unfinished in folder.glob(f"*/{STAGING}*"):
        shutil.rmtree(unfinished)
    changed = []
    for path in export_folders(root, corpus_name):
        with disk_errors(path):
            if _withdraw(Export.open(path), set(sample_ids), reason):
                changed.append(path)
    # After the exports: a table that is being made of the old ones is not published any more.
    tables = Path(root) / JOINED
    if tables.exists():
        with disk_errors(tables):
            shutil.rmtree(tables)
    return changed


def _withdraw(export: Export, sample_ids: set[str], reason: str) -> bool:
    manifest = export.manifest
    widths = {name: manifest.width(name) for name in ARRAYS}
    found: list[str] = []
    files: list[PartFile] = []
    summaries = []
    for part in manifest.files:
        rows = read_part(export.path / part.path, widths)
        here = [
            row
            for row, (key, status) in enumerate(
                zip(rows.text["sample_id"], rows.text["status"], strict=True)
            )
            if key in sample_ids and status != WITHDRAWN
        ]
        if here:
            found += [rows.text["sample_id"][row] for row in here]
            _clear(rows, here, reason)
            part = _rewrite(export.path, part, rows, len(manifest.withdrawals) + 1)
        files.append(part)
        summaries.append(summarise(rows))
    if found:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        original = manifest.original or Original(manifest.files, manifest.counts, manifest.stats)
        changed = dataclasses.replace(
            manifest,
            files=files,
            counts=total_counts(summaries),
            stats=total_stats(summaries),
            withdrawals=[*manifest.withdrawals, Withdrawal(found, reason, now)],
            original=original,
        )
        write_json(export.path / MANIFEST, sealed(changed))
    # Also what an earlier, interrupted withdrawal left: it holds the person's data.
    keep = {file.path for file in files}
    for path in (export.path / "samples").iterdir():
        if path.relative_to(export.path).as_posix() not in keep:
            path.unlink()
    return bool(found)


def _clear(rows: SampleRows, indices: list[int], reason: str) -> None:
    for row in indices:
        rows.text["status"][row] = WITHDRAWN
        rows.text["status_reason"][row] = reason
        rows.text["source_sha256"][row] = None
        for values in rows.integers.values():
            values[row] = None
    for name in ARRAYS:
        rows.arrays[name][indices] = np.nan
        rows.present[name][indices] = False


def _rewrite(folder: Path, part: PartFile, rows: SampleRows, number: int) -> PartFile:
    """A part under a new name: until the manifest names it, the old one counts."""
    stem = part.path.removesuffix(".parquet").split(".")[0]
    path = folder / f"{stem}.withdrawn-{number}.parquet"
    write_part(path, rows)
    relative = path.relative_to(folder).as_posix()
    return dataclasses.replace(
        part, path=relative, bytes=path.stat().st_size, sha256=sha256_file(path)
    )
