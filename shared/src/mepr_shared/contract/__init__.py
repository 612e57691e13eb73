"""The on-disk contract: frame stores and exports. Imports no torch.

The most used names are loaded when first asked for, so that importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mepr_shared.contract.frames import FrameStore, FrameStoreWriter, store_key
    from mepr_shared.contract.reader import Export
    from mepr_shared.contract.schema import EmotionOutput, EncoderRef, ModelInfo
    from mepr_shared.contract.statuses import STATUSES
    from mepr_shared.contract.writer import ExportInfo, ExportWriter

__all__ = [
    "STATUSES",
    "EmotionOutput",
    "EncoderRef",
    "Export",
    "ExportInfo",
    "ExportWriter",
    "FrameStore",
    "FrameStoreWriter",
    "ModelInfo",
    "store_key",
]

_HOMES = {
    "STATUSES": "statuses",
    "EmotionOutput": "schema",
    "EncoderRef": "schema",
    "Export": "reader",
    "ExportInfo": "writer",
    "ExportWriter": "writer",
    "FrameStore": "frames",
    "FrameStoreWriter": "frames",
    "ModelInfo": "schema",
    "store_key": "frames",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
