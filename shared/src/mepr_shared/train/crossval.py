"""Cross-validation of stage 1: every clip of a corpus is predicted by a model that never saw its
source.

For corpora too small to spare a validation split. Nothing is selected: each model is trained for
`fit.epochs` and its last epoch counts. A tenth of its training sources serves for calibration and
curves. Clips of a test split take no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.contract.files import write_json
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.corpora.split import deal, fold_corpus, groups_of, stratification, with_splits
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.evaluation import evaluate
from mepr_shared.labels import EMOTIONS
from mepr_shared.plugin import Modality
from mepr_shared.scoring import Constants, Predictions, constants_of
from mepr_shared.train.clips import ClipSet, gather
from mepr_shared.train.evaluate_run import constants, predictions
from mepr_shared.train.inference import predict_clips
from mepr_shared.train.models import load_model
from mepr_shared.train.settings import Stage1Settings
from mepr_shared.train.stages import train_stage1

# Of the training clips of a fold, the share that calibrates its model.
VALIDATION_SHARE = 0.1
RESULT = "crossval.json"
HEADLINES = {"emotion": ("uar", "weighted_f1"), "traits": ("ccc", "macc")}


def cross_validate(
    modality: Modality,
    task: str,
    corpus: Corpus,
    store: FrameStore,
    settings: Stage1Settings,
    path: Path,
    *,
    folds: int,
    by: str = "source_id",
    copies: Sequence[FrameStore] = (),
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train K models and score their pooled predictions.

    The fold runs lie in `PATH/K/` and are reused; the result is `PATH/crossval.json`.

    Args:
        folds: K, at least 2.
        by: corpus column whose values must not straddle folds.
        copies: varied copies of the training clips, one store each.
        say: is told which fold is trained.

    Returns:
        the `evaluate` object over all clips, with `folds`, `per_fold` and `over_folds`.

    Raises:
        ConfigError, DataError: fewer than 2 folds, or too few sources or labels for them.
    """
    if folds < 2:
        raise ConfigError(f"--folds {folds}: cross-validation needs at least 2")
    kept = corpus.take(np.flatnonzero(corpus.splits != "test"))
    if not len(kept):
        raise DataError(f"corpus {corpus.name!r} has no clips outside its test split")
    settings = replace(settings, fit=replace(settings.fit, keep="last"))
    fold = np.array(fold_corpus(kept, folds, by=by).column("fold"), dtype=np.int64)
    parts: list[ClipSet] = []
    answers: list[Predictions] = []
    per_fold = []
    for number in range(folds):
        say(f"fold {number + 1} of {folds}")
        dealt = _dealt(kept, fold == number, by, settings.fit.seed)
        run = train_stage1(
            modality,
            task,
            [dealt],
            [store],
            settings,
            path / str(number),
            resume=True,
            device=device,
            copies=[[copy] for copy in copies],
        )
        clips = gather([dealt], [store], split="test", labelled_for=[task])
        outputs = predict_clips(load_model(run, device), task, clips, device=device)
        parts.append(clips)
        answers.append(predictions(run, kept.meta.scale, outputs))
        scores = _scored(kept, parts[-1:], answers[-1:], constants(run))[task]
        per_fold.append({"n": len(clips), **{name: scores[name] for name in HEADLINES[task]}})
        say("  " + "  ".join(f"{name} {scores[name]:.4f}" for name in HEADLINES[task]))
    result = _scored(kept, parts, answers, _overall(parts))
    spread = {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        for name in HEADLINES[task]
        if None not in (values := [scores[name] for scores in per_fold])
    }
    result |= {"folds": folds, "by": by, "per_fold": per_fold, "over_folds": spread}
    write_json(path / RESULT, result)
    return result


def _dealt(corpus: Corpus, held_out: np.ndarray, by: str, seed: int) -> Corpus:
    """The corpus with the held-out fold as test split, the rest dealt to train and val."""
    splits = np.where(held_out, "test", "train").astype(object)
    rest = np.flatnonzero(~held_out)
    others = corpus.take(rest)
    groups = np.unique(groups_of(others, by), return_inverse=True)[1]
    shares = np.array([1 - VALIDATION_SHARE, VALIDATION_SHARE])
    part = deal(groups, stratification(others), shares, seed)
    splits[rest[part == 1]] = "val"
    return with_splits(corpus, splits.tolist())


def _scored(
    corpus: Corpus,
    parts: Sequence[ClipSet],
    answers: Sequence[Predictions],
    constant: Constants,
) -> dict[str, Any]:
    """The `evaluate` object of pooled predictions."""
    dropped: Counter[str] = Counter()
    for clips in parts:
        for (_, reason), count in clips.dropped.items():
            dropped[reason] += count
    emotion = [_at_one_half(answer) for answer in answers]
    traits = [answer.traits for answer in answers]
    multi_label = corpus.meta.scale.is_multi_label
    return evaluate(
        corpus.name,
        "crossval",
        source_ids=[source for clips in parts for source in clips.source_ids.tolist()],
        emotion_targets=np.concatenate([clips.emotion_targets for clips in parts]),
        emotion_scale=corpus.meta.scale,
        emotion_probabilities=_joined(emotion),
        emotion_output=answers[0].output,
        thresholds=np.full(len(EMOTIONS), 0.5) if multi_label else None,
        trait_targets=np.concatenate([clips.trait_targets for clips in parts]),
        trait_scores=_joined(traits),
        constants=constant,
        n_dropped=dict(dropped),
    )


def _at_one_half(answer: Predictions) -> np.ndarray | None:
    """Probabilities moved so that each fold's own thresholds become 1/2, and can be pooled."""
    if answer.emotion is None or answer.thresholds is None:
        return answer.emotion
    odds = [np.log(p) - np.log1p(-p) for p in (_inside(answer.emotion), _inside(answer.thresholds))]
    return 1 / (1 + np.exp(odds[1] - odds[0]))


def _inside(probability: np.ndarray) -> np.ndarray:
    return np.clip(probability, 1e-7, 1 - 1e-7)


def _joined(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [value for value in values if value is not None]
    return np.concatenate(known) if known else None


def _overall(parts: Sequence[ClipSet]) -> Constants:
    """Constants of all clips: a baseline that knows a little more than the models did."""
    return constants_of(
        np.concatenate([clips.emotion_targets for clips in parts]),
        np.concatenate([clips.trait_targets for clips in parts]),
    )
