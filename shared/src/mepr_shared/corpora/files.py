"""Replacing a file in one step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self


class replacing:
    """A temporary neighbour of a file that takes its place on `commit`.

    Attributes:
        path: write here.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Self:
        return self

    def commit(self) -> None:
        """Put the finished file in place; a reader sees the old one or the new one."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)

    def __exit__(self, *error: object) -> None:
        self.path.unlink(missing_ok=True)
