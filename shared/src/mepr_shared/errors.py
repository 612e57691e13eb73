"""Errors a user can act on, and the one way to ask for an optional dependency."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class MeprError(Exception):
    """A known problem. The command line prints it as one line and exits with `exit_code`.

    Args:
        message: what is wrong and where (file, row, field).
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(MeprError):
    """A configuration key or value that cannot be used."""


class DataError(MeprError):
    """Input data (corpus, media, labels) that cannot be used."""


class ContractError(MeprError):
    """A file on disk that breaks the contract: corrupt, incomplete, too new, or mismatched."""


class MissingDependency(MeprError):
    """An optional package that the asked-for feature needs."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency or say how to install it.

    Args:
        module: the import name, e.g. `"optuna"`.
        extra: the requirement that brings it, e.g. `"mepr-shared[search]"`.

    Raises:
        MissingDependency: with the exact pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"this needs the package {module!r}: {error}", hint=f"pip install '{extra}'"
        ) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known words, or all of them when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + ", ".join(known)
