"""Cross-corpus matrix: stage 3 trained on one corpus, tested on every corpus.

How a model answers a corpus it was not trained on; nothing of the test corpus is used but its
inputs:

* Its input has the modalities that both corpora have, of equal widths; the others count as absent.
  The test corpus's unimodal emotion predictions are brought to the kind the model learned from.
* same kind of labels: the decision is that of the training corpus, argmax or thresholds on its
  shifted logits.
* trained on several labels per sample, tested on one: the emotion whose log-odds lie furthest
  above those of its threshold, chosen on the training corpus's validation split. (The largest
  probability would mostly name what is frequent in the training corpus.)
* trained on one label per sample, tested on several: an emotion is present where its calibrated
  softmax probability reaches the threshold that best separates it from the others, by balanced
  accuracy, on the training corpus's validation split.
* traits: the scores as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mepr_fusion.answers import predict
from mepr_fusion.data import FusionBatch, resident
from mepr_fusion.inputs import Inputs
from mepr_fusion.join import Joined, join
from mepr_fusion.settings import MODES
from mepr_fusion.studies.jobs import Job, Source
from mepr_fusion.studies.work import predictions_name, train_and_answer
from mepr_fusion.train import load_model
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ContractError
from mepr_shared.evaluation import evaluate
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import EmotionOutput, best_thresholds
from mepr_shared.scoring import constants_of
from mepr_shared.train.inference import decision_probabilities
from mepr_shared.train.predictions import SplitPredictions, read_predictions, write_predictions
from mepr_shared.train.runs import Run

ALL = "all"
HEADLINE = {"emotion": ("uar", "mwacc"), "traits": ("ccc",)}
SAME, TO_ONE, TO_SEVERAL = "trained corpus", "furthest above threshold", "thresholds on softmax"


@dataclass(frozen=True)
class TrainAndTransfer:
    """Work of a matrix job: train on one corpus, answer the splits of all others as well."""

    source: Source

    def __call__(self, job: Job, device: str) -> None:
        """Train or go on, then write what is not written yet.

        Raises:
            MeprError: see `train_and_answer`.
        """
        train_and_answer(job, device)
        split = job.splits[-1]
        path = job.run / transfer_name(split)
        if len(job.source.corpora) == 1 and not path.exists():
            write_predictions(path, transfer(Run.load(job.run), self.source, split, device))


def transfer_name(split: str) -> str:
    """Name of a run's file of predictions for corpora it was not trained on."""
    return f"{split}_transfer.parquet"


def only(source: Source, corpus: Corpus) -> Source:
    """A source of one of its corpora."""
    assert corpus.path is not None
    pins = {place: pin for place, pin in source.pins.items() if place[1] == corpus.name}
    return replace(source, corpora=(corpus.path.resolve(),), pins=pins)


def shared_modalities(inputs: Inputs, train: str, test: str) -> list[str]:
    """Modalities of two corpora whose embeddings have the same widths."""
    found = []
    for modality, corpus in sorted(inputs.exports):
        if corpus != train or (modality, test) not in inputs.exports:
            continue
        both = [inputs.exports[modality, name].manifest for name in (train, test)]
        widths = [(m.width("emotion_embedding"), m.width("trait_embedding")) for m in both]
        if widths[0] == widths[1]:
            found.append(modality)
    return found


def transfer(run: Run, source: Source, split: str, device: str = "cpu") -> list[SplitPredictions]:
    """What a model of one corpus says about a split of every other it shares a modality with.

    Raises:
        ContractError: the run was trained on several corpora.
    """
    names = [entry["name"] for entry in run.config["corpora"]]
    if len(names) != 1:
        raise ContractError(f"{run.path} was trained on several corpora: {', '.join(names)}")
    (home,) = names
    inputs = source.open(tuple(run.config["modalities"]))
    others = [
        corpus
        for corpus in inputs.corpora
        if corpus.name != home and shared_modalities(inputs, home, corpus.name)
    ]
    if not others:
        return []
    corpora = [*(c for c in inputs.corpora if c.name == home), *others]
    exports = {
        (modality, corpus.name): inputs.exports[modality, corpus.name]
        for corpus in corpora
        for modality in shared_modalities(inputs, home, corpus.name)
    }
    multi_label = bool(run.config["multi_label"][home])
    joined = join(
        corpora,
        exports,
        prior_shift={},
        multi_label={corpus.name: multi_label for corpus in corpora},
        modalities=list(run.config["modalities"]),
    )
    halves = MODES[run.config["settings"]["mode"]][0]
    data, model = resident(joined, device, halves=halves), load_model(run, device)
    decide = _Decision(run, joined, data, model, multi_label, home)
    found = []
    for corpus in others:
        rows = joined.select(split=split, corpus=corpus.name)
        outputs = predict(model, data, rows)
        scale = corpus.meta.scale
        emotion, output, thresholds = decide(outputs.emotion_logits, scale)
        found.append(
            SplitPredictions(
                corpus.name,
                [corpus.sample_ids[row] for row in joined.rows[rows]],
                joined.source_ids[rows].tolist(),
                emotion,
                outputs.trait_scores,
                joined.emotion_targets[rows],
                joined.trait_targets[rows],
                scale.kind,
                output,
                thresholds,
            )
        )
    return found


class _Decision:
    """Calibrated logits of a model of one corpus to probabilities that decide on another's kind."""

    def __init__(
        self,
        run: Run,
        joined: Joined,
        data: FusionBatch,
        model: Any,
        multi_label: bool,
        home: str,
    ) -> None:
        self.multi_label = multi_label
        self.shift = np.array(run.config["prior_shift"][home], dtype=np.float64)
        self.thresholds = run.metrics["thresholds"].get("fusion")
        rows = joined.select(split="val", corpus=home)
        targets = joined.emotion_targets[rows]
        known = ~np.isnan(targets).any(axis=1)
        self.separating: list[float] | None = None
        if known.any() and not multi_label:
            logits = predict(model, data, rows[known]).emotion_logits
            if np.isfinite(logits).all():
                calm = decision_probabilities(logits, False)
                one = np.eye(targets.shape[1])[targets[known].argmax(axis=1)]
                self.separating = best_thresholds(one, calm).tolist()

    def __call__(
        self, logits: np.ndarray, scale: EmotionScale
    ) -> tuple[np.ndarray | None, EmotionOutput, list[float] | None]:
        """Probabilities `[n, 7]`, what made them of the logits, and thresholds; None: no answer."""
        needed = self.thresholds if self.multi_label else self.separating
        if scale.is_multi_label == self.multi_label:
            thresholds = self.thresholds if self.multi_label else None
            if self.multi_label and thresholds is None:
                return None, "sigmoid", None
            probabilities = decision_probabilities(logits + self.shift, self.multi_label)
            return probabilities, "sigmoid" if self.multi_label else "softmax", thresholds
        if needed is None:
            return None, "softmax", None
        if self.multi_label:
            bound = np.clip(np.array(needed), 1e-6, 1 - 1e-6)
            above = logits + self.shift - np.log(bound / (1 - bound))
            return decision_probabilities(above, False), "softmax", None
        return decision_probabilities(logits, False), "softmax", needed


def cell(corpus: Corpus, split: str, task: str, said: SplitPredictions) -> dict[str, Any] | None:
    """One task's score on a corpus with interval and the corpus's constant; None unanswered.

    Returns:
        `score_name` (uar, mwacc or ccc), `score`, `ci`, `n`, `n_sources`, `unanswered` (labelled
        samples without an answer), `constant`: the score on the same samples of the constant of
        the corpus's own training split.
    """
    if task == "emotion" and corpus.meta.scale.is_multi_label and said.thresholds is None:
        return None  # nothing to decide with
    rows = corpus.select(split="train")
    record = evaluate(
        corpus.name,
        split,
        source_ids=said.source_ids,
        emotion_targets=said.emotion_targets if task == "emotion" else None,
        emotion_scale=corpus.meta.scale,
        emotion_probabilities=said.emotion_probabilities,
        emotion_output=said.emotion_output,
        thresholds=None if said.thresholds is None else np.array(said.thresholds),
        trait_targets=said.trait_targets if task == "traits" else None,
        trait_scores=said.trait_scores,
        constants=constants_of(corpus.emotion_targets()[rows], corpus.trait_values[rows]),
    )
    found = record[task]
    if found is None:
        return None
    name = next(name for name in reversed(HEADLINE[task]) if found[name] is not None)
    constant = record["baseline"][task]
    return {
        "score_name": name,
        "score": found[name],
        "ci": found["ci"] and found["ci"][name],
        "n": found["n"],
        "n_sources": found["n_sources"],
        "unanswered": labels_of(corpus, split, task) - found["n"],
        "constant": constant and constant[name],
    }


def labels_of(corpus: Corpus, split: str, task: str) -> int:
    """Labelled samples of a split."""
    rows = corpus.select(split=split)
    if task == "emotion":
        return int((~np.isnan(corpus.emotion_targets()[rows]).any(axis=1)).sum())
    return int((~np.isnan(corpus.trait_values[rows]).all(axis=1)).sum())


def matrix_cells(
    inputs: Inputs, jobs: Mapping[str, Job], failed: Mapping[str, str], split: str
) -> list[dict[str, Any]]:
    """Every (train, test, task): its score, or the reason why there is none.

    Args:
        inputs: all corpora and exports.
        jobs: training row (corpus or `all`) -> its job; corpora without one have no labels.
        failed: name of a job -> why it failed.
        split: what is scored.
    """
    cells = []
    every = [corpus.name for corpus in inputs.corpora]
    rows = [*every, *([ALL] if ALL in jobs else [])]
    for train in rows:
        homes = every if train == ALL else [train]
        answers: dict[str, SplitPredictions] = {}
        if train in jobs and jobs[train].name not in failed:
            folder = jobs[train].run
            answers = read_predictions(folder / predictions_name(split))
            if train != ALL:
                answers |= read_predictions(folder / transfer_name(split))
        trained = [corpus for corpus in inputs.corpora if corpus.name in homes]
        for test in inputs.corpora:
            shared = sorted(
                {m for home in homes for m in shared_modalities(inputs, home, test.name)}
            )
            common = sorted({m for m, c in inputs.exports if c in homes} & _of(inputs, test.name))
            for task in HEADLINE:
                entry: dict[str, Any] = {
                    "train": train,
                    "test": test.name,
                    "task": task,
                    "modalities": shared,
                    "rule": _rule(trained, test) if task == "emotion" else None,
                    "reason": None,
                }
                reason = _impossible(trained, test, task, shared, common, split, train in jobs)
                if train in jobs and jobs[train].name in failed:
                    reason = f"training failed: {failed[jobs[train].name]}"
                found = None
                if reason is None and test.name in answers:
                    found = cell(test, split, task, answers[test.name])
                if found is None:
                    entry["reason"] = reason or "the model gives no answer for this task"
                cells.append(entry | (found or {}))
    return cells


def _of(inputs: Inputs, corpus: str) -> set[str]:
    return {modality for modality, name in inputs.exports if name == corpus}


def trainable(corpus: Corpus) -> bool:
    """Whether a corpus has labels to train on and to choose an epoch by."""
    return all(
        any(labels_of(corpus, split, task) for task in HEADLINE) for split in ("train", "val")
    )


def _impossible(
    trained: Sequence[Corpus],
    test: Corpus,
    task: str,
    shared: Sequence[str],
    common: Sequence[str],
    split: str,
    has_run: bool,
) -> str | None:
    names = " and ".join(corpus.name for corpus in trained)
    label = "emotion" if task == "emotion" else "trait"
    if not has_run:
        return f"{names} has no labelled training or validation samples"
    if not shared:
        if common:
            return f"{names} and {test.name} share only {'+'.join(common)}, of other widths"
        return f"{names} and {test.name} share no modality"
    if not any(labels_of(corpus, "train", task) for corpus in trained):
        return f"{names} has no {label} labels to train on"
    if not labels_of(test, split, task):
        return f"{test.name} has no {label} labels in its {split} split"
    return None


def _rule(trained: Sequence[Corpus], test: Corpus) -> str:
    if any(corpus.name == test.name for corpus in trained):
        return SAME
    (home,) = trained
    if home.meta.scale.is_multi_label == test.meta.scale.is_multi_label:
        return SAME
    return TO_ONE if home.meta.scale.is_multi_label else TO_SEVERAL
