"""What `mepr corpus show` says of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mepr_shared.cli.output import emit_table
from mepr_shared.corpora.index import Corpus
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS, EmotionScale


def summarise(corpus: Corpus) -> dict[str, Any]:
    """Counts per split, labels per task, missing inputs and hashes, ready for JSON."""
    meta = corpus.meta
    splits = [name for name in (*SPLITS, None) if (corpus.splits == name).any()]
    media = corpus.column("media")
    paths = {name: corpus.media_path(name) for name in set(media) - {None}}
    return {
        "corpus": corpus.name,
        "path": str(corpus.path),
        "version": meta.version,
        "licence": meta.licence,
        "emotion_kind": meta.scale.kind,
        "emotion_max": meta.scale.maximum,
        "present_above": meta.scale.present_above,
        "rows": len(corpus),
        "sources": len(set(corpus.source_ids)),
        "splits": {
            split or "none": _split_summary(corpus, np.flatnonzero(corpus.splits == split))
            for split in splits
        },
        "missing": {
            "text": sum(not text for text in corpus.texts),
            "media": int(sum(name is None for name in media)),
            "media_files": sum(not path.is_file() for path in paths.values()),
        },
        "columns": corpus.table.column_names,
        "hashes": asdict(corpus.hashes),
        "withdrawn": len(meta.tombstones),
        "notes": list(meta.notes),
        "import_report": dict(meta.import_report),
    }


def print_summary(summary: Mapping[str, Any]) -> None:
    """The summary for people."""
    print(
        f"{summary['corpus']}: {summary['rows']} rows, {summary['sources']} sources, "
        f"version {summary['version']}, licence: {summary['licence'] or 'not stated'}"
    )
    splits: Mapping[str, Mapping[str, Any]] = summary["splits"]
    counts = ("rows", "sources", "emotion", "traits", "text", "media")
    emit_table(
        [[name, *(split[c] for c in counts)] for name, split in splits.items()], ("split", *counts)
    )
    columns = list(splits)
    if any(split["emotion"] for split in splits.values()):
        rows = [
            [name, *((split["prevalence"] or {}).get(name) for split in splits.values())]
            for name in EMOTIONS
        ]
        kind = summary["emotion_kind"]
        if EmotionScale(kind).is_multi_label:
            kind += f", present above {summary['present_above']:g}"
        emit_table(rows, ("emotion", *columns), title=f"share of labelled clips ({kind})")
    if any(split["traits"] for split in splits.values()):
        rows = [
            [trait, *(_mean_and_spread(split, trait) for split in splits.values())]
            for trait in TRAITS
        ]
        emit_table(rows, ("trait", *columns), title="mean (standard deviation)")
    missing = summary["missing"]
    print(
        f"without text: {missing['text']}, without media: {missing['media']}, "
        f"media files not found: {missing['media_files']}, withdrawn: {summary['withdrawn']}"
    )
    hashes = summary["hashes"]
    named = {f"inputs ({kind})": value for kind, value in hashes["inputs_sha256"].items()}
    for name, value in {
        "samples": hashes["samples_sha256"],
        **named,
        "labels": hashes["labels_sha256"],
    }.items():
        print(f"sha256 {name}: {value}")
    for note in summary["notes"]:
        print(f"note: {note}")


def _split_summary(corpus: Corpus, rows: np.ndarray) -> dict[str, Any]:
    targets, traits = corpus.emotion_targets()[rows], corpus.trait_values[rows]
    known = targets[~np.isnan(targets).any(axis=1)]
    return {
        "rows": len(rows),
        "sources": len(set(corpus.source_ids[rows])),
        "emotion": len(known),
        "traits": int((~np.isnan(traits)).any(axis=1).sum()),
        "text": sum(bool(corpus.texts[row]) for row in rows),
        "media": sum(value is not None for value in corpus.column("media")[rows]),
        # Of a distribution: the mean share.
        "prevalence": dict(zip(EMOTIONS, known.mean(axis=0, dtype=float).tolist(), strict=True))
        if len(known)
        else None,
        "trait_mean": _per_trait(traits, np.nanmean),
        "trait_std": _per_trait(traits, np.nanstd),
    }


def _per_trait(traits: np.ndarray, statistic: Any) -> dict[str, float] | None:
    found = {
        name: float(statistic(traits[:, column].astype(float)))
        for column, name in enumerate(TRAITS)
        if not np.isnan(traits[:, column]).all()
    }
    return found or None


def _mean_and_spread(split: Mapping[str, Any], trait: str) -> str | None:
    if not split["trait_mean"] or trait not in split["trait_mean"]:
        return None
    return f"{split['trait_mean'][trait]:.4f} ({split['trait_std'][trait]:.4f})"
