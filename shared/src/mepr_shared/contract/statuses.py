"""The words that say why a sample has data or has none."""

from __future__ import annotations

STATUSES = (
    "ok",
    "partial",
    "no_media",
    "no_video",
    "no_audio",
    "no_text",
    "no_face",
    "no_person",
    "too_short",
    "decode_error",
    "withdrawn",
)
WITH_DATA = ("ok", "partial")
WITHDRAWN = "withdrawn"
