"""Texts that are nearly the same, found without comparing all pairs.

MinHash over word triples with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets,
ch. 3) proposes pairs; the exact Jaccard similarity of their triples decides.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

SHINGLE = 3
BANDS, ROWS = 16, 4  # a pair at similarity 0.8 is missed with probability 2e-4
MAX_BUCKET = 200


def near_duplicate_pairs(
    texts: Sequence[str], *, threshold: float = 0.8
) -> list[tuple[int, int, float]]:
    """Pairs of positions whose texts share at least `threshold` of their word triples.

    Args:
        texts: distinct texts; identical ones would all be paired with each other.
        threshold: Jaccard similarity in (0, 1].

    Returns:
        `(first, second, similarity)` with first < second, ascending.
    """
    shingles = [_shingles(text) for text in texts]
    found = []
    for first, second in _candidates(shingles):
        a, b = shingles[first], shingles[second]
        shared = len(np.intersect1d(a, b, assume_unique=True))
        similarity = shared / (len(a) + len(b) - shared)
        if similarity >= threshold:
            found.append((first, second, float(similarity)))
    return sorted(found)


def normalise(text: str) -> str:
    """Lower-case words, punctuation gone: what makes two texts identical."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _shingles(text: str) -> np.ndarray:
    words = normalise(text).split()
    parts = [words[i : i + SHINGLE] for i in range(max(1, len(words) - SHINGLE + 1))]
    return np.unique(np.array([_hash(" ".join(part)) for part in parts], dtype=np.uint64))


def _hash(text: str) -> int:
    # The same on every run, unlike hash().
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _candidates(shingles: list[np.ndarray]) -> Iterator[tuple[int, int]]:
    if not shingles:
        return
    starts = np.concatenate([[0], np.cumsum([len(s) for s in shingles])[:-1]]).astype(np.int64)
    flat = np.concatenate(shingles)
    generator = np.random.default_rng(0)
    seen: set[tuple[int, int]] = set()
    for _ in range(BANDS):
        band = np.zeros(len(shingles), dtype=np.uint64)
        for _ in range(ROWS):
            factor, offset = generator.integers(1, 2**63, size=2, dtype=np.uint64)
            mixed = flat * (factor | np.uint64(1)) + offset
            # The upper half of a product is well mixed, the lower is not.
            smallest = np.minimum.reduceat(mixed >> np.uint64(32), starts)
            band = band * np.uint64(0x9E3779B97F4A7C15) + smallest
        buckets = defaultdict(list)
        for position, key in enumerate(band.tolist()):
            buckets[key].append(position)
        for members in buckets.values():
            for pair in combinations(members[:MAX_BUCKET], 2):
                if pair not in seen:
                    seen.add(pair)
                    yield pair
