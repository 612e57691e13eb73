"""One pass over videos for every modality that looks at them.

A clip is opened and decoded once, faces are sought once, and the crops of all modalities and
clips that go to the same encoder share its batches. A modality run by itself takes this very path.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mepr_shared.plugin import ClipFeatures, ClipInput, Work
from mepr_shared.vision.encoders import ImageEncoder, Readout
from mepr_shared.vision.settings import FrameRequest
from mepr_shared.vision.sight import Sight, decode
from mepr_shared.vision.types import ClipFrames, Regions

# Crops that wait for an encoder before it is run: 128 of 224 x 224 pixels are 19 MB.
QUEUED_CROPS = 128
MOST_WORKERS = 8
# Clips of fewer frames (pictures) are looked at together up to this many.
GROUPED_FRAMES = 32
# (the clip and who wants it, extractor's name, its frames, the regions in them)
Watch = Callable[[Work, str, ClipFrames, Regions], None]


@dataclass
class VisualExtractor:
    """Features `[T, D]` of the regions a modality looks at; a `mepr_shared.plugin.Extractor`.

    Attributes:
        sight: from a file to crops.
        encoder: the image encoder; one object for all modalities that use the same weights.
        readout: what is read from it.
        spec: everything that determines the features.
        workers: clips decoded side by side; 0 = as many as there are cores.
        batch: crops in one forward pass; 0 = what suits the device.
        batch_clips: clips that one call of `extract` should be given.
    """

    sight: Sight
    encoder: ImageEncoder
    readout: Readout
    spec: Mapping[str, Any]
    workers: int = 0
    batch: int = 0
    batch_clips: int = 16

    def extract(self, clips: Sequence[ClipInput]) -> list[ClipFeatures]:
        """Features of each clip, in order; a status where there is nothing to see."""
        work = [Work(clip, ("alone",)) for clip in clips]
        return [found["alone"] for _, found in OnePass({"alone": self}).run(work)]

    def one_pass(self, extractors: Mapping[str, VisualExtractor]) -> OnePass:
        """One pass over the files for several visual modalities."""
        return OnePass(extractors)

    def cost(self, clip: ClipInput) -> float:
        """All alike: the number of frames is the same for long clips and short ones."""
        return 1.0


@dataclass
class _Open:
    """A clip of which features are still being computed."""

    work: Work
    features: dict[str, ClipFeatures] = field(default_factory=dict)
    vectors: dict[str, list[np.ndarray | None]] = field(default_factory=dict)
    waiting: int = 0

    def finished(self) -> dict[str, ClipFeatures]:
        for name, vectors in self.vectors.items():
            known = next(vector for vector in vectors if vector is not None)
            blank = np.zeros_like(known)
            self.features[name].frames = np.stack([blank if v is None else v for v in vectors])
        return self.features


@dataclass(frozen=True)
class _Decoded:
    """A clip's frames by request, and how long they took."""

    frames: dict[FrameRequest, ClipFrames]
    seconds: float


@dataclass(frozen=True)
class _Queued:
    """A crop on its way to an encoder."""

    crop: np.ndarray
    readout: Readout
    clip: _Open
    name: str
    frame: int


class OnePass:
    """Runs several visual extractors over clips.

    Args:
        extractors: by name.
        workers: clips decoded side by side; 0 = as many as there are cores, at most 8. Threads:
            FFmpeg and the networks work outside the interpreter's lock, and frames need not be
            copied between processes.

    Attributes:
        seconds: what the parts took so far: `decode` (in all workers together), `wait` (for it),
            `look` (detection), `crop`, `encode`.
        decoded: how often a file was opened and decoded.
        watch: is told, where it is set, what each extractor looked at in each clip.
    """

    def __init__(self, extractors: Mapping[str, VisualExtractor], *, workers: int = 0) -> None:
        self.extractors = dict(extractors)
        asked = workers or max(e.workers for e in extractors.values())
        self.workers = asked or min(os.cpu_count() or 1, MOST_WORKERS)
        self.seconds = dict.fromkeys(("decode", "wait", "look", "crop", "encode"), 0.0)
        self.decoded = 0
        self.watch: Watch | None = None
        self._queues: dict[int, list[_Queued]] = {}

    def run(self, work: Iterable[Work]) -> Iterator[tuple[Work, dict[str, ClipFeatures]]]:
        """Features by extractor's name for every clip, in order."""
        opened: deque[_Open] = deque()
        for group in _grouped(self._decoded(work)):
            self._prepare(group)
            opened.extend(self._look(item, frames) for item, frames in group)
            for queue in self._queues.values():
                if len(queue) >= QUEUED_CROPS:
                    self._encode(queue)
            while opened and not opened[0].waiting:
                ready = opened.popleft()
                yield ready.work, ready.finished()
        for queue in self._queues.values():
            self._encode(queue)
        for ready in opened:
            yield ready.work, ready.finished()

    def _decoded(
        self, work: Iterable[Work]
    ) -> Iterator[tuple[Work, dict[FrameRequest, ClipFrames]]]:
        """Clips with their frames, in order; a few are decoded ahead."""
        pending: deque[tuple[Work, Future[_Decoded]]] = deque()
        source = iter(work)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            try:
                while True:
                    while len(pending) <= self.workers and (item := next(source, None)) is not None:
                        pending.append((item, pool.submit(self._decode, item)))
                    if not pending:
                        return
                    item, future = pending.popleft()
                    started = time.perf_counter()
                    decoded = future.result()
                    self.seconds["wait"] += time.perf_counter() - started
                    self.seconds["decode"] += decoded.seconds
                    self.decoded += len(decoded.frames)
                    yield item, decoded.frames
            finally:
                for _, future in pending:
                    future.cancel()

    def _decode(self, item: Work) -> _Decoded:
        started = time.perf_counter()
        requests = dict.fromkeys(self.extractors[name].sight.request for name in item.names)
        frames = {request: decode(item.clip, request) for request in requests}
        return _Decoded(frames, time.perf_counter() - started)

    def _prepare(self, group: Sequence[tuple[Work, Mapping[FrameRequest, ClipFrames]]]) -> None:
        """Detect in all clips of a group at once."""
        started = time.perf_counter()
        for name, extractor in self.extractors.items():
            sight = extractor.sight
            sight.view.prepare([f[sight.request] for item, f in group if name in item.names])
        self.seconds["look"] += time.perf_counter() - started

    def _look(self, item: Work, frames: Mapping[FrameRequest, ClipFrames]) -> _Open:
        opened = _Open(item)
        for name in item.names:
            extractor = self.extractors[name]
            clip = frames[extractor.sight.request]
            started = time.perf_counter()
            regions = extractor.sight.view.look(clip)
            looked = time.perf_counter()
            self.seconds["look"] += looked - started
            if self.watch:
                self.watch(item, name, clip, regions)
            opened.features[name] = described(clip, regions)
            if regions.mask.any():
                crops = extractor.sight.crops(clip, regions)
                self._queue(opened, name, crops)
            self.seconds["crop"] += time.perf_counter() - looked
        return opened

    def _queue(self, opened: _Open, name: str, crops: Sequence[np.ndarray | None]) -> None:
        extractor = self.extractors[name]
        queue = self._queues.setdefault(id(extractor.encoder), [])
        opened.vectors[name] = [None] * len(crops)
        for frame, crop in enumerate(crops):
            if crop is not None:
                queue.append(_Queued(crop, extractor.readout, opened, name, frame))
                opened.waiting += 1

    def _encode(self, queue: list[_Queued]) -> None:
        if not queue:
            return
        started = time.perf_counter()
        extractor = self.extractors[queue[0].name]
        images = np.stack([item.crop for item in queue])
        readouts = [item.readout for item in queue]
        vectors = extractor.encoder.encode(images, readouts, batch=extractor.batch or "auto")
        for item, vector in zip(queue, vectors, strict=True):
            item.clip.vectors[item.name][item.frame] = vector
            item.clip.waiting -= 1
        queue.clear()
        self.seconds["encode"] += time.perf_counter() - started


def _grouped(
    decoded: Iterable[tuple[Work, dict[FrameRequest, ClipFrames]]],
) -> Iterator[list[tuple[Work, dict[FrameRequest, ClipFrames]]]]:
    """Clips of a few frames together: detectors work on batches of pictures."""
    group: list[tuple[Work, dict[FrameRequest, ClipFrames]]] = []
    count = 0
    for item, frames in decoded:
        more = sum(len(clip.images) for clip in frames.values())
        if group and count + more > GROUPED_FRAMES:
            yield group
            group, count = [], 0
        group.append((item, frames))
        count += more
    if group:
        yield group


def described(clip: ClipFrames, regions: Regions) -> ClipFeatures:
    """Everything about a clip's features but the features."""
    features = ClipFeatures(None, regions.status, regions.reason)
    if regions.mask.any():
        features.mask = regions.mask
        features.time_s = clip.time_s
        features.frame_score = np.where(regions.mask, regions.scores, 0).astype(np.float32)
        features.score = float(regions.scores[regions.mask].mean())
    return features
