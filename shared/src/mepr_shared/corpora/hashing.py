"""What identifies a corpus: hashes of its samples, inputs and labels.

Definitions (so that another language can recompute them). `json(x)` is JSON without spaces, keys
sorted, non-ASCII kept, UTF-8.

* `samples_sha256` = sha256 of `json([ids, splits, sources])`
* `inputs_sha256["text"]` = sha256 of `json([ids, texts])`
* `inputs_sha256["media"]` = sha256 of `json([ids, media paths, start_s, end_s])`
* `labels_sha256` = sha256 of `json([ids, emotion kind, maximum, present_above, emotion order,
  trait order])`, then the emotions `[N, 7]` and the traits `[N, 5]` as little-endian float32 with
  the NaN 0x7fc00000 for what is missing.

Rows are in the order of `sample_id`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mepr_shared.corpora.columns import label_matrix
from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale


@dataclass(frozen=True)
class CorpusHashes:
    """Hex sha256 of who the samples are, what goes into an encoder, and what is to be learned."""

    samples_sha256: str
    inputs_sha256: dict[str, str]
    labels_sha256: str


def corpus_hashes(table: pa.Table, scale: EmotionScale) -> CorpusHashes:
    """The hashes of an index whose rows are sorted by `sample_id`."""
    columns = {name: table[name].to_pylist() for name in _HASHED}
    ids = columns["sample_id"]
    labels = hashlib.sha256(
        canonical_json(
            [ids, scale.kind, float(scale.maximum), float(scale.present_above), EMOTIONS, TRAITS]
        )
    )
    for name, width in (("emotion", len(EMOTIONS)), ("traits", len(TRAITS))):
        matrix = label_matrix(table[name], width)
        matrix[np.isnan(matrix)] = np.nan
        labels.update(matrix.astype("<f4").tobytes())
    media = [columns[name] for name in ("media", "start_s", "end_s")]
    return CorpusHashes(
        samples_sha256=sha256_json([ids, columns["split"], columns["source_id"]]),
        inputs_sha256={
            "text": sha256_json([ids, columns["text"]]),
            "media": sha256_json([ids, *media]),
        },
        labels_sha256=labels.hexdigest(),
    )


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes; remembered while its size and time stay the same."""
    stat = path.stat()
    return _file_sha256(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=65536)
def _file_sha256(path: str, size: int, modified_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON that is the same wherever it is made."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("utf-8", "surrogatepass")


def sha256_json(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


_HASHED = ("sample_id", "split", "source_id", "media", "start_s", "end_s", "text")
