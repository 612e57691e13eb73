"""The verdict of a report, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mepr_fusion.report.embedding_baselines import NAME

TASK_WORDS = {"emotion": "emotions", "traits": "apparent traits"}
BEST = "the best modality alone"
BETTER, WORSE, NEITHER = "better than", "worse than", "not distinguishable from"
UNCLEAR = ABOVE, NOT_ABOVE = "above", "not above"
SCORE_WORDS = {"uar": "UAR", "mwacc": "mWACC", "ccc": "CCC", "macc": "mACC"}


def headline(task: str, scores: Mapping[str, Any] | None) -> str | None:
    """The score a task is judged by: mWACC where it is defined, else UAR; CCC for traits."""
    names = ("mwacc", "uar") if task == "emotion" else ("ccc",)
    return next((name for name in names if (scores or {}).get(name) is not None), None)


def verdict(
    records: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    modalities: Sequence[str],
) -> tuple[str, str]:
    """One paragraph: what was trained on what, and whether it beats what it must beat.

    Args:
        records: of `rivals.with_rivals`.
        metrics: of the run.
        modalities: names.

    Returns:
        The verdict in a sentence or two, and its details.
    """
    data = ", ".join(
        f"{name} ({counts.get('train', 0)})" for name, counts in metrics["samples"].items()
    )
    sentences = [
        f"Stage 3 was trained on the exports of {_listed(modalities)} for the training samples of "
        f"{data}.",
    ]
    if not metrics["best_epoch"]:
        sentences.append(
            "No epoch did better on validation than the untrained model, which answers with the "
            "mean of the unimodal predictions; that is what was kept."
        )
    for record in records:
        sentences += list(_judged(record))
    if any(record["split"] == "val" for record in records):
        sentences.append(
            "Validation chose the epoch: its scores are a little too good, those of test are not."
        )
    return _overall(records), " ".join(sentences)


def signed(difference: Mapping[str, Any] | None) -> str:
    """`+0.0123 [-0.0040, +0.0290]`; `-` where it is undefined."""
    if not difference or difference.get("difference") is None:
        return "-"
    interval = difference.get("ci")
    bounds = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
    return f"{difference['difference']:+.4f}{bounds}"


def compared(difference: Mapping[str, Any]) -> str:
    """What a paired difference says, in words."""
    interval = difference.get("ci")
    if interval is None:
        return ABOVE if difference["difference"] > 0 else NOT_ABOVE
    if interval[0] > 0:
        return BETTER
    return WORSE if interval[1] < 0 else NEITHER


def _overall(records: Sequence[Mapping[str, Any]]) -> str:
    """How often stage 3 is better or worse, over corpora, splits and tasks."""
    outcomes: dict[str, list[str]] = {}
    for record in records:
        for task in TASK_WORDS:
            score = headline(task, record[task])
            for name, difference in _rivals(record, task) if score else ():
                found = (difference.get(score) if score else None) or {}
                if found.get("difference") is not None:
                    outcomes.setdefault(name.partition(",")[0], []).append(compared(found))
    if not outcomes:
        return "There is nothing to compare with."
    unclear = sum(word in UNCLEAR for word in next(iter(outcomes.values())))
    parts = []
    for name, words in outcomes.items():
        clear = [word for word in words if word not in UNCLEAR]
        worse = f" (worse on {clear.count(WORSE)})" if WORSE in clear else ""
        if clear:
            parts.append(f"{name} on {clear.count(BETTER)} of {len(clear)}{worse}")
    if not parts:
        return (
            f"Whether stage 3 beats {_listed(list(outcomes))} cannot be said with confidence: "
            "there are too few sources for intervals."
        )
    few = f" For {unclear} more there are too few sources to say." if unclear else ""
    return f"Of the tasks judged, with 95 % confidence stage 3 beats {_listed(parts)}.{few}"


def _judged(record: Mapping[str, Any]) -> Iterator[str]:
    for task, words in TASK_WORDS.items():
        scores = record[task]
        score = headline(task, scores)
        if score is None:
            continue
        interval = (scores.get("ci") or {}).get(score)
        bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        parts = [
            f"{compared(difference[score])} {name} ({_short(difference[score])})"
            for name, difference in _rivals(record, task)
            if (difference.get(score) or {}).get("difference") is not None
        ]
        few = "" if interval else "; fewer than 20 sources, so no interval"
        yield (
            f"On {record['corpus']} {record['split']} it reaches {SCORE_WORDS[score]} "
            f"{scores[score]:.3f}{bounds} for {words} ({scores['n']} labelled clips{few})"
            + (": " + _listed(parts) if parts else "")
            + "."
        )


def _rivals(record: Mapping[str, Any], task: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    differences = record["differences"][task]
    if "constant" in differences:
        yield "a constant", differences["constant"]
    best = (record["best_single"] or {}).get(task)
    if best and best.get("difference"):
        yield f"{BEST}, {best['modality']}", best["difference"]
    if NAME in differences:
        yield "a linear model on the same embeddings", differences[NAME]


def _short(difference: Mapping[str, Any]) -> str:
    interval = difference.get("ci")
    bounds = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
    return f"{difference['difference']:+.3f}{bounds}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
