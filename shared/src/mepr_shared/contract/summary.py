"""Counts and statistics of an export, part by part, so that a resumed one adds up the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mepr_shared.contract.schema import ColumnStats
from mepr_shared.contract.table import ARRAYS, SampleRows


@dataclass
class PartSummary:
    """What one part adds to the manifest.

    Attributes:
        counts: split -> status -> rows; the split of a sample without one is `""`.
        rows, norms, squares, largest: per array column; sums over the rows that have it of 1, of
            the row's Euclidean norm and its square, and the largest absolute value.
        widths: of the array columns that some row has.
        ok: array column -> whether the rows of status `ok` have it; absent without such rows.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    ok: dict[str, bool] = field(default_factory=dict)


def summarise(rows: SampleRows) -> PartSummary:
    """The summary of one part."""
    summary = PartSummary(widths=rows.widths)
    pairs = zip(rows.text["split"], rows.text["status"], strict=True)
    for (split, status), count in sorted(Counter((s or "", t) for s, t in pairs).items()):
        summary.counts.setdefault(split, {})[status] = count
    usable = np.array([status == "ok" for status in rows.text["status"]], dtype=bool)
    for name in ARRAYS:
        values = rows.arrays[name][rows.present[name]].astype(np.float64)
        norms = np.sqrt((values**2).sum(axis=1))
        summary.rows[name] = len(values)
        summary.norms[name] = float(norms.sum())
        summary.squares[name] = float((norms**2).sum())
        summary.largest[name] = float(np.abs(values).max(initial=0.0))
        if usable.any():
            summary.ok[name] = bool(rows.present[name][usable].any())
    return summary


def total_counts(summaries: Iterable[PartSummary]) -> dict[str, dict[str, int]]:
    """`counts` of the manifest."""
    totals: Counter[tuple[str, str]] = Counter()
    for summary in summaries:
        for split, statuses in summary.counts.items():
            totals.update({(split, status): count for status, count in statuses.items()})
    counts: dict[str, dict[str, int]] = {}
    for (split, status), count in sorted(totals.items()):
        counts.setdefault(split, {})[status] = count
    return counts


def total_stats(summaries: Iterable[PartSummary]) -> dict[str, ColumnStats]:
    """`stats` of the manifest, for the columns that some row has."""
    summaries = list(summaries)
    stats = {}
    for name in ARRAYS:
        rows = sum(summary.rows[name] for summary in summaries)
        if not rows:
            continue
        mean = sum(summary.norms[name] for summary in summaries) / rows
        variance = sum(summary.squares[name] for summary in summaries) / rows - mean**2
        largest = max(summary.largest[name] for summary in summaries)
        numbers = (mean, max(variance, 0.0) ** 0.5, largest)
        stats[name] = ColumnStats(rows, *(float(f"{number:.6g}") for number in numbers))
    return stats


def widths_of(summaries: Iterable[PartSummary]) -> dict[str, set[int]]:
    """Every width that an array column has in some part."""
    widths: dict[str, set[int]] = {}
    for summary in summaries:
        for name, width in summary.widths.items():
            widths.setdefault(name, set()).add(width)
    return widths


def uneven_columns(summaries: Iterable[PartSummary]) -> list[str]:
    """Array columns that the `ok` rows of some parts have and those of others do not."""
    summaries = list(summaries)
    return [name for name in ARRAYS if len({s.ok[name] for s in summaries if name in s.ok}) > 1]
