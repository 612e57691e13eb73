"""Runs encoders over a corpus into frame stores: batched, resumable, nothing dropped.

Modalities that look at videos share one pass over the files; the others take turns.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter
from mepr_shared.corpora.index import Corpus
from mepr_shared.extract.inputs import clip_inputs, input_sha256
from mepr_shared.plugin import ClipFeatures, ClipInput, Extractor, Modality, SharesPass, Work

# Clips are sorted by cost inside windows of this many batches: little padding, and yet a part of
# the store closes regularly, which is what a resumed run falls back to.
WINDOW_BATCHES = 64
Progress = Callable[[int, int], None]


@dataclass
class ExtractionSummary:
    """What an extraction did.

    Attributes:
        store: the frame store's folder.
        statuses: clips per status, the ones found there included.
        extracted, reused: clips encoded now, and clips whose input had not changed.
        seconds: wall time of the encoding; of all modalities together where they shared a pass.
        parts: what a shared pass spent on what, in s.
        problems: up to 20 `sample_id: reason` lines of clips that are not `ok`.
    """

    store: Path
    statuses: Counter[str] = field(default_factory=Counter)
    extracted: int = 0
    reused: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def extract_corpus(
    modality: Modality,
    extractor: Extractor,
    corpus: Corpus,
    store_root: Path,
    *,
    on_progress: Progress | None = None,
) -> ExtractionSummary:
    """Encode every clip of a corpus whose input is new or has changed.

    Args:
        on_progress: called with (clips done, clips to do).
    """
    pairs = [(modality, extractor)]
    return extract_together(pairs, corpus, store_root, on_progress=on_progress)[0]


def extract_together(
    pairs: Sequence[tuple[Modality, Extractor]],
    corpus: Corpus,
    store_root: Path,
    *,
    on_progress: Progress | None = None,
) -> list[ExtractionSummary]:
    """`extract_corpus` for several modalities; gives their summaries in the same order."""
    with contextlib.ExitStack() as stack:
        tasks = [_Task(m, e, corpus, store_root, stack) for m, e in pairs]
        total, done = sum(len(task.todo) for task in tasks), 0
        shared = [task for task in tasks if isinstance(task.extractor, SharesPass)]
        others = ([task] for task in tasks if task not in shared)
        for group in ([shared] if shared else []) + list(others):
            parts: dict[str, float] = {}
            started = time.perf_counter()
            for finished in _sharing(group, parts) if group is shared else _alone(group[0]):
                done += finished
                if on_progress:
                    on_progress(done, total)
            for task in group:
                task.seconds, task.parts = time.perf_counter() - started, parts
    return [task.summary() for task in tasks]


class _Task:
    """One modality's part of an extraction."""

    def __init__(
        self,
        modality: Modality,
        extractor: Extractor,
        corpus: Corpus,
        store_root: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self.name, self.extractor = modality.name, extractor
        self.seconds, self.parts = 0.0, dict[str, float]()
        self.clips = clip_inputs(corpus, int(extractor.spec["settings"].get("context_turns", 0)))
        self.writer = stack.enter_context(
            FrameStoreWriter(store_root, corpus.name, modality.name, extractor.spec)
        )
        self._hashes = {
            clip.sample_id: input_sha256(corpus, row, modality, clip)
            for row, clip in enumerate(self.clips)
        }
        self.todo = [
            c for c in self.clips if self.writer.done.get(c.sample_id) != self._hashes[c.sample_id]
        ]

    def add(self, clip: ClipInput, features: ClipFeatures) -> None:
        """Write one clip's features."""
        sha256 = self._hashes[clip.sample_id]
        if features.stream is None:
            self.writer.add(
                clip.sample_id,
                input_sha256=sha256,
                frames=features.frames,
                status=features.status,
                reason=features.reason,
                mask=features.mask,
                hop_s=features.hop_s,
                start_s=clip.start_s,
                score=features.score,
                frame_score=features.frame_score,
                time_s=features.time_s,
            )
            return
        with self.writer.open_clip(clip.sample_id, input_sha256=sha256) as stream:
            for chunk in features.stream:
                stream.append(chunk)
            stream.row.status, stream.row.status_reason = features.status, features.reason or None
            stream.row.hop_s, stream.row.start_s = features.hop_s, clip.start_s
            stream.row.score = features.score

    def summary(self) -> ExtractionSummary:
        """What was done, read back from the finished store."""
        store = FrameStore.open(self.writer.path)
        rows = store.row_of([clip.sample_id for clip in self.clips])
        summary = ExtractionSummary(
            self.writer.path,
            Counter(store.status[rows].tolist()),
            len(self.todo),
            len(self.clips) - len(self.todo),
            self.seconds,
            self.parts,
        )
        for clip, row in zip(self.clips, rows, strict=True):
            if store.status[row] != "ok" and len(summary.problems) < 20:
                reason = store.status_reason[row] or ""
                summary.problems.append(f"{clip.sample_id}: {store.status[row]} {reason}".rstrip())
        return summary


def _alone(task: _Task) -> Iterator[int]:
    """Encode one modality's clips batch by batch; gives how many were finished."""
    for batch in _batches(task.todo, task.extractor):
        for clip, features in zip(batch, task.extractor.extract(batch), strict=True):
            task.add(clip, features)
        yield len(batch)


def _batches(clips: list[ClipInput], extractor: Extractor) -> Iterator[list[ClipInput]]:
    size = extractor.batch_clips
    for first in range(0, len(clips), size * WINDOW_BATCHES):
        window = sorted(clips[first : first + size * WINDOW_BATCHES], key=extractor.cost)
        for start in range(0, len(window), size):
            yield window[start : start + size]


def _sharing(tasks: Sequence[_Task], parts: dict[str, float]) -> Iterator[int]:
    """Encode clips for several modalities in one pass; gives how many were finished."""
    extractors = {t.name: t.extractor for t in tasks}
    wanted = {task.name: {clip.sample_id for clip in task.todo} for task in tasks}
    work = [
        Work(clip, names)
        for clip in tasks[0].clips
        if (names := tuple(name for name, ids in wanted.items() if clip.sample_id in ids))
    ]
    first = tasks[0].extractor
    assert isinstance(first, SharesPass)
    one_pass = first.one_pass(extractors)
    for item, found in one_pass.run(work):
        for task in tasks:
            if task.name in found:
                task.add(item.clip, found[task.name])
        yield len(found)
    parts.update(one_pass.seconds)
