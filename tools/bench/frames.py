"""Frame store against a pickle per clip, and the writer's rate; side by side, medians.

`python tools/bench/frames.py` prints one row per measurement.
"""

from __future__ import annotations

import functools
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.contract.frames import FrameStore, FrameStoreWriter

REPEATS = 5
BATCH = 64
CLIPS = 1500
WRITTEN_BYTES = 1 << 30
# name, width D, shortest and longest clip in frames: sentence tokens, and 30 sampled frames
SHAPES = (("text 10-120 x 384", 384, 10, 120), ("image 30 x 512", 512, 30, 30))


def run() -> list[dict[str, Any]]:
    """Rows with `name, value, unit, reference, ratio`; `reference` is that of the slow form."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_reading(Path(folder), *shape) for shape in SHAPES]
        rows.append(_writing(Path(folder)))
    return rows


def _clips(width: int, shortest: int, longest: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    for number in range(CLIPS):
        frames = random.integers(shortest, longest + 1)
        yield f"clip-{number:05d}", random.standard_normal((frames, width), dtype=np.float32)


def _reading(folder: Path, name: str, width: int, shortest: int, longest: int) -> dict[str, Any]:
    pickles = folder / f"pickles-{width}"
    pickles.mkdir()
    with FrameStoreWriter(folder, "bench", f"width-{width}", {"width": width}) as writer:
        for sample_id, frames in _clips(width, shortest, longest):
            writer.add(sample_id, input_sha256="", frames=frames)
            (pickles / f"{sample_id}.pickle").write_bytes(pickle.dumps(frames))
    store = FrameStore.open(writer.path)
    orders = [np.random.default_rng(seed).permutation(CLIPS) for seed in range(REPEATS)]
    ours, theirs = [], []
    for order in orders:
        batches = [order[i : i + BATCH] for i in range(0, CLIPS, BATCH)]
        ours.append(_seconds_each(store.batch, batches))
        paths = [[pickles / f"clip-{row:05d}.pickle" for row in rows] for rows in batches]
        theirs.append(_seconds_each(_pickled_batch, paths))
    value, reference = CLIPS / statistics.median(ours), CLIPS / statistics.median(theirs)
    return {
        "name": f"shuffled epoch, batches of {BATCH}, {name}, against a pickle per clip",
        "value": round(value),
        "unit": "clips/s",
        "reference": round(reference),
        "ratio": round(value / reference, 2),
    }


def _pickled_batch(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    clips = []
    for path in paths:
        with path.open("rb") as file:
            clips.append(pickle.load(file))
    lengths = np.array([len(clip) for clip in clips])
    frames = np.zeros((len(clips), lengths.max(), clips[0].shape[1]), dtype=np.float32)
    for place, clip in enumerate(clips):
        frames[place, : len(clip)] = clip
    return frames, np.arange(lengths.max()) < lengths[:, None]


def _writing(folder: Path) -> dict[str, Any]:
    clips = [clip for _, clip in _clips(384, 10, 120)]
    size = sum(clip.nbytes for clip in clips)
    rounds = -(-WRITTEN_BYTES // size)

    def write(attempt: int) -> None:
        with FrameStoreWriter(folder, "bench", "written", {"attempt": attempt}) as writer:
            for number in range(rounds):
                for place, clip in enumerate(clips):
                    writer.add(f"{number}-{place}", input_sha256="", frames=clip)

    seconds = [_seconds(functools.partial(write, attempt)) for attempt in range(3)]
    rate = rounds * size / 1e6 / statistics.median(seconds)
    return {
        "name": "writer, float32 input with cast, finite check, sha256, fsync",
        "value": round(rate),
        "unit": "MB/s",
        "reference": 250,
        "ratio": round(rate / 250, 2),
    }


def _seconds_each(work: Callable[[Any], object], items: list[Any]) -> float:
    # Results are dropped at once, as in training; keeping them would measure page faults.
    start = time.perf_counter()
    for item in items:
        work(item)
    return time.perf_counter() - start


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['name']}: {row['value']} {row['unit']} ({row['ratio']}x {row['reference']})")


if __name__ == "__main__":
    main()
