"""The joined table on disk, so that train, evaluate and studies join once.

```
EXPORTS/.joined/<key>/
  table.json      what it was made of, its shapes, and the SHA-256 of every file
  *.bin           one array each, in the order of its rows
  sources.parquet source ids
```
The key is a hash of the exports (their ids and manifests), the corpora and how they were joined: a
table is never changed and fits its key for ever. Arrays are mapped copy-on-write: what is written
over them stays in this process. A table holds what its exports hold, so `mepr corpus withdraw` and
`mepr export gc` remove all of them; the next command joins again. They can be removed by hand at
any time.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mepr_fusion import __version__
from mepr_fusion.inputs import Inputs
from mepr_fusion.join import SPLIT_WORDS, Coverage, Joined, join, refuse_low_coverage
from mepr_shared.contract.files import rename_directory, sha256_json, sha256_unchanged, write_json
from mepr_shared.contract.living import JOINED, export_folders
from mepr_shared.contract.verify import quick
from mepr_shared.labels import EMOTIONS

FORMAT = "mepr-joined-1"
TABLE = "table.json"
SOURCES = "sources.parquet"
STAGING = ".staging-"

# Smaller tables are joined in about a second; a file for each would only be in the way.
SMALLEST_BYTES = 64 << 20
KEPT = 4
STALE_STAGING_S = 24 * 3600.0


def join_once(
    inputs: Inputs,
    root: Path,
    *,
    prior_shift: Mapping[str, np.ndarray],
    multi_label: Mapping[str, bool],
    modalities: Sequence[str] | None = None,
    min_coverage: float = 0.0,
) -> Joined:
    """The table that `join` makes, from `root/.joined` where it is there, else written there.

    Small tables, and those of some of the modalities only (a study joins many subsets), are
    joined in memory; so is everything where `root` cannot be written to.

    Raises:
        MeprError: see `join`.
    """
    order = tuple(modalities or sorted({modality for modality, _ in inputs.exports}))

    def in_memory() -> Joined:
        return join(
            inputs.corpora,
            inputs.exports,
            prior_shift=prior_shift,
            multi_label=multi_label,
            modalities=order,
            min_coverage=min_coverage,
        )

    if _bytes(inputs) < SMALLEST_BYTES or _is_subset(inputs, root):
        return in_memory()
    folder = root / JOINED / table_key(inputs, multi_label, order)
    joined = _open(folder)
    if joined is None:
        try:
            _write(folder, inputs, multi_label, order)
        except OSError:  # read-only, full, or cleared away meanwhile
            return in_memory()
        joined = _open(folder)
        if joined is None:
            return in_memory()
    for number, corpus in enumerate(joined.corpora):
        joined.prior_shift[number] = prior_shift.get(corpus, 0.0)
    refuse_low_coverage(joined, min_coverage)
    return joined


def table_key(inputs: Inputs, multi_label: Mapping[str, bool], order: Sequence[str]) -> str:
    """What a table is determined by, as 32 hex digits."""
    content = {
        "format": FORMAT,
        "version": __version__,
        "exports": _pins(inputs),
        "corpora": [
            [c.name, c.hashes.samples_sha256, c.hashes.labels_sha256, bool(multi_label[c.name])]
            for c in inputs.corpora
        ],
        "modalities": list(order),
    }
    return sha256_json(content)[:32]


def _pins(inputs: Inputs) -> dict[str, list[str]]:
    """A withdrawal changes an export's manifest, not its id."""
    return {
        f"{modality}:{corpus}": [export.export_id, export.manifest.manifest_sha256]
        for (modality, corpus), export in sorted(inputs.exports.items())
    }


def _bytes(inputs: Inputs) -> int:
    """Upper bound of the size of the table's features."""
    rows = sum(len(corpus) for corpus in inputs.corpora)
    widths = {
        modality: (export.manifest.width("emotion_embedding") or 0)
        + (export.manifest.width("trait_embedding") or 0)
        for (modality, _), export in inputs.exports.items()
    }
    return 4 * rows * sum(widths.values())


def _is_subset(inputs: Inputs, root: Path) -> bool:
    used = {modality for modality, _ in inputs.exports}
    there = {
        path.parent.name for corpus in inputs.corpora for path in export_folders(root, corpus.name)
    }
    return not there <= used


class _Files:
    """Arrays that are written to a folder of their own; `arrays` are those that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reserved: dict[str, np.dtype] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A mapped array; its space on the disk is reserved.

        Raises:
            OSError: the disk is full (a write to the map would then end the process).
        """
        size = int(np.prod(shape)) * dtype.itemsize
        if size == 0:
            return np.empty(shape, dtype)
        with (self.folder / f"{name}.bin").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        self.reserved[name] = dtype
        mapped = np.memmap(self.folder / f"{name}.bin", dtype, "r+", shape=shape)
        return mapped.view(np.ndarray)

    def keep(self, name: str, values: np.ndarray) -> dict[str, Any]:
        """The final rows of an array, on the disk; gives its entry in the table."""
        path = self.folder / f"{name}.bin"
        if name in self.reserved:
            os.truncate(path, values.nbytes)
        else:
            values.tofile(path)
        return {"dtype": values.dtype.str, "shape": list(values.shape)}


def _write(
    folder: Path, inputs: Inputs, multi_label: Mapping[str, bool], order: Sequence[str]
) -> None:
    """Join into files, and publish them in one step; another process may be faster.

    Raises:
        OSError: they cannot be written.
    """
    folder.parent.mkdir(exist_ok=True)
    staging = folder.parent / f"{STAGING}{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        files = _Files(staging)
        joined = join(
            inputs.corpora,
            inputs.exports,
            prior_shift={},
            multi_label=multi_label,
            modalities=order,
            allocate=files.allocate,
        )
        arrays = {name: files.keep(name, values) for name, values in _arrays(joined).items()}
        sources = pa.array(joined.source_ids, pa.string())
        pq.write_table(pa.table({"source_id": sources}), staging / SOURCES)
        content = {"format": FORMAT, **_description(joined), "arrays": arrays}
        del joined  # what was written through the maps is in the files from here on
        names = sorted(path.name for path in staging.iterdir())
        content["sha256"] = {name: sha256_unchanged(staging / name) for name in names}
        write_json(staging / TABLE, {**content, "seal": sha256_json(content)})
        if not _still_there(inputs):
            raise OSError("an export was changed meanwhile")
        try:
            rename_directory(staging, folder)
        except FileExistsError:
            # Another process has written the same table, or this one was damaged.
            if _open(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                rename_directory(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _remove_oldest(folder.parent)


def _still_there(inputs: Inputs) -> bool:
    """No export was rewritten by a withdrawal, or removed, while it was read."""
    for export in inputs.exports.values():
        manifest, _ = quick(export.path)
        if manifest is None or manifest.manifest_sha256 != export.manifest.manifest_sha256:
            return False
    return True


def _arrays(joined: Joined) -> dict[str, np.ndarray]:
    """Every array that has a row per sample, by the name of its file."""
    codes = {word: code for code, word in enumerate(SPLIT_WORDS)}
    found = {f"features.{name}": values for name, values in joined.features.items()}
    for name in _PLAIN:
        found[name] = getattr(joined, name)
    found["splits"] = np.array([codes[word] for word in joined.splits], dtype=np.int8)
    return found


_PLAIN = (
    "corpus_of",
    "rows",
    "emotion_predictions",
    "trait_predictions",
    "present",
    "emotion_targets",
    "trait_targets",
    "multi_label",
)


def _description(joined: Joined) -> dict[str, Any]:
    return {
        "modalities": {name: list(joined.widths[name]) for name in joined.modalities},
        "corpora": list(joined.corpora),
        "own_shift": [
            [modality, corpus, shift.tolist()]
            for (modality, corpus), shift in joined.own_shift.items()
        ],
        "coverage": [list(vars(entry).values()) for entry in joined.coverage],
        "dropped": [[*key, samples] for key, samples in joined.dropped.items()],
        "warnings": joined.warnings,
    }


def _open(folder: Path) -> Joined | None:
    """The table in a folder; None where there is none that is intact."""
    try:
        content = json.loads((folder / TABLE).read_bytes())
        if content.pop("seal") != sha256_json(content):
            return None
        for name, digest in content["sha256"].items():
            if sha256_unchanged(folder / name) != digest:
                return None
        arrays = {name: _map(folder, name, entry) for name, entry in content["arrays"].items()}
        sources = pq.read_table(folder / SOURCES)["source_id"].to_numpy()
        os.utime(folder)  # the least recently used goes first
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    corpora, modalities = content["corpora"], content["modalities"]
    return Joined(
        modalities=tuple(modalities),
        widths={name: (pair[0], pair[1]) for name, pair in modalities.items()},
        corpora=tuple(corpora),
        splits=np.array(SPLIT_WORDS, dtype=object)[arrays["splits"]],
        source_ids=sources,
        features={name: arrays[f"features.{name}"] for name in modalities},
        prior_shift=np.zeros((len(corpora), len(EMOTIONS)), dtype=np.float32),
        own_shift={
            (modality, corpus): np.array(shift, dtype=np.float32)
            for modality, corpus, shift in content["own_shift"]
        },
        coverage=[Coverage(*entry) for entry in content["coverage"]],
        dropped=Counter({tuple(key): samples for *key, samples in content["dropped"]}),
        warnings=list(content["warnings"]),
        **{name: arrays[name] for name in _PLAIN},
    )


def _map(folder: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    path = folder / f"{name}.bin"
    if path.stat().st_size != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{path} has another size")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "c", shape=shape).view(np.ndarray)


def _remove_oldest(folder: Path) -> None:
    """Only the tables that were used last are kept. What is mapped stays readable."""
    used = {path: path.stat().st_mtime for path in folder.iterdir()}
    tables = [path for path in used if not path.name.startswith(STAGING)]
    tables.sort(key=used.__getitem__, reverse=True)
    killed = [path for path in used.keys() - tables if time.time() - used[path] > STALE_STAGING_S]
    for path in [*tables[KEPT:], *killed]:
        shutil.rmtree(path, ignore_errors=True)
