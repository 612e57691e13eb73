"""Corpora: the index of samples and labels, importers, and what is done to an index.

`Corpus` and `CorpusMeta` are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mepr_shared.corpora.index import Corpus, CorpusHashes, CorpusMeta

__all__ = ["Corpus", "CorpusHashes", "CorpusMeta"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mepr_shared.corpora import index

        return getattr(index, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
