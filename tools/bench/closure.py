"""Quality of stage 3 where the best possible answer is known: the features-only demo corpus.

4,000 clips, five modalities, half of the labels missing. Over MEPR_BENCH_SEEDS corpora (default 2,
from seed 200 on; settings were chosen on others), on their test splits:

* how much of the way from the best modality alone to the oracle the fusion goes, per task;
* the same with labels that belong to other clips, where there is nothing to find;
* what learning from unlabelled samples adds when a tenth of the labels is left.

Intervals (on stderr) are paired bootstraps over sources, averaged over the seeds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mepr_fusion.answers import Outputs
from mepr_fusion.baselines import unimodal_outputs
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.settings import DEFAULTS, FusionSettings
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.cli.main import main as mepr
from mepr_shared.corpora.demo_features import MODALITIES, feature_oracle, make_demo_features
from mepr_shared.corpora.index import Corpus
from mepr_shared.metrics import best_thresholds, multi_label_scores, trait_scores

CLIPS, FIRST_SEED = 4000, 200
SEEDS = int(os.environ.get("MEPR_BENCH_SEEDS", "2"))
TASKS = {"emotion": "mWACC", "traits": "CCC"}
CLOSED = 0.7
RESAMPLES = 400
TENTH = ["hidden_labels=0.8", "fit.epochs=60"]  # of the half that is labelled


@dataclass(frozen=True)
class Answers:
    """Test answers of one model: probabilities `[n, 7]`, thresholds `[7]`, scores `[n, 5]`."""

    probabilities: np.ndarray
    thresholds: np.ndarray
    traits: np.ndarray


@dataclass(frozen=True)
class Split:
    """Test labels `[n, 7]`, `[n, 5]`, and the source of each clip."""

    emotion: np.ndarray
    traits: np.ndarray
    sources: np.ndarray

    def scores(self, answers: Answers, rows: np.ndarray) -> np.ndarray:
        """mWACC and mean CCC on some rows."""
        rows = rows[np.isfinite(answers.probabilities[rows]).all(axis=1)]
        found = answers.probabilities[rows]
        emotion = multi_label_scores(self.emotion[rows], found, answers.thresholds)["mwacc"]
        return np.array([emotion, trait_scores(self.traits[rows], answers.traits[rows])["ccc"]])

    def resamples(self, seed: int) -> list[np.ndarray]:
        """Row indices of bootstrap draws of whole sources; the split itself comes first."""
        generator = np.random.default_rng(seed)
        groups = [np.flatnonzero(self.sources == name) for name in np.unique(self.sources)]
        drawn = [generator.integers(0, len(groups), len(groups)) for _ in range(RESAMPLES)]
        return [
            np.arange(len(self.sources)),
            *(np.concatenate([groups[g] for g in draw]) for draw in drawn),
        ]


def run() -> list[dict[str, Any]]:
    """Rows of shares closed, and of the gain from unlabelled samples."""
    torch.set_num_threads(1)
    closed, nothing, gain = [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            corpus = _demo(Path(folder) / "demo", seed)
            split, answers = _answers(corpus, [], oracle=True)
            closed.append(_closed(split, answers, seed))
            few = {name: _answers(corpus, [f"ssl={name}", *TENTH])[1] for name in ("on", "off")}
            draws = split.resamples(seed)
            on, off = ([split.scores(few[n]["fusion"], rows) for rows in draws] for n in few)
            gain.append(np.array(on) - np.array(off))
            shuffled = _demo(Path(folder) / "shuffled", seed, shuffle_labels=True)
            split, answers = _answers(shuffled, [])
            nothing.append(
                np.array([split.scores(answers["fusion"], r) for r in split.resamples(seed)])
            )
    rows = []
    for index, (task, score) in enumerate(TASKS.items()):
        rows.append(_row(f"share of the gap closed, {task}", closed, index, "", CLOSED))
        constant = 0.5 if task == "emotion" else 0.0
        rows.append(_row(f"shuffled labels, {score} (a constant's)", nothing, index, "", constant))
        rows.append(_row(f"unlabelled samples at 10 % labels, {score}", gain, index, "", 0.0))
    return rows


def _row(
    name: str, found: Sequence[np.ndarray], index: int, unit: str, reference: float
) -> dict[str, Any]:
    """Mean over seeds; the interval of that mean goes to stderr."""
    mean = np.mean([values[:, index] for values in found], axis=0)
    low, high = np.nanquantile(mean[1:], [0.025, 0.975])
    each = " ".join(f"{values[0, index]:.3f}" for values in found)
    print(f"\n{name}: {mean[0]:.4f} [{low:.4f}, {high:.4f}], seeds {each}", file=sys.stderr)
    # Beside a reference of 0 there is no ratio: 1 plus what is gained, or found, over it.
    ratio = mean[0] / reference if reference else 1 + mean[0]
    return {
        "name": name,
        "value": float(mean[0]),
        "unit": unit,
        "reference": reference,
        "ratio": float(ratio),
    }


def _closed(split: Split, answers: dict[str, Answers], seed: int) -> np.ndarray:
    """`[draws, 2]` share of the gap between the best modality alone and the oracle."""
    best = [max(MODALITIES, key=lambda name: _whole(split, answers[name])[i]) for i in (0, 1)]
    found = []
    for rows in split.resamples(seed):
        scores = {name: split.scores(answers[name], rows) for name in {*best, "fusion", "oracle"}}
        single = np.array([scores[name][i] for i, name in enumerate(best)])
        found.append((scores["fusion"] - single) / (scores["oracle"] - single))
    return np.array(found)


def _whole(split: Split, answers: Answers) -> np.ndarray:
    return split.scores(answers, np.arange(len(split.sources)))


def _demo(folder: Path, seed: int, *, shuffle_labels: bool = False) -> Path:
    """Corpus index and exports of a demo corpus; gives the index."""
    paths = make_demo_features(folder, clips=CLIPS, seed=seed, shuffle_labels=shuffle_labels)
    for name in MODALITIES:
        create = ["export", "create", "--modality", name, "--corpus", str(paths["corpus"])]
        create += ["--from", str(paths[name]), "--out", str(folder / "exports"), "--json"]
        stdout, sys.stdout = sys.stdout, sys.stderr  # data of the bench alone goes to stdout
        try:
            if mepr(create):
                raise RuntimeError(f"no export of {name}")
        finally:
            sys.stdout = stdout
    return paths["corpus"]


def _answers(
    index: Path, settings: Sequence[str], *, oracle: bool = False
) -> tuple[Split, dict[str, Answers]]:
    """Test answers of stage 3 trained with the packaged settings and these, of every modality
    alone and, where asked for, of the oracle. Thresholds are chosen on validation."""
    exports = index.parent / "exports"
    given = config.parse_assignments(settings)
    built = config.build(FusionSettings, config.read_toml(DEFAULTS), given)
    with tempfile.TemporaryDirectory() as folder:
        inputs = choose([index], exports, {})
        evaluation = Evaluation(train(inputs, built, Path(folder) / "run", exports_root=exports))
    joined, corpus = evaluation.joined, Corpus.read(index)
    val, test = joined.select(split="val"), joined.select(split="test")
    split = Split(joined.emotion_targets[test], joined.trait_targets[test], joined.source_ids[test])

    def chosen(on_val: Outputs, on_test: Outputs) -> Answers:
        val_probabilities, probabilities = (
            1 / (1 + np.exp(-outputs.emotion_logits)) for outputs in (on_val, on_test)
        )
        known = np.isfinite(val_probabilities).all(axis=1)
        targets = joined.emotion_targets[val[known]]
        thresholds = best_thresholds(targets, val_probabilities[known])
        return Answers(probabilities, thresholds, on_test.trait_scores)

    found = {"fusion": chosen(*(evaluation.outputs("fusion", rows) for rows in (val, test)))}
    for name in MODALITIES:
        found[name] = chosen(*(unimodal_outputs(joined, name, rows) for rows in (val, test)))
    if oracle:
        tables = {name: index.parent / f"{name}.parquet" for name in MODALITIES}
        expected = feature_oracle(corpus, tables)
        probability = np.clip(expected.emotion_probability, 1e-6, 1 - 1e-6)
        logits = np.log(probability / (1 - probability))
        rows_of = (joined.rows[rows] for rows in (val, test))
        found["oracle"] = chosen(*(Outputs(logits[r], expected.trait_mean[r]) for r in rows_of))
    return split, found
