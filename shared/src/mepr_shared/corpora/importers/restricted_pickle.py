"""Read pickles made by others without running what is in them.

A pickle can name any importable callable and have it called. This unpickler makes only NumPy's
scalars, sets and ordered dicts; other containers, text and numbers need no name at all.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.errors import DataError

MAX_BYTES = 256 << 20


def load(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """The content of a pickle of plain containers, text, numbers and NumPy scalars.

    Bytes strings written by Python 2 are decoded as latin1.

    Raises:
        DataError: no such file, larger than `max_bytes`, broken, or naming a foreign class.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise DataError(f"{path} is larger than {max_bytes >> 20} MiB, not read")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _Foreign as error:
        raise DataError(
            f"{path} names {error}, which is neither a plain container nor a NumPy scalar",
            hint="refused: such a pickle can run code; get the official file",
        ) from None
    except MemoryError:
        raise DataError(f"{path} asks for more memory than there is: not a label file") from None
    except _BROKEN as error:
        what = str(error) or type(error).__name__
        raise DataError(f"{path} is not a readable pickle: {what}") from None


class _Foreign(Exception):
    pass


class _Reconstruction:
    """A callable for the unpickler. It has no attributes, and a pickle cannot set any."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Foreign("a changed reconstruction function")


class _Type:
    """A NumPy type as a pickle describes it, not yet trusted."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "="):
            self.code = state[1] + self.code
        elif not isinstance(state, tuple) or state[1:2] != ("|",):
            raise _Foreign(f"a NumPy type with the state {state!r}")


class _MakeType(_Reconstruction):
    __slots__ = ()

    def __call__(self, code: Any = None, *_flags: Any) -> _Type:
        if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
            raise _Foreign(f"the NumPy type {code!r}")
        return _Type(code)


class _MakeScalar(_Reconstruction):
    __slots__ = ()

    def __call__(self, kind: Any = None, data: Any = None) -> Any:
        if not isinstance(kind, _Type):
            raise _Foreign("a NumPy scalar of no plain type")
        if isinstance(data, str):  # Python 2 wrote bytes as text
            data = data.encode("latin1")
        if not isinstance(data, bytes) or len(data) != np.dtype(kind.code).itemsize:
            raise _Foreign("a NumPy scalar without its bytes")
        return np.frombuffer(data, dtype=kind.code)[0]


class _Encode(_Reconstruction):
    """`_codecs.encode`, by which protocol 2 writes bytes; latin1 only."""

    __slots__ = ()

    def __call__(self, text: Any = None, encoding: Any = None) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise _Foreign(f"_codecs.encode with {encoding!r}")
        return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "scalar"): _MakeScalar(),
    ("numpy._core.multiarray", "scalar"): _MakeScalar(),
    ("numpy", "dtype"): _MakeType(),
    ("_codecs", "encode"): _Encode(),
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("collections", "OrderedDict"): dict,
}
# What the standard unpickler raises on bytes that are no pickle.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Foreign(f"the persistent object {pid!r}")
