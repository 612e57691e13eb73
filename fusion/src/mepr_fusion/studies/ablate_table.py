"""The table of an ablation: mean and spread over seeds, and the difference from the full model.

What is compared: a variant's score is the mean over seeds of the score of each seed's run. The
difference from the full model is that of the two means, over the labelled samples that both
answer, with the seeds that both finished. Its interval draws sources with replacement, the same
ones for both and for all seeds, and takes the mean over seeds inside each draw: it says what
other samples would have given, with these seeds. How much seeds matter stands beside it as their
standard deviation. With one seed it is exactly `mepr_shared.evaluation.compare`.

Significance: the two-sided bootstrap p of a difference is twice the share of draws on the other
side of 0; per score the p of all variants are adjusted together (Holm 1979, "A simple
sequentially rejective multiple test procedure").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mepr_shared.intervals import (
    DEFAULT_RESAMPLING,
    Resampling,
    ScoresFrom,
    paired_cluster_bootstrap,
)
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import number
from mepr_shared.scoring import (
    TRAIT,
    Labels,
    Predictions,
    TaskScores,
    emotion_labelled,
    emotion_statistics,
    emotion_task,
    pair,
    predicted,
    take,
    trait_statistics_of,
    traits_labelled,
)
from mepr_shared.train.predictions import SplitPredictions

SIGNIFICANT = 0.05
# Draws per variant: 2 / (draws + 1), the smallest p there can be, must survive Holm.
DRAWS_PER_VARIANT = 100

# Corpus name -> what one run says about a split of it.
Answers = Mapping[str, SplitPredictions]


@dataclass(frozen=True)
class Scored:
    """One task of one corpus, as some runs of a variant answer it.

    Attributes:
        answered: `[N]` bool, labelled samples that every run answers.
        statistics: `[N, S, ...]` additive statistics by seed; zero where not answered.
    """

    answered: np.ndarray
    statistics: np.ndarray

    def some(self, seeds: Sequence[int]) -> Scored:
        """The same of some seeds, by their places."""
        return Scored(self.answered, self.statistics[:, list(seeds)])


def columns_of(reference: Answers) -> dict[str, tuple[str, str, TaskScores, str]]:
    """Headline scores of the full model: `demo/ccc` -> (corpus, task, its scores, `ccc`)."""
    found: dict[str, tuple[str, str, TaskScores, str]] = {}
    for corpus, entry in reference.items():
        labels = _labels(entry)
        if entry.emotion_probabilities is not None and emotion_labelled(labels).any():
            score = "mwacc" if labels.scale.is_multi_label else "uar"
            found[f"{corpus}/{score}"] = corpus, "emotion", emotion_task(labels.scale), score
        if entry.trait_scores is not None and traits_labelled(labels).any():
            found[f"{corpus}/ccc"] = corpus, "traits", TRAIT, "ccc"
    return found


def scored(
    reference: SplitPredictions, runs: Sequence[SplitPredictions | None], task: str
) -> Scored:
    """Statistics of runs (one per seed) on the reference's samples.

    Args:
        reference: the full model's, whose samples and labels count.
        runs: None where a run has no samples of the corpus.
        task: `emotion` or `traits`.
    """
    labels = _labels(reference)
    known = emotion_labelled(labels) if task == "emotion" else traits_labelled(labels)
    said = [_aligned(reference, run) for run in runs]
    answered = known.copy()
    for answers in said:
        values = answers.emotion if task == "emotion" else answers.traits
        answered &= predicted(values, len(known))
    statistics_of = emotion_statistics if task == "emotion" else trait_statistics_of
    parts = []
    for answers in said if answered.any() else []:
        rows = statistics_of(*take(labels, answers, answered))
        full = np.zeros((len(known), *rows.shape[1:]))
        full[answered] = rows
        parts.append(full)
    stacked = np.stack(parts, axis=1) if parts else np.zeros((len(known), len(runs), 0))
    return Scored(answered, stacked)


def over_seeds(scores_from: ScoresFrom, axes: int) -> ScoresFrom:
    """Scores of statistics with one more axis, that of the seeds: their mean over seeds.

    Args:
        scores_from: scores of statistics with `axes` axes of their own.
    """

    def mean(totals: np.ndarray) -> dict[str, np.ndarray]:
        seeds = totals.ndim - axes - 1
        return {name: values.mean(axis=seeds) for name, values in scores_from(totals).items()}

    return mean


def seed_scores(found: Scored, task: TaskScores, score: str) -> list[float | None]:
    """The score of each seed's run; None where undefined."""
    if not found.answered.any():
        return [None] * found.statistics.shape[1]
    return [number(value) for value in task.scores_from(found.statistics.sum(axis=0))[score]]


def difference(
    full: Scored,
    variant: Scored,
    source_ids: Sequence[str],
    task: TaskScores,
    score: str,
    how: Resampling,
) -> dict[str, Any] | None:
    """Variant less full model, paired; None where they have no sample in common.

    Returns:
        `n, n_sources, full` and `variant` (means over seeds on these samples), `difference`, `ci`
        (None with fewer than 20 sources) and `p`, two-sided and not adjusted.
    """
    rows = full.answered & variant.answered
    if not rows.any():
        return None
    first, second = full.statistics[rows], variant.statistics[rows]
    sources = np.asarray(list(source_ids), dtype=object)[rows].tolist()
    drawn: dict[str, np.ndarray] = {}
    mean = over_seeds(task.scores_from, first.ndim - 2)

    def remembered(totals: np.ndarray) -> dict[str, np.ndarray]:
        # The p must come from the very draws that the interval comes from.
        drawn.update(mean(totals))
        return drawn

    bounds = paired_cluster_bootstrap(first, second, sources, remembered, how)
    means = [float(mean(values.sum(axis=0))[score]) for values in (first, second)]
    found: dict[str, Any] = {
        "n": int(rows.sum()),
        "n_sources": len(set(sources)),
        "full": number(np.float64(means[0])),
        "variant": number(np.float64(means[1])),
        "difference": number(np.float64(means[1] - means[0])),
        "ci": None,
        "p": None,
    }
    if bounds is not None:
        draws = drawn[score][:, 1] - drawn[score][:, 0]
        found |= {"ci": pair(bounds[score]), "p": two_sided(draws[~np.isnan(draws)])}
    return found


def two_sided(draws: np.ndarray) -> float | None:
    """Twice the smaller share of draws at or beyond 0, at most 1; None without draws."""
    if not len(draws):
        return None
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(draws) + 1)))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p by name: the i-th smallest of m times m - i (from 0), never falling, at most 1."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(values) - place)))
        adjusted[name] = highest
    return adjusted


def resampling_for(count: int, how: Resampling = DEFAULT_RESAMPLING) -> Resampling:
    """Draws enough that the difference of one of `count` variants can be significant."""
    return replace(how, resamples=max(how.resamples, DRAWS_PER_VARIANT * count))


def adjust(records: Iterable[Mapping[str, Any]]) -> None:
    """Add `p_holm` and `significant` to the differences of all variants, per score."""
    rows = {record["variant"]: record["differences"] for record in records}
    for column in {name for differences in rows.values() for name in differences}:
        entries = {name: found[column] for name, found in rows.items() if found.get(column)}
        known = {n: entry["p"] for n, entry in entries.items() if entry["p"] is not None}
        adjusted = holm(known)
        for name, entry in entries.items():
            p = adjusted.get(name)
            entry["p_holm"] = p
            entry["significant"] = None if p is None else p < SIGNIFICANT


def mean_and_spread(values: Sequence[float | None]) -> dict[str, Any]:
    """`mean`, `std` (of a sample; None for one value) and `values`; None where one is undefined."""
    if not values or any(value is None for value in values):
        return {"mean": None, "std": None, "values": list(values)}
    array = np.array(values, dtype=np.float64)
    std = float(array.std(ddof=1)) if len(array) > 1 else None
    return {"mean": float(array.mean()), "std": std, "values": list(values)}


def _labels(entry: SplitPredictions) -> Labels:
    return Labels(
        entry.source_ids,
        entry.emotion_targets,
        EmotionScale(entry.emotion_kind),
        entry.trait_targets,
    )


def _aligned(reference: SplitPredictions, run: SplitPredictions | None) -> Predictions:
    """A run's answers in the order of the reference's samples, NaN where it has none."""
    if run is None:
        return Predictions()
    rows = {sample_id: row for row, sample_id in enumerate(run.sample_ids)}
    places = np.array([rows.get(name, -1) for name in reference.sample_ids], dtype=np.int64)

    def placed(values: np.ndarray | None) -> np.ndarray | None:
        if values is None or not len(values):
            return None
        return np.where(places[:, None] >= 0, values[places], np.nan)

    return Predictions(
        placed(run.emotion_probabilities),
        None if run.thresholds is None else np.asarray(run.thresholds, dtype=np.float64),
        run.emotion_output,
        placed(run.trait_scores),
    )
