"""Files that survive a crash: hashes, atomic writes, and paths that stay inside their folder.

Every write of the contract goes through `flush`, `replace` and `rename_directory`, so that a test
can fail each of them in turn.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mepr_shared.errors import ContractError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling per value: sorted keys, no spaces, UTF-8, NaN refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_unchanged(path: Path) -> str:
    """Hex SHA-256 of a file's bytes; remembered while its size and time stay the same, so that
    what was checked when it was chosen is not read again when it is used."""
    stat = path.stat()
    return _remembered(str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=65536)
def _remembered(path: str, size: int, modified_ns: int, inode: int) -> str:
    return sha256_file(Path(path))


def flush(file: IO[bytes]) -> None:
    """Bytes of an open file onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Names in a directory onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """`source` becomes `target` in one step; a file that was there is replaced."""
    os.replace(source, target)
    flush_directory(target.parent)


def rename_directory(source: Path, target: Path) -> None:
    """`source` becomes `target` in one step.

    Raises:
        FileExistsError: `target` is there and not empty.
    """
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, os.strerror(error.errno), str(target)) from None
        raise
    flush_directory(target.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """The whole of `data`, on the disk, or nothing: no reader ever sees a part of it."""
    unfinished = path.with_name(f".{path.name}.partial")
    with unfinished.open("wb") as file:
        file.write(data)
        flush(file)
    replace(unfinished, path)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, written atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the operating system into one line that names `path`."""
    try:
        yield
    except OSError as error:
        hint = "check the folder and its permissions"
        if error.errno in _DISK_FULL:
            hint = "free some space and run the same command again"
        raise ContractError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error


def take_lock(path: Path) -> IO[bytes]:
    """Hold a lock file until it is closed or the process ends, however it ends.

    A POSIX record lock: it keeps other processes out, also over NFS, not this one.

    Raises:
        ContractError: another process holds it.
    """
    file = path.open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise ContractError(
            f"another process is writing {path.parent}", hint="wait until it has ended"
        ) from None
    return file


def checked_name(name: str, what: str) -> str:
    """A corpus, modality or alias name that is safe as one path component.

    Raises:
        ContractError: empty, starts with a dot, or holds a separator.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\:\0"):
        raise ContractError(
            f"{name!r} cannot be a {what}",
            hint="use a name without slashes, colons or a leading dot",
        )
    return name


def path_inside(root: Path, relative: str) -> Path:
    """The file that a manifest names, if it lies inside `root`.

    Raises:
        ContractError: absolute, `..`, a drive or backslash, or a link that leads out.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative:
        raise ContractError(f"{root}: unsafe path in the manifest: {relative!r}")
    if not pure.parts:
        raise ContractError(f"{root}: empty path in the manifest")
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise ContractError(f"{root}: {relative!r} is a link that leads out of the folder")
    return path
