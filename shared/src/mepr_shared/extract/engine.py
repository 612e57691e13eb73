"""Runs an encoder over a corpus into a frame store: batched, resumable, nothing dropped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter
from mepr_shared.corpora.index import Corpus
from mepr_shared.plugin import ClipFeatures, ClipInput, Extractor, Modality

# Clips are sorted by cost inside windows of this many batches: little padding, and yet a part of
# the store closes regularly, which is what a resumed run falls back to.
WINDOW_BATCHES = 64


@dataclass
class ExtractionSummary:
    """What an extraction did.

    Attributes:
        store: the frame store's folder.
        statuses: clips per status, the ones found there included.
        extracted, reused: clips encoded now, and clips whose input had not changed.
        seconds: wall time of the encoding.
        problems: up to 20 `sample_id: reason` lines of clips that are not `ok`.
    """

    store: Path
    statuses: Counter[str] = field(default_factory=Counter)
    extracted: int = 0
    reused: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def extract_corpus(
    modality: Modality,
    extractor: Extractor,
    corpus: Corpus,
    store_root: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExtractionSummary:
    """Encode every clip of a corpus whose input is new or has changed.

    Args:
        on_progress: called with (clips done, clips to do).
    """
    clips = clip_inputs(corpus, int(extractor.spec["settings"].get("context_turns", 0)))
    started = time.perf_counter()
    with FrameStoreWriter(store_root, corpus.name, modality.name, extractor.spec) as writer:
        hashes = {
            clip.sample_id: _input_sha256(corpus, row, modality, clip)
            for row, clip in enumerate(clips)
        }
        todo = [c for c in clips if writer.done.get(c.sample_id) != hashes[c.sample_id]]
        done = 0
        for batch in _batches(todo, extractor):
            for clip, features in zip(batch, extractor.extract(batch), strict=True):
                _add(writer, clip, features, hashes[clip.sample_id])
            done += len(batch)
            if on_progress:
                on_progress(done, len(todo))
    return _summarise(writer.path, clips, len(todo), time.perf_counter() - started)


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


def _input_sha256(corpus: Corpus, row: int, modality: Modality, clip: ClipInput) -> str:
    parts = {kind: corpus.input_sha256(row, kind) for kind in modality.inputs}
    if clip.context:
        parts["context"] = json.dumps(clip.context)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _batches(clips: list[ClipInput], extractor: Extractor) -> Iterator[list[ClipInput]]:
    size = extractor.batch_clips
    for first in range(0, len(clips), size * WINDOW_BATCHES):
        window = sorted(clips[first : first + size * WINDOW_BATCHES], key=extractor.cost)
        for start in range(0, len(window), size):
            yield window[start : start + size]


def _add(writer: FrameStoreWriter, clip: ClipInput, features: ClipFeatures, sha256: str) -> None:
    if features.stream is not None:
        with writer.open_clip(clip.sample_id, input_sha256=sha256) as stream:
            for chunk in features.stream:
                stream.append(chunk)
            stream.row.status, stream.row.status_reason = features.status, features.reason or None
            stream.row.hop_s, stream.row.start_s = features.hop_s, clip.start_s
            stream.row.score = features.score
        return
    writer.add(
        clip.sample_id,
        input_sha256=sha256,
        frames=features.frames,
        status=features.status,
        reason=features.reason,
        mask=features.mask,
        hop_s=features.hop_s,
        start_s=clip.start_s,
        score=features.score,
    )


def _summarise(
    path: Path, clips: list[ClipInput], extracted: int, seconds: float
) -> ExtractionSummary:
    store = FrameStore.open(path)
    rows = store.row_of([clip.sample_id for clip in clips])
    summary = ExtractionSummary(
        path, Counter(store.status[rows].tolist()), extracted, len(clips) - extracted, seconds
    )
    for clip, row in zip(clips, rows, strict=True):
        if store.status[row] != "ok" and len(summary.problems) < 20:
            reason = store.status_reason[row] or ""
            summary.problems.append(f"{clip.sample_id}: {store.status[row]} {reason}".rstrip())
    return summary
