"""Corpora: the index of samples and labels, importers, and what is done to an index.

`Corpus`, `CorpusMeta` and `CorpusHashes` are loaded on first use, so that importing this package
costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mepr_shared.corpora.hashing import CorpusHashes
    from mepr_shared.corpora.index import Corpus, CorpusMeta

__all__ = ["Corpus", "CorpusHashes", "CorpusMeta"]

_HOMES = {"Corpus": "index", "CorpusMeta": "index", "CorpusHashes": "hashing"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
