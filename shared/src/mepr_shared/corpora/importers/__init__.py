"""Importers: published corpora in their official files, and any table, to a corpus index.

Every importer module has `read(source, *, name, strict=False, ...) -> ImportResult`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from mepr_shared.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from mepr_shared.corpora.importers.report import ImportResult

# Name on the command line -> module, imported only when it is used.
IMPORTERS = {
    "fiv2": "mepr_shared.corpora.importers.fiv2",
    "meld": "mepr_shared.corpora.importers.meld",
    "mosei": "mepr_shared.corpora.importers.mosei",
    "ravdess": "mepr_shared.corpora.importers.ravdess",
    "table": "mepr_shared.corpora.importers.table",
}


def importer(name: str) -> Callable[..., ImportResult]:
    """The `read` function of an importer.

    Raises:
        DataError: no importer of that name.
    """
    if name not in IMPORTERS:
        raise DataError(f"no importer named {name!r}", hint=did_you_mean(name, IMPORTERS))
    return importlib.import_module(IMPORTERS[name]).read
