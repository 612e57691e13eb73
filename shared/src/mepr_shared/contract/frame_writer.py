"""Writing a frame store: packed parts, resumable part by part."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from mepr_shared.contract.files import checked_name, disk_errors, take_lock, write_json
from mepr_shared.contract.frame_rows import (
    DONE,
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    MANIFEST,
    Row,
    newest_rows,
    read_rows,
    rows_to_table,
    store_key,
    table_to_rows,
    write_rows,
)
from mepr_shared.contract.packed import Part, PartWriter, check_part, map_part
from mepr_shared.contract.statuses import STATUSES, WITHDRAWN
from mepr_shared.errors import ContractError, did_you_mean


class ClipWriter:
    """A clip that is being written, chunk by chunk; made by `FrameStoreWriter.open_clip`.

    Attributes:
        row: its index row; `status`, `status_reason`, `hop_s`, `start_s` and `score` may be set
            until the clip is closed.
    """

    def __init__(self, writer: FrameStoreWriter, row: Row) -> None:
        self.row = row
        self._writer = writer
        self._lists: dict[str, list[np.ndarray]] = {}

    def append(
        self,
        frames: np.ndarray,
        *,
        mask: np.ndarray | None = None,
        frame_score: np.ndarray | None = None,
        time_s: np.ndarray | None = None,
    ) -> None:
        """Add frames; give an optional array with every chunk of a clip or with none.

        Args:
            frames: `[t, D]` floats.
            mask: `[t]` True where the frame is valid.
            frame_score: `[t]` detection score of each frame.
            time_s: `[t]` time of each frame in the media, in s.

        Raises:
            ContractError: wrong shape, or a value that is not finite as float16.
        """
        self._writer._append_frames(self.row, frames)
        for name, values in (("mask", mask), ("frame_score", frame_score), ("time_s", time_s)):
            if values is not None:
                self._lists.setdefault(name, []).append(np.asarray(values).reshape(-1))

    def _close(self) -> Row:
        for name, chunks in self._lists.items():
            values = np.concatenate(chunks)
            if len(values) != self.row.len:
                raise ContractError(
                    f"sample {self.row.sample_id!r}: {name} has {len(values)} values for "
                    f"{self.row.len} frames"
                )
            setattr(self.row, name, values)
        if self.row.status not in STATUSES:
            raise ContractError(
                f"sample {self.row.sample_id!r}: unknown status {self.row.status!r}",
                hint=did_you_mean(self.row.status, STATUSES),
            )
        return self.row


class FrameStoreWriter:
    """Writes or extends one frame store; what an earlier run finished is kept.

    Use as a context manager. On an exception (Ctrl-C too) finished clips are kept for the next
    run, but the store is published only by `close`.

    Args:
        root: folder of all stores.
        corpus_name: name of the corpus.
        modality: name of the modality.
        spec: everything that determines the numbers, see `store_key`. Plain JSON.
        part_bytes: a part closes at the first clip end past this size.

    Attributes:
        path: the store's folder.
        done: `sample_id -> input_sha256` of the rows already there.

    Raises:
        ContractError: another process is writing this store; disk full.
    """

    def __init__(
        self,
        root: Path | str,
        corpus_name: str,
        modality: str,
        spec: Mapping[str, Any],
        *,
        part_bytes: int = 256 << 20,
    ) -> None:
        self.corpus_name = checked_name(corpus_name, "corpus name")
        self.modality = checked_name(modality, "modality name")
        self.spec = dict(spec)
        self.key = store_key(spec)
        self.path = Path(root) / corpus_name / modality / "frames" / self.key
        self._part_bytes = part_bytes
        self._rows: list[Row] = []
        self._part: PartWriter | None = None
        self._open_clip = False
        with disk_errors(self.path):
            (self.path / DONE).mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / ".lock")
            self._describe()
            self._tables, self.parts = self._resume()
        self.done: dict[str, str] = {}
        for table in self._tables.values():
            names, inputs = table["sample_id"].to_pylist(), table["input_sha256"].to_pylist()
            self.done.update(zip(names, inputs, strict=True))
        self.width = self._known_width()

    def add(
        self,
        sample_id: str,
        *,
        input_sha256: str,
        frames: np.ndarray | None,
        status: str = "ok",
        reason: str = "",
        hop_s: float | None = None,
        start_s: float | None = None,
        score: float | None = None,
        mask: np.ndarray | None = None,
        frame_score: np.ndarray | None = None,
        time_s: np.ndarray | None = None,
    ) -> None:
        """Add one clip; a sample that is already in the store is superseded.

        Args:
            sample_id: its id in the corpus.
            input_sha256: hash of what the frames were computed from.
            frames: `[T, D]` floats, or None where there is nothing to encode.
            status: one of `STATUSES`.
            reason: in words, where the status is not `ok`.
            hop_s: seconds from one frame to the next.
            start_s: time of the first frame in the media, in s.
            score: detection score of the clip.
            mask: `[T]` True where the frame is valid.
            frame_score: `[T]` detection score of each frame.
            time_s: `[T]` time of each frame, in s.

        Raises:
            ContractError: wrong shape, unknown status, a value not finite as float16, disk full.
        """
        row = Row(sample_id, input_sha256, status, reason or None)
        row.hop_s, row.start_s, row.score = hop_s, start_s, score
        with self._clip(row) as clip:
            if frames is not None:
                clip.append(frames, mask=mask, frame_score=frame_score, time_s=time_s)

    @contextlib.contextmanager
    def open_clip(self, sample_id: str, *, input_sha256: str) -> Iterator[ClipWriter]:
        """Write one long clip as a stream of chunks, so that memory does not grow with it."""
        with self._clip(Row(sample_id, input_sha256)) as clip:
            yield clip

    def close(self) -> Path:
        """Finish the last part and publish the store; gives its folder."""
        with disk_errors(self.path):
            self._finish_part()
            self._publish()
        self.release()
        return self.path

    def release(self) -> None:
        """Let go of the store without publishing it; clips of an unfinished part are lost."""
        self._abandon_part()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        # The error that is under way matters more than one from saving what can be saved.
        with contextlib.suppress(OSError, ContractError):
            self._finish_part()
        self.release()

    def withdraw(self, sample_ids: Collection[str], reason: str) -> list[str]:
        """Take samples out: they keep a row of status `withdrawn`, their frames are erased.

        Parts that hold frames of theirs are written anew without them, then removed. A store that
        is not published stays so.

        Returns:
            The ids that were found.
        """
        published = (self.path / INDEX).exists()
        rows = {number: table_to_rows(self._tables[number]) for number in sorted(self._tables)}
        newest = {row.sample_id: number for number, part in rows.items() for row in part}
        found: set[str] = set()
        affected = []
        for number, part in rows.items():
            here = {r.sample_id for r in part if r.status != WITHDRAWN} & set(sample_ids)
            if not here:
                continue
            found |= here
            affected.append(number)
            for row in part:
                if row.sample_id in sample_ids:
                    self.add(
                        row.sample_id, input_sha256="", frames=None, status=WITHDRAWN, reason=reason
                    )
                elif newest[row.sample_id] == number:
                    self._copy(row)
        with disk_errors(self.path):
            self._finish_part()
            if published:
                self._publish()
            for number in affected:
                self._remove_part(number)
        return sorted(found)

    def _copy(self, row: Row) -> None:
        frames = None
        if row.part is not None:
            part = self.parts[row.part]
            assert part is not None  # a row that points into a part has one
            mapped = map_part(self.path / part.path, part.frames, part.width)
            frames = mapped[row.start : row.start + row.len]
        with self._clip(dataclasses.replace(row, part=None, start=0, len=0)) as clip:
            if frames is not None:
                clip.append(frames)

    def _remove_part(self, number: int) -> None:
        part = self.parts.pop(number)
        del self._tables[number]
        (self.path / DONE / f"part-{number:05d}.parquet").unlink()
        if part:
            (self.path / part.path).unlink()

    @contextlib.contextmanager
    def _clip(self, row: Row) -> Iterator[ClipWriter]:
        if self._open_clip:
            raise ContractError(f"sample {row.sample_id!r} begins before the last clip has ended")
        self._open_clip = True
        clip = ClipWriter(self, row)
        try:
            yield clip
            self._rows.append(clip._close())
            self.done[row.sample_id] = row.input_sha256
        finally:
            self._open_clip = False
        if self._part is not None and self._part.size >= self._part_bytes:
            with disk_errors(self.path):
                self._finish_part()

    def _append_frames(self, row: Row, frames: np.ndarray) -> None:
        frames = np.asarray(frames)
        if frames.ndim != 2 or frames.shape[1] == 0 or frames.dtype.kind != "f":
            raise ContractError(
                f"sample {row.sample_id!r}: frames are floats [T, D], got "
                f"{frames.dtype} {list(frames.shape)}"
            )
        if self.width is None:
            self.width = frames.shape[1]
        if frames.shape[1] != self.width:
            raise ContractError(
                f"sample {row.sample_id!r}: frames are {frames.shape[1]} wide, the store's are "
                f"{self.width}"
            )
        if len(frames) == 0:
            return
        with disk_errors(self.path):
            if self._part is None:
                name = f"part-{self._next_number():05d}.safetensors"
                self._part = PartWriter(self.path / name, self.width)
            if row.part is None:
                row.part, row.start = self._next_number(), self._part.frames
            finite = self._part.append(frames)
        row.len += len(frames)
        if not finite:
            raise ContractError(
                f"sample {row.sample_id!r}: a frame is not finite as float16",
                hint="features must stay below 65504; check the encoder's output",
            )

    def _next_number(self) -> int:
        return max(self.parts, default=-1) + 1

    def _finish_part(self) -> None:
        if not self._rows:
            self._abandon_part()
            return
        number, rows = self._next_number(), self._rows
        try:
            part = self._part.finish() if self._part else None
            table = rows_to_table(rows)
            # The done-record comes last: a part without one is discarded by the next run.
            write_rows(self.path / DONE / f"part-{number:05d}.parquet", table, {number: part})
        except BaseException:
            self._abandon_part()
            raise
        finally:
            self._part, self._rows = None, []
        self._tables[number], self.parts[number] = table, part

    def _abandon_part(self) -> None:
        if self._part is not None:
            self._part.abandon()
            self._part = None

    def _publish(self) -> None:
        """The index is what makes the folder a store; it names every part that it points into."""
        index = newest_rows(self._tables[number] for number in sorted(self._tables))
        used = set(index["part"].to_pylist())
        write_rows(self.path / INDEX, index, {n: p for n, p in self.parts.items() if n in used})

    def _describe(self) -> None:
        if not (self.path / MANIFEST).exists():
            content = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "key": self.key,
                "corpus": self.corpus_name,
                "modality": self.modality,
                "spec": self.spec,
            }
            write_json(self.path / MANIFEST, content)

    def _resume(self) -> tuple[dict[int, pa.Table], dict[int, Part | None]]:
        """Finished parts; whatever a killed run left unfinished is removed."""
        tables: dict[int, pa.Table] = {}
        parts: dict[int, Part | None] = {}
        for record in sorted((self.path / DONE).glob("part-*.parquet")):
            try:
                table, described = read_rows(record)
                _check_parts(self.path, described)
            except ContractError:
                record.unlink()
                continue
            (number,) = described
            tables[number], parts[number] = table, described[number]
        keep = {part.path for part in parts.values() if part}
        for path in [*self.path.glob("part-*"), *self.path.rglob(".*.partial")]:
            if path.name not in keep:
                path.unlink()
        return tables, parts

    def _known_width(self) -> int | None:
        return next((part.width for part in self.parts.values() if part), None)


def _check_parts(folder: Path, parts: Mapping[int, Part | None]) -> None:
    for part in parts.values():
        if part:
            check_part(folder / part.path, part.frames, part.width)
