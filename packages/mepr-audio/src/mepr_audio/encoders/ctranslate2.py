"""Reads the weights of a CTranslate2 model, so that Whisper models packed for faster-whisper
serve as encoders too, on any device and with every hidden layer.

The format is that of `ctranslate2.specs.ModelSpec.save`: a version, the name of the specification,
its revision, the variables (name, shape, type, bytes), and other names of the same variables,
all little-endian. Plain data: nothing in it is executed.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mepr_shared.errors import ConfigError

# Type numbers of the format. bfloat16 (5) has no NumPy type and is widened by hand.
_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "<u2"}
_BFLOAT16 = 5
_VERSIONS = range(4, 7)
_MOST_VARIABLES, _LONGEST_NAME = 100_000, 4096


def read_spec(file: Path) -> str:
    """The name of the specification, e.g. `WhisperSpec`.

    Raises:
        ConfigError: not a CTranslate2 model.
    """
    with file.open("rb") as stream:
        return _header(stream, file)


def read_weights(file: Path, prefix: str) -> dict[str, np.ndarray]:
    """Variables whose name begins with `prefix`, as float32 and without the prefix.

    Quantised weights (int8, int16) are multiplied out with their scales.

    Raises:
        ConfigError: not such a file, truncated, or of a version or type not known here.
    """
    with file.open("rb") as stream:
        variables = _index(stream, file)
        found = {
            name.removeprefix(prefix): variable.read(stream, file)
            for name, variable in variables.items()
            if name.startswith(prefix)
        }
    return {
        name: _dequantised(values, found.get(f"{name}_scale"))
        for name, values in found.items()
        if not name.endswith("_scale")
    }


@dataclass(frozen=True)
class _Variable:
    """Where a variable's values are."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    length: int

    def read(self, stream: IO[bytes], file: Path) -> np.ndarray:
        """Its values as float32."""
        stream.seek(self.offset)
        values = np.frombuffer(stream.read(self.length), _TYPES[self.kind])
        if values.size != math.prod(self.shape):
            raise ConfigError(f"{file} is damaged: {self.name!r} has {values.size} values")
        if self.kind == _BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32).reshape(self.shape)


def _index(stream: IO[bytes], file: Path) -> dict[str, _Variable]:
    """All variables by name; those of equal content are stored once and have several names."""
    size = file.stat().st_size
    _header(stream, file)
    _unpack(stream, "I", file)  # revision
    found: dict[str, _Variable] = {}
    for _ in range(_count(stream, file)):
        name = _text(stream, file)
        shape = tuple(_unpack(stream, "I", file) for _ in range(_unpack(stream, "B", file)))
        kind, length = _unpack(stream, "B", file), _unpack(stream, "I", file)
        offset = stream.tell()
        if kind not in _TYPES or offset + length > size:
            raise ConfigError(f"{file} is truncated or damaged at {name!r}")
        found[name] = _Variable(name, shape, kind, offset, length)
        stream.seek(length, 1)
    for _ in range(_count(stream, file)):
        alias, name = _text(stream, file), _text(stream, file)
        if name not in found:
            raise ConfigError(
                f"{file} is damaged: {alias!r} stands for {name!r}, which is not there"
            )
        found[alias] = found[name]
    return found


def _count(stream: IO[bytes], file: Path) -> int:
    count = _unpack(stream, "I", file)
    if count > _MOST_VARIABLES:
        raise ConfigError(f"{file} is damaged: {count} variables")
    return count


def _dequantised(values: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    if scale is None:
        return values
    return values / scale.reshape(-1, *[1] * (values.ndim - 1))


def _header(stream: IO[bytes], file: Path) -> str:
    version = _unpack(stream, "I", file)
    if version not in _VERSIONS:
        raise ConfigError(f"{file} is no CTranslate2 model of a known version ({version})")
    return _text(stream, file)


def _text(stream: IO[bytes], file: Path) -> str:
    length = _unpack(stream, "H", file)
    raw = stream.read(length)
    if len(raw) < length or not 0 < length <= _LONGEST_NAME:
        raise ConfigError(f"{file} is truncated or damaged")
    return raw[:-1].decode("utf-8", "replace")


def _unpack(stream: IO[bytes], kind: str, file: Path) -> int:
    raw = stream.read(struct.calcsize("<" + kind))
    if len(raw) < struct.calcsize("<" + kind):
        raise ConfigError(f"{file} is truncated")
    return int(struct.unpack("<" + kind, raw)[0])
