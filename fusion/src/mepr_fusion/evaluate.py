"""Scores of a stage-3 run beside what it must beat: a constant, each modality, their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mepr_fusion.answers import Outputs, predict
from mepr_fusion.baselines import decision_shift, unimodal_names, unimodal_outputs
from mepr_fusion.data import resident
from mepr_fusion.inputs import Inputs, reopen
from mepr_fusion.join import Joined
from mepr_fusion.packed import join_once
from mepr_fusion.settings import MODES
from mepr_fusion.train import KIND, load_model
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError
from mepr_shared.evaluation import evaluate
from mepr_shared.labels import EmotionScale, emotion_targets
from mepr_shared.scoring import Constants, Labels, Predictions, predicted
from mepr_shared.train.compare_runs import compare_answers
from mepr_shared.train.evaluate_run import STRONG_ABOVE
from mepr_shared.train.inference import decision_probabilities
from mepr_shared.train.predictions import SplitPredictions
from mepr_shared.train.runs import Run

HEADLINES = {"emotion": ("uar", "mwacc"), "traits": ("ccc",)}


class Evaluation:
    """A run with its inputs joined again, as its lock pins them, and its model loaded.

    Args:
        run: a finished stage-3 run.
        device: where the model runs.

    Raises:
        ContractError: not a stage-3 run, not trained to its end, or an export is not as pinned.
    """

    def __init__(self, run: Run, *, device: str = "cpu") -> None:
        if run.kind != KIND:
            raise ContractError(f"{run.path} is a {run.kind} run", hint="give a stage-3 run")
        if not run.metrics:
            raise ContractError(
                f"{run.path} is not trained to its end", hint="mepr-fusion train --resume"
            )
        self.run = run
        self.inputs: Inputs = reopen(run)
        self.joined: Joined = join_once(
            self.inputs,
            Path(run.config["exports_root"]),
            prior_shift={
                corpus: np.array(shift, dtype=np.float32)
                for corpus, shift in run.config["prior_shift"].items()
            },
            multi_label=run.config["multi_label"],
            modalities=list(run.config["modalities"]),
        )
        self.model = load_model(run, device)
        halves = MODES[run.config["settings"]["mode"]][0]
        self.data = resident(self.joined, device, halves=halves)

    def scores(self, split: str, *, by: str | None = None) -> list[dict[str, Any]]:
        """One `evaluate --json` record per corpus that has samples of the split.

        Each record also has `modalities` (the same scores for every modality alone and, with
        several, for the mean of their predictions) and `best_single` (per task the best modality
        alone, with the paired interval of stage 3 against it on the samples both answer).

        Args:
            by: a corpus column; adds the scores of each of its groups.
        """
        found = []
        for corpus in self.inputs.corpora:
            rows = self.joined.select(split=split, corpus=corpus.name)
            if len(rows):
                found.append(self._record(corpus, split, rows, by))
        return found

    def predictions(self, split: str) -> list[SplitPredictions]:
        """What the model says about the samples of a split, per corpus, as it decides there."""
        found = []
        for corpus in self.inputs.corpora:
            rows = self.joined.select(split=split, corpus=corpus.name)
            labels, predictions = (
                self.labels_of(corpus, rows),
                self.answers_of(corpus, "fusion", rows),
            )
            found.append(
                SplitPredictions(
                    corpus.name,
                    [corpus.sample_ids[row] for row in self.joined.rows[rows]],
                    labels.source_ids,
                    predictions.emotion,
                    predictions.traits,
                    labels.emotion,
                    labels.traits,
                    corpus.meta.scale.kind,
                    predictions.output,
                    None if predictions.thresholds is None else predictions.thresholds.tolist(),
                )
            )
        return found

    def outputs(self, name: str, rows: np.ndarray) -> Outputs:
        """Answers `[n]` of stage 3 (`fusion`) or of a baseline (see `unimodal_names`)."""
        if name == "fusion":
            return predict(self.model, self.data, rows)
        return unimodal_outputs(self.joined, name, rows)

    def _record(
        self, corpus: Corpus, split: str, rows: np.ndarray, by: str | None
    ) -> dict[str, Any]:
        labels = self.labels_of(corpus, rows)
        dropped = {
            reason: count
            for (name, where, reason), count in self.joined.dropped.items()
            if (name, where) == (corpus.name, split)
        }
        groups = None
        if by:
            groups = {by: corpus.column(by)[self.joined.rows[rows]].tolist()}
        train = self.joined.select(split="train", corpus=corpus.name)
        stored = self.run.metrics["constants"][corpus.name]
        constants = Constants(*(None if stored[k] is None else np.array(stored[k]) for k in stored))

        def scored(name: str, **more: Any) -> dict[str, Any]:
            answers = self.answers_of(corpus, name, rows)
            return evaluate(
                corpus.name,
                split,
                source_ids=labels.source_ids,
                emotion_targets=labels.emotion,
                emotion_scale=corpus.meta.scale,
                emotion_probabilities=answers.emotion,
                emotion_output=answers.output,
                thresholds=answers.thresholds,
                trait_targets=labels.traits,
                trait_scores=answers.traits,
                **more,
            )

        seen = np.isin(self.joined.source_ids[rows], self.joined.source_ids[train])
        record = scored(
            "fusion",
            constants=constants,
            n_dropped=dropped,
            seen_sources=seen,
            groups=groups,
            strong_targets=_strong_targets(corpus, self.joined.rows[rows]),
        )
        record["modalities"] = {
            name: {task: scored(name)[task] for task in ("emotion", "traits")}
            for name in unimodal_names(self.joined)
        }
        record["best_single"] = self._best_single(corpus, rows, record["modalities"])
        return record

    def _best_single(
        self, corpus: Corpus, rows: np.ndarray, scores: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Per task the best modality alone, and stage 3 less it on the samples both answer."""
        found: dict[str, Any] = {}
        for task in ("emotion", "traits"):
            known = {
                name: value
                for name in self.joined.modalities
                if (value := _headline(scores[name][task], task)) is not None
            }
            if not known:
                found[task] = None
                continue
            best = max(known, key=known.__getitem__)
            answered = predicted(getattr(self.answers_of(corpus, best, rows), task), len(rows))
            both = rows[answered]
            against = compare_answers(
                self.labels_of(corpus, both),
                self.answers_of(corpus, best, both),
                self.answers_of(corpus, "fusion", both),
            )
            found[task] = {"modality": best, "difference": against[task]}
        return found

    def labels_of(self, corpus: Corpus, rows: np.ndarray) -> Labels:
        """What is known of samples of one corpus, `rows` `[n]` of the joined table."""
        return Labels(
            self.joined.source_ids[rows].tolist(),
            self.joined.emotion_targets[rows],
            corpus.meta.scale,
            self.joined.trait_targets[rows],
        )

    def answers_of(self, corpus: Corpus, name: str, rows: np.ndarray) -> Predictions:
        """What stage 3 (`fusion`) or a baseline says of them, as decisions are taken."""
        outputs = self.outputs(name, rows)
        multi_label = corpus.meta.scale.is_multi_label
        logits = outputs.emotion_logits + decision_shift(self.joined, name, rows)
        probabilities = np.full(logits.shape, np.nan)
        given = np.isfinite(logits).all(axis=1)
        probabilities[given] = decision_probabilities(logits[given], multi_label)
        thresholds = self.run.metrics["thresholds"].get(name) if multi_label else None
        if multi_label and thresholds is None and name != "fusion":
            # A modality that answered no labelled validation sample has no way to decide.
            probabilities[:] = np.nan
        return Predictions(
            probabilities,
            None if thresholds is None else np.array(thresholds),
            "sigmoid" if multi_label else "softmax",
            outputs.trait_scores,
        )


def _strong_targets(corpus: Corpus, rows: np.ndarray) -> np.ndarray | None:
    """`[n, 7]` targets with weak emotions left out, for corpora that give intensities."""
    scale = corpus.meta.scale
    if scale.kind != "intensity" or scale.present_above >= STRONG_ABOVE:
        return None
    strong = EmotionScale(scale.kind, scale.maximum, STRONG_ABOVE)
    return emotion_targets(corpus.emotion_values[rows], strong)


def _headline(scores: Mapping[str, Any] | None, task: str) -> float | None:
    values: Sequence[Any] = [scores[name] for name in HEADLINES[task]] if scores else []
    return next((float(value) for value in values if value is not None), None)
