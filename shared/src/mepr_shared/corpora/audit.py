"""What is wrong, or merely lopsided, in a corpus: leaks between splits, labels, texts, gaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from mepr_shared.corpora.index import Corpus
from mepr_shared.corpora.near_duplicates import near_duplicate_pairs, normalise
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS

# "What?" said twice is no leak: shorter texts are left out of the duplicate search.
MIN_WORDS = 6
SHOWN = 20
IDENTITIES = ("source_id", "speaker_id", "context_id")
SKEWED = 20.0


def audit(corpus: Corpus, *, threshold: float = 0.8) -> dict[str, Any]:
    """Examine an index.

    Args:
        corpus: any index.
        threshold: texts that share this part of their word triples count as near-duplicates.

    Returns:
        a dict ready for JSON: `splits`, `shared` (per identity: values in several splits, the
        clips of val and test they reach and how many remain unseen), `text_duplicates`,
        `media_duplicates`, `emotion` (counts, imbalance, co-occurrence), `traits`, `text`,
        `missing`, and `warnings` in words.
    """
    report: dict[str, Any] = {
        "corpus": corpus.name,
        "rows": len(corpus),
        "splits": {split: int(n) for split, n in corpus.meta.counts["split"].items()},
        "shared": {name: found for name in IDENTITIES if (found := _shared(corpus, name))},
        "text_duplicates": _text_duplicates(corpus, threshold),
        "media_duplicates": _media_duplicates(corpus),
        "emotion": _emotion(corpus),
        "traits": _traits(corpus),
        "text": _text_lengths(corpus),
        "missing": _missing(corpus),
    }
    report["warnings"] = _warnings(report)
    return report


def _shared(corpus: Corpus, column: str) -> dict[str, Any] | None:
    values = corpus.column(column)
    where: dict[str, set[str]] = defaultdict(set)
    for value, split in zip(values, corpus.splits, strict=True):
        if value is not None and split is not None:
            where[value].add(split)
    if not where:
        return None
    reached, unseen = {}, {}
    for split in SPLITS[1:]:
        members = list(values[corpus.select(split=split)])
        if members:
            reached[split] = sum("train" in where.get(value, ()) for value in members)
            unseen[split] = len(members) - reached[split]
    return {
        "values": len(where),
        "in_several_splits": sum(len(splits) > 1 for splits in where.values()),
        "clips_also_in_train": reached,
        "clips_unseen": unseen,
    }


def _text_duplicates(corpus: Corpus, threshold: float) -> dict[str, Any]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(corpus.texts):
        words = normalise(text) if text else ""
        if words.count(" ") + 1 >= MIN_WORDS:
            rows_of[words].append(row)
    texts = list(rows_of)
    identical = [pair for rows in rows_of.values() for pair in _across(corpus, rows, rows)]
    near = [
        (first, second, similarity)
        for a, b, similarity in near_duplicate_pairs(texts, threshold=threshold)
        for first, second in _across(corpus, rows_of[texts[a]], rows_of[texts[b]])
    ]
    pairs = [(first, second, 1.0) for first, second in identical] + near
    reached = {row for first, second, _ in pairs for row in (first, second)}
    return {
        "threshold": threshold,
        "identical_pairs": len(identical),
        "near_pairs": len(near),
        "clips": _per_split(corpus, reached),
        "first_pairs": [
            [corpus.sample_ids[first], corpus.sample_ids[second], round(similarity, 3)]
            for first, second, similarity in pairs[:SHOWN]
        ],
    }


def _across(corpus: Corpus, first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """Pairs of rows that lie in different splits, each pair once."""
    splits = corpus.splits
    return [
        (a, b)
        for a in first
        for b in second
        if splits[a] is not None
        and splits[b] is not None
        and splits[a] != splits[b]
        and (first is not second or a < b)
    ]


def _media_duplicates(corpus: Corpus) -> dict[str, Any]:
    """The same bytes and segment in different splits; files are hashed only if sizes agree."""
    columns = [corpus.column(name) for name in ("media", "start_s", "end_s")]
    sizes: dict[int, set[str]] = defaultdict(set)
    absent = set()
    for media in {media for media in columns[0] if media is not None}:
        path = corpus.media_path(media)
        if path.is_file():
            sizes[path.stat().st_size].add(media)
        else:
            absent.add(media)
    content = {media: media for media in absent}
    for alike in sizes.values():
        for media in alike:
            hashed = corpus.media_sha256(corpus.media_path(media)) if len(alike) > 1 else media
            content[media] = hashed or media
    rows_of: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, (media, start, end) in enumerate(zip(*columns, strict=True)):
        if media is not None:
            rows_of[content[media], start, end].append(row)
    pairs = [pair for rows in rows_of.values() for pair in _across(corpus, rows, rows)]
    return {
        "pairs": len(pairs),
        "clips": _per_split(corpus, {row for pair in pairs for row in pair}),
        "first_pairs": [[corpus.sample_ids[row] for row in pair] for pair in pairs[:SHOWN]],
        "files_not_found": len(absent),
    }


def _emotion(corpus: Corpus) -> dict[str, Any] | None:
    targets = corpus.emotion_targets()
    labelled = ~np.isnan(targets).any(axis=1)
    if not labelled.any():
        return None
    present = targets[labelled] >= (1e-9 if corpus.meta.scale.kind != "distribution" else 0.5)
    counts = present.sum(axis=0)
    per_split = {
        split: dict(zip(EMOTIONS, (targets[rows] > 0.5).sum(axis=0).tolist(), strict=True))
        for split in SPLITS
        if len(rows := np.intersect1d(corpus.select(split=split), np.flatnonzero(labelled)))
    }
    together = present.astype(int).T @ present.astype(int)
    return {
        "kind": corpus.meta.scale.kind,
        "labelled": int(labelled.sum()),
        "counts": dict(zip(EMOTIONS, counts.tolist(), strict=True)),
        "per_split": per_split,
        "imbalance": float(counts.max() / counts[counts > 0].min()) if counts.any() else None,
        "absent": [name for name, count in zip(EMOTIONS, counts, strict=True) if count == 0],
        "labels_per_clip": float(present.sum(axis=1).mean()),
        "co_occurrence": together.tolist(),
    }


def _traits(corpus: Corpus) -> dict[str, Any] | None:
    values = corpus.trait_values
    labelled = ~np.isnan(values).all(axis=1)
    if not labelled.any():
        return None
    per_trait = {}
    for index, trait in enumerate(TRAITS):
        known = values[~np.isnan(values[:, index]), index].astype(np.float64)
        per_trait[trait] = {
            "labelled": len(known),
            "mean": float(known.mean()) if len(known) else None,
            "std": float(known.std()) if len(known) else None,
        }
    partly = labelled & np.isnan(values).any(axis=1)
    return {
        "labelled": int(labelled.sum()),
        "partly_missing": int(partly.sum()),
        "per_trait": per_trait,
    }


def _text_lengths(corpus: Corpus) -> dict[str, Any]:
    out = {}
    words = np.array([len(text.split()) if text else 0 for text in corpus.texts])
    for split in (*SPLITS, None):
        lengths = words[corpus.splits == split]
        if len(lengths):
            said = lengths[lengths > 0]
            low, median, high = np.percentile(said, [5, 50, 95]) if len(said) else (0, 0, 0)
            out[split or "none"] = {
                "clips": len(lengths),
                "without_text": int((lengths == 0).sum()),
                "words_p5": float(low),
                "words_median": float(median),
                "words_p95": float(high),
                "words_max": int(lengths.max()),
            }
    return out


def _missing(corpus: Corpus) -> dict[str, int]:
    table = corpus.table
    return {name: n for name in table.column_names if (n := table[name].null_count)}


def _per_split(corpus: Corpus, rows: Iterable[int]) -> dict[str, int]:
    splits = [corpus.splits[row] for row in rows]
    return {split: splits.count(split) for split in SPLITS if split in splits}


def _warnings(report: dict[str, Any]) -> list[str]:
    out = []
    for name, shared in report["shared"].items():
        if shared["in_several_splits"]:
            reached = ", ".join(
                f"{n} of {n + shared['clips_unseen'][split]} clips of {split}"
                for split, n in shared["clips_also_in_train"].items()
            )
            out.append(
                f"{shared['in_several_splits']} of {shared['values']} values of {name} lie in "
                f"several splits ({reached} have theirs in train)"
            )
    texts, media = report["text_duplicates"], report["media_duplicates"]
    if texts["identical_pairs"] or texts["near_pairs"]:
        out.append(
            f"texts across splits: {texts['identical_pairs']} identical and "
            f"{texts['near_pairs']} nearly identical pairs"
        )
    if media["pairs"]:
        out.append(f"{media['pairs']} pairs of clips across splits have the same media")
    if media["files_not_found"]:
        out.append(f"{media['files_not_found']} media files are not there")
    emotion = report["emotion"]
    if emotion and emotion["absent"]:
        out.append("no sample of " + ", ".join(emotion["absent"]))
    if emotion and emotion["imbalance"] and emotion["imbalance"] >= SKEWED:
        out.append(f"the commonest emotion is {emotion['imbalance']:.0f} times the rarest")
    if "none" in report["splits"]:
        out.append(f"{report['splits']['none']} rows belong to no split")
    return out


def lines(report: dict[str, Any]) -> list[str]:
    """An audit for people."""
    splits = ", ".join(f"{split} {count}" for split, count in report["splits"].items())
    out = [f"{report['corpus']}: {report['rows']} rows ({splits})"]
    emotion, traits = report["emotion"], report["traits"]
    if emotion:
        counts = ", ".join(f"{name} {count}" for name, count in emotion["counts"].items())
        out.append(f"emotion ({emotion['kind']}, {emotion['labelled']} labelled): {counts}")
    if traits:
        means = ", ".join(
            f"{trait} {stats['mean']:.3f} (std {stats['std']:.3f})"
            for trait, stats in traits["per_trait"].items()
            if stats["labelled"]
        )
        out.append(f"traits ({traits['labelled']} labelled): {means}")
    for split, text in report["text"].items():
        out.append(
            f"text, {split}: {text['words_median']:.0f} words in the median (5 % "
            f"{text['words_p5']:.0f}, 95 % {text['words_p95']:.0f}), "
            f"{text['without_text']} clips without"
        )
    if report["missing"]:
        gaps = ", ".join(f"{name} {count}" for name, count in report["missing"].items())
        out.append(f"null: {gaps}")
    return out + [f"warning: {warning}" for warning in report["warnings"]]
