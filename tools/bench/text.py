"""Extraction of text features beside sentence-transformers' own `encode`, same texts and weights.

Ours includes reading, hashing and writing the frame store. Every measurement is a process of its
own, and they take turns. Texts are FIv2's validation transcripts where MEPR_REAL_DATA points to
them, and else those of the demo corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 3
CLIPS = 1000
LIMIT_MEGABYTES = 3 * 1024
THEIRS = "sentence-transformers"
# What is measured -> changes to the small profile's [encoder] table.
OURS: dict[str, dict[str, Any]] = {
    "profile small": {},
    "all layers": {"layers": ()},
}


def run() -> list[dict[str, Any]]:
    """Rows of clips per second beside `encode`'s, and of the peak of the resident set."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(Path(folder))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, THEIRS)}
        for _ in range(ROUNDS):
            for name, results in found.items():
                results.append(_in_process(name, corpus))
    rate = {name: statistics.median(r["rate"] for r in found[name]) for name in found}
    memory = {name: max(r["megabytes"] for r in found[name]) for name in found}
    source = corpus.stem
    rows = [
        {
            "name": f"text extraction of {source}, {name}, against sentence-transformers' encode",
            "value": rate[name],
            "unit": "clips/s",
            "reference": rate[THEIRS],
            "ratio": rate[name] / rate[THEIRS],
        }
        for name in OURS
    ]
    worst = max(memory[name] for name in OURS)
    rows.append(
        {
            "name": f"text extraction of {source}, peak memory",
            "value": worst,
            "unit": "MB",
            "reference": LIMIT_MEGABYTES,
            "ratio": LIMIT_MEGABYTES / worst,
        }
    )
    return rows


def _corpus(folder: Path) -> Path:
    from mepr_shared.corpora.demo import make_demo
    from mepr_shared.corpora.importers import importer

    real = os.environ.get("MEPR_REAL_DATA")
    if not real:
        return make_demo(folder, clips=CLIPS)["demo_emotion"]
    corpus = importer("fiv2")(Path(real) / "fiv2", name="fiv2").corpus
    path = folder / "fiv2.parquet"
    corpus.take(corpus.select(split="val")[:CLIPS]).write(path)
    return path


def _in_process(name: str, corpus: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, str(corpus)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def measure(name: str, path: Path) -> dict[str, float]:
    """Clips per second and peak memory in MB, here and now."""
    from mepr_shared.corpora.index import Corpus

    corpus = Corpus.read(path)
    seconds = _theirs(corpus) if name == THEIRS else _ours(corpus, OURS[name])
    return {"rate": len(corpus) / seconds, "megabytes": _peak_megabytes()}


def _ours(corpus: Any, changes: dict[str, Any]) -> float:
    from mepr_shared import config
    from mepr_shared.extract.engine import extract_corpus
    from mepr_shared.extract.inputs import clip_inputs
    from mepr_text.plugin import TEXT

    table = config.read_toml(TEXT.profiles["small"])["encoder"]
    settings: Any = config.build(TEXT.encoder_settings, {**table, **changes})
    extractor = TEXT.open_extractor(settings, device="cpu")
    # First use of the libraries allocates and starts threads.
    extractor.extract(clip_inputs(corpus)[:32])
    with tempfile.TemporaryDirectory() as store:
        return extract_corpus(TEXT, extractor, corpus, Path(store)).seconds


def _theirs(corpus: Any) -> float:
    from sentence_transformers import SentenceTransformer

    from mepr_shared import config
    from mepr_shared.extract.weights import resolve
    from mepr_text.plugin import TEXT

    table = config.read_toml(TEXT.profiles["small"])["encoder"]
    model = SentenceTransformer(str(resolve(table["id"], needs=table["needs"]).path), device="cpu")
    texts = [text or "" for text in corpus.texts]
    model.encode(texts[:32])
    start = time.perf_counter()
    model.encode(texts)
    return time.perf_counter() - start


def _peak_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status")


def main() -> None:
    """Measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "CORPUS"), required=True)
    name, path = parser.parse_args().measure
    print(json.dumps(measure(name, Path(path))))


if __name__ == "__main__":
    main()
