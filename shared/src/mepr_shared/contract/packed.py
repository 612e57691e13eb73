"""One part of a frame store: a safetensors file with a single float16 tensor `[sum T, D]`."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mepr_shared.contract.files import flush, replace
from mepr_shared.contract.half import narrow
from mepr_shared.errors import ContractError

TENSOR = "frames"
_HEADER_BYTES = 256  # fixed, so that it can be written when the number of frames is known
_BUFFER_ELEMENTS = 1 << 21
_MOST_PENDING = 8  # buffers waiting for the disk: bounds the memory of a fast producer


@dataclass(frozen=True)
class Part:
    """A finished part: file name, frames `sum T`, `D`, file size, SHA-256 of the tensor's bytes."""

    path: str
    frames: int
    width: int
    bytes: int
    sha256: str


class PartWriter:
    """Streams frames into a part. Hash, write and fsync run in a thread beside the cast."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width
        self.frames = 0
        self._unfinished = path.with_name(f".{path.name}.partial")
        self._file = self._unfinished.open("wb")
        self._file.write(bytes(_HEADER_BYTES))
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._buffer = np.empty(_BUFFER_ELEMENTS, dtype=np.float16)
        self._filled = 0

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return _HEADER_BYTES + 2 * self.frames * self.width

    def append(self, frames: np.ndarray) -> bool:
        """Add `[t, D]` frames; False if a value is not finite after the cast.

        The frames then stay in the part without a row that points to them.
        """
        values = np.ascontiguousarray(frames).reshape(-1)
        finite = True
        position = 0
        while position < values.size:
            count = min(values.size - position, _BUFFER_ELEMENTS - self._filled)
            target = self._buffer[self._filled : self._filled + count]
            finite &= narrow(values[position : position + count], target)
            self._filled += count
            position += count
            if self._filled == _BUFFER_ELEMENTS:
                self._hand_over()
        self.frames += len(frames)
        return finite

    def finish(self) -> Part:
        """Header, fsync, rename."""
        self._hand_over()
        self._drain(0)
        self._thread.shutdown()
        self._file.seek(0)
        self._file.write(_header(self.frames, self.width))
        flush(self._file)
        self._file.close()
        replace(self._unfinished, self.path)
        return Part(self.path.name, self.frames, self.width, self.size, self._hash.hexdigest())

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._thread.shutdown(cancel_futures=True)
        self._file.close()
        self._unfinished.unlink(missing_ok=True)

    def _hand_over(self) -> None:
        self._drain(_MOST_PENDING)
        self._pending.append(self._thread.submit(self._write, self._buffer[: self._filled]))
        self._buffer = np.empty(_BUFFER_ELEMENTS, dtype=np.float16)
        self._filled = 0

    def _drain(self, allowed: int) -> None:
        while len(self._pending) > allowed:
            self._pending.popleft().result()

    def _write(self, block: np.ndarray) -> None:
        self._hash.update(block.data)
        self._file.write(block.data)


def _header(frames: int, width: int) -> bytes:
    tensor = {
        "dtype": "F16",
        "shape": [frames, width],
        "data_offsets": [0, 2 * frames * width],
    }
    text = json.dumps({TENSOR: tensor}).encode().ljust(_HEADER_BYTES - 8)
    return len(text).to_bytes(8, "little") + text


def map_part(path: Path, frames: int, width: int) -> np.ndarray:
    """The tensor of a part, memory-mapped read-only: float16 `[frames, width]`.

    Raises:
        ContractError: missing, truncated, or another tensor than expected.
    """
    offset = check_part(path, frames, width)
    if frames == 0:
        return np.empty((0, width), dtype=np.float16)
    mapped = np.memmap(path, dtype=np.float16, mode="r", offset=offset, shape=(frames, width))
    # A plain view: slicing a memmap object costs more than reading a short clip.
    return mapped.view(np.ndarray)


def check_part(path: Path, frames: int, width: int) -> int:
    """Check the header of a part against its file and the index; gives the tensor's offset."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # safetensors bounds its own headers by 100 MB; the file bounds them further.
            if size < 8 or length > min(size - 8, 100_000_000):
                raise ValueError("truncated header")
            header = json.loads(file.read(length))
        tensor = header[TENSOR]
        shape, offsets = tensor["shape"], tensor["data_offsets"]
    except FileNotFoundError:
        raise ContractError(f"missing part {path}", hint="extract again with --resume") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path} is damaged: {error!r}", hint=_REPAIR) from None
    if tensor.get("dtype") != "F16" or shape != [frames, width] or set(header) != {TENSOR}:
        raise ContractError(
            f"{path} holds {tensor.get('dtype')} {shape}, the index says F16 [{frames}, {width}]",
            hint=_REPAIR,
        )
    end = 2 * frames * width
    if frames < 0 or width < 1 or offsets != [0, end] or 8 + length + end != size:
        raise ContractError(
            f"{path} is truncated: {size} bytes instead of {8 + length + end}", hint=_REPAIR
        )
    return 8 + length


_REPAIR = "remove the file and extract again with --resume"
