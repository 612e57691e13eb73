"""The inputs of a corpus's clips as extractors take them, and the hashes that tell a change."""

from __future__ import annotations

import hashlib
import json

from mepr_shared.corpora.index import Corpus
from mepr_shared.plugin import ClipInput, Modality


def clip_inputs(corpus: Corpus, context_turns: int = 0) -> list[ClipInput]:
    """The inputs of every clip, in the corpus's order.

    Args:
        context_turns: how many preceding turns of the same `context_id` come with each clip.
    """
    table = corpus.table
    columns = {name: table[name].to_pylist() for name in ("text", "media", "start_s", "end_s")}
    contexts = _contexts(corpus, columns["text"], context_turns)
    return [
        ClipInput(
            sample_id=sample_id,
            text=columns["text"][row],
            context=contexts.get(row, ()),
            media=corpus.media_path(columns["media"][row]) if columns["media"][row] else None,
            start_s=columns["start_s"][row],
            end_s=columns["end_s"][row],
        )
        for row, sample_id in enumerate(corpus.sample_ids)
    ]


def input_sha256(corpus: Corpus, row: int, modality: Modality, clip: ClipInput) -> str:
    """Hash of everything of one clip that a modality reads."""
    parts = {kind: corpus.input_sha256(row, kind) for kind in modality.inputs}
    if clip.context:
        parts["context"] = json.dumps(clip.context)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _contexts(corpus: Corpus, texts: list[str | None], turns: int) -> dict[int, tuple[str, ...]]:
    if not turns:
        return {}
    dialogues: dict[str, list[tuple[int, int]]] = {}
    ids = corpus.table["context_id"].to_pylist()
    orders = corpus.table["context_order"].to_pylist()
    for row, (dialogue, order) in enumerate(zip(ids, orders, strict=True)):
        if dialogue is not None and order is not None:
            dialogues.setdefault(dialogue, []).append((order, row))
    contexts = {}
    for members in dialogues.values():
        rows = [row for _, row in sorted(members)]
        for position, row in enumerate(rows):
            before = rows[max(0, position - turns) : position]
            contexts[row] = tuple(text for r in before if (text := texts[r]))
    return contexts
