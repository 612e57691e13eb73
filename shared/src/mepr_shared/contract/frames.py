"""Frame store: variable-length encoder features `[T, D]` of a corpus, read through mmap.

A store is a folder `<root>/<corpus>/<modality>/frames/<key>/` of packed float16 parts and an
index. A random clip costs a page-in, not a parse.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mepr_shared.contract.files import checked_name, path_inside
from mepr_shared.contract.frame_rows import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    MANIFEST,
    PER_FRAME,
    read_rows,
    store_key,
)
from mepr_shared.contract.frame_writer import ClipWriter, FrameStoreWriter
from mepr_shared.contract.half import widen
from mepr_shared.contract.packed import Part, check_part, map_part
from mepr_shared.errors import ContractError

__all__ = ["ClipWriter", "FrameStore", "FrameStoreWriter", "read_store_manifest", "store_key"]


_WORTH_A_THREAD = 1 << 18  # values of a batch


class FrameStore:
    """A published frame store; rows are sorted by `sample_id`.

    Attributes:
        path: its folder.
        spec: what its numbers were computed with.
        key: the folder's name, a hash of `spec`.
        corpus_name: name of the corpus.
        modality: name of the modality.
        sample_ids: `N` ids.
        status: `[N]` array of words, see `STATUSES`.
        status_reason: `N` reasons or None.
        input_sha256: `N` hashes of what each row was computed from.
        lengths: `[N]` int64, frames per clip; 0 where there is nothing.
        hop_s: `[N]` seconds from frame to frame, NaN where unknown.
        start_s: `[N]` time of the first frame in the media in s, NaN where unknown.
        score: `[N]` detection score, NaN where there is none.
        width: `D`; 0 in a store without any frame.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], index: pa.Table) -> None:
        self.path = path
        self.spec: dict[str, Any] = manifest["spec"]
        self.key: str = manifest["key"]
        self.corpus_name: str = manifest["corpus"]
        self.modality: str = manifest["modality"]
        self.sample_ids: list[str] = index["sample_id"].to_pylist()
        self.status = np.array(index["status"].to_pylist(), dtype=object)
        self.status_reason: list[str | None] = index["status_reason"].to_pylist()
        self.input_sha256: list[str] = index["input_sha256"].to_pylist()
        self.lengths: np.ndarray = index["len"].to_numpy()
        self.hop_s: np.ndarray = index["hop_s"].to_numpy(zero_copy_only=False)
        self.start_s: np.ndarray = index["start_s"].to_numpy(zero_copy_only=False)
        self._part_of: np.ndarray = index["part"].fill_null(-1).to_numpy()
        self._starts: np.ndarray = index["start"].to_numpy()
        self.score: np.ndarray = index["score"].to_numpy(zero_copy_only=False)
        self._per_frame = {name: _Lists(index[name]) for name in PER_FRAME}
        self._rows = {name: row for row, name in enumerate(self.sample_ids)}
        self._parts: dict[int, Part] = {}
        self._process: _Process | None = None
        self.width = 0

    @classmethod
    def open(cls, path: Path | str) -> FrameStore:
        """Open a store and check the size of each part.

        Raises:
            ContractError: unfinished, too new, damaged or truncated.
        """
        path = Path(path)
        manifest = read_store_manifest(path)
        if not (path / INDEX).exists():
            raise ContractError(
                f"the extraction into {path} is not finished", hint="extract again with --resume"
            )
        index, parts = read_rows(path / INDEX)
        store = cls(path, manifest, index)
        store._parts = {number: part for number, part in parts.items() if part}
        store.width = next((part.width for part in store._parts.values()), 0)
        store._check()
        return store

    @classmethod
    def find(
        cls,
        root: Path | str,
        corpus_name: str,
        modality: str,
        *,
        key: str | None = None,
        encoder: str | None = None,
    ) -> FrameStore:
        """The one store of a corpus and modality.

        Args:
            root: folder of all stores.
            corpus_name: name of the corpus.
            modality: name of the modality.
            key: its key, where there are several.
            encoder: the encoder in its spec (`spec["encoder"]`, or the `id` in it).

        Raises:
            ContractError: none, or several.
        """
        folder = Path(root) / checked_name(corpus_name, "corpus name")
        folder = folder / checked_name(modality, "modality name") / "frames"
        found = {
            path.parent: read_store_manifest(path.parent) for path in folder.glob(f"*/{INDEX}")
        }
        fitting = [
            path
            for path, manifest in sorted(found.items())
            if key in (None, manifest["key"]) and encoder in (None, _encoder(manifest["spec"]))
        ]
        if len(fitting) == 1:
            return cls.open(fitting[0])
        known = [f"{m['key']} ({_encoder(m['spec'])})" for _, m in sorted(found.items())]
        wanted = f" from encoder {encoder!r}" if encoder else f" with key {key!r}" if key else ""
        if not fitting:
            raise ContractError(
                f"no features of {modality} for corpus {corpus_name!r}{wanted} under {root}"
                + (f"; there are: {', '.join(known)}" if known else ""),
                hint="run extract first",
            )
        raise ContractError(
            f"{len(fitting)} stores of {modality} for corpus {corpus_name!r} under {root}: "
            + ", ".join(known),
            hint="say which by its encoder or key",
        )

    def __len__(self) -> int:
        return len(self.sample_ids)

    def row_of(self, sample_ids: Iterable[str]) -> np.ndarray:
        """Row numbers of samples, int64; -1 where a sample is not in the store."""
        return np.array([self._rows.get(name, -1) for name in sample_ids], dtype=np.int64)

    def read(self, row: int) -> np.ndarray:
        """float16 `[T, D]` of one clip, a read-only view of the file; `T` is 0 without data."""
        number = int(self._part_of[row])
        if number < 0:
            return np.empty((0, self.width), dtype=np.float16)
        start, length = int(self._starts[row]), int(self.lengths[row])
        flat = self._map(number)[start * self.width : (start + length) * self.width]
        return flat.reshape(length, self.width)

    def frame_mask(self, row: int) -> np.ndarray:
        """bool `[T]`, True where the frame is valid."""
        mask = self._per_frame["mask"].get(row)
        return np.ones(self.lengths[row], dtype=bool) if mask is None else mask

    def frame_scores(self, row: int) -> np.ndarray | None:
        """float32 `[T]` detection score of each frame, None where not stored."""
        return self._per_frame["frame_score"].get(row)

    def frame_times(self, row: int) -> np.ndarray | None:
        """float32 `[T]` time of each frame in the media in s, None where not stored."""
        return self._per_frame["time_s"].get(row)

    def batch(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clips as one padded batch.

        Returns:
            frames float32 `[B, T, D]`, zero beyond each clip's end, and the mask bool `[B, T]`,
            True where a frame is valid; `T` is the longest clip of the batch.
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=0))
        flat = np.empty((len(rows), longest * self.width), dtype=np.float32)
        half = len(rows) // 2 if flat.size >= _WORTH_A_THREAD else 0
        other = self._own().helper.submit(self._fill, flat[:half], rows[:half]) if half else None
        self._fill(flat[half:], rows[half:])
        if other is not None:
            other.result()
        mask = np.arange(longest) < lengths[:, None]
        masks = self._per_frame["mask"]
        for place in np.flatnonzero(masks.given[rows]):
            valid = masks[rows[place]]
            mask[place, : len(valid)] = valid
        return flat.reshape(len(rows), longest, self.width), mask

    def _fill(self, flat: np.ndarray, rows: np.ndarray) -> None:
        """Clips into the rows of `[B, T * D]`, zero beyond each one's end."""
        columns = (self._part_of, self._starts, self.lengths)
        clips = zip(flat, *(column[rows].tolist() for column in columns), strict=True)
        for out, part, start, length in clips:
            size = length * self.width
            if size:
                begin = start * self.width
                widen(self._map(part)[begin : begin + size], out[:size])
            out[size:] = 0

    def damaged_parts(self) -> list[str]:
        """File names of the parts whose tensor is not what was written (reads everything)."""
        return [
            part.path
            for number, part in sorted(self._parts.items())
            if hashlib.sha256(self._map(number).data).hexdigest() != part.sha256
        ]

    def __getstate__(self) -> dict[str, Any]:
        # Mappings and threads belong to the process that made them.
        return {**self.__dict__, "_process": None}

    def _own(self) -> _Process:
        if self._process is None or self._process.number != os.getpid():
            self._process = _Process(os.getpid())
        return self._process

    def _map(self, number: int) -> np.ndarray:
        maps = self._own().maps
        if number not in maps:
            part = self._parts[number]
            mapped = map_part(self.path / part.path, part.frames, part.width)
            maps[number] = mapped.reshape(-1)
        return maps[number]

    def _check(self) -> None:
        for part in self._parts.values():
            check_part(path_inside(self.path, part.path), part.frames, part.width)
        frames = {-1: 0, **{number: part.frames for number, part in self._parts.items()}}
        capacity = np.array([frames.get(number, -1) for number in self._part_of], dtype=np.int64)
        bad = (self._starts < 0) | (self.lengths < 0) | (self._starts + self.lengths > capacity)
        for values in self._per_frame.values():
            bad |= values.given & (values.lengths != self.lengths)
        if bad.any():
            sample = self.sample_ids[int(np.argmax(bad))]
            raise ContractError(
                f"{self.path / INDEX}: the row of sample {sample!r} points outside its part",
                hint="remove the folder and extract again",
            )


class _Process:
    """What one process, by its number, has opened for itself."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.maps: dict[int, np.ndarray] = {}
        # The casts release the interpreter, so half a batch is filled beside the other half.
        self.helper = ThreadPoolExecutor(1)


class _Lists:
    """A nullable list column as one flat array and offsets."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        self.given = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
        self.lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        self._ends = np.cumsum(self.lengths)
        # flatten() honours slice offsets and skips null rows, `.values` does neither.
        self._flat = array.flatten().to_numpy(zero_copy_only=False)

    def get(self, row: int) -> np.ndarray | None:
        return self[row] if self.given[row] else None

    def __getitem__(self, row: int) -> np.ndarray:
        return self._flat[self._ends[row] - self.lengths[row] : self._ends[row]]


def read_store_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store, published or not: `key, corpus, modality, spec`.

    Raises:
        ContractError: missing, damaged, too new, or of another folder.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        major = int(manifest["format_version"].split(".")[0])
        complete = manifest["format"] == FORMAT and {"corpus", "modality"} <= set(manifest)
        fitting = manifest["key"] == store_key(manifest["spec"]) == path.name
    except FileNotFoundError:
        raise ContractError(f"no frame store in {path}", hint="run extract first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(f"{file} is damaged: {error}", hint="extract again") from None
    if not complete:
        raise ContractError(f"{file} is not the manifest of a frame store")
    if major > int(FORMAT_VERSION.split(".")[0]):
        raise ContractError(
            f"{path} has format {manifest['format_version']}, this version reads {FORMAT_VERSION}",
            hint="pip install --upgrade mepr-shared",
        )
    if not fitting:
        raise ContractError(f"{file} does not describe this folder", hint="extract again")
    return manifest


def _encoder(spec: Mapping[str, Any]) -> Any:
    encoder = spec.get("encoder")
    return encoder.get("id") if isinstance(encoder, Mapping) else encoder
