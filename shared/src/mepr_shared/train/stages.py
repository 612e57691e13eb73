"""Stage 1 (one task) and stage 2 (both tasks over two frozen stage-1 models) from start to run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mepr_shared.config import to_dict
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EMOTIONS, TASKS, TRAITS
from mepr_shared.nn.cross_task import CrossTaskModel
from mepr_shared.nn.unimodal import UnimodalModel
from mepr_shared.plugin import Modality
from mepr_shared.scoring import constants_of
from mepr_shared.train.clip_task import (
    ClipTask,
    Objectives,
    build_emotion_objective,
    build_trait_objective,
    start_at_training_mean,
)
from mepr_shared.train.clips import ClipSet, gather
from mepr_shared.train.cross_task_fit import CrossTaskFit, hide_labels
from mepr_shared.train.evaluate_run import evaluate_outputs, predictions
from mepr_shared.train.frozen import frozen_clips
from mepr_shared.train.inference import ClipOutputs, answer_frames
from mepr_shared.train.limits import check_joint
from mepr_shared.train.loop import fit
from mepr_shared.train.models import build_cross_task, build_unimodal, load_model
from mepr_shared.train.predictions import (
    VAL_PREDICTIONS,
    SplitPredictions,
    write_predictions,
)
from mepr_shared.train.readout import emotion_outputs
from mepr_shared.train.run_report import write_run_report
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import Stage1Settings, Stage2Settings
from mepr_shared.train.statistics import standardise
from mepr_shared.train.varied import VariedClips, vary_clips


@dataclass(frozen=True)
class HeldOut:
    """One of K groups of sources.

    The group of a source follows from its name alone, so it is the same in every corpus, run and
    release.
    """

    fold: int
    folds: int

    def contains(self, source_ids: np.ndarray) -> np.ndarray:
        """`[N]` bool, whether each source is in this group."""
        return fold_of(source_ids, self.folds) == self.fold


def fold_of(source_ids: np.ndarray, folds: int) -> np.ndarray:
    """`[N]` int group of each source, in 0 .. folds - 1."""
    names, inverse = np.unique(source_ids.astype(str), return_inverse=True)
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    groups = np.array([int.from_bytes(digest, "big") % folds for digest in digests], dtype=np.int64)
    return groups[inverse]


OnEpoch = Callable[[dict[str, Any]], None]


def train_stage1(
    modality: Modality,
    task: str,
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    settings: Stage1Settings,
    run_path: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    held_out: HeldOut | None = None,
    copies: Sequence[Sequence[FrameStore]] = (),
) -> Run:
    """Train one task of one modality; the run directory is complete when this returns.

    Args:
        copies: varied copies of the training clips: for each, the stores of all corpora.
        held_out: sources that are kept out of the training split.

    Raises:
        DataError: no usable labelled clips in the training or validation split.
        MeprError: a run is there already, or training diverges.
    """
    train, val = _labelled_splits(corpora, stores, [task], held_out)
    description = {
        **_describe(modality.name, corpora, stores, held_out),
        "task": task,
        "settings": to_dict(settings),
        **({"copies": [[store.key for store in copy] for copy in copies]} if copies else {}),
    }
    upper = None
    if settings.model.kind == "pretrained":
        upper = modality.upper_layers(stores[0].spec, settings.model.layers)
        description["pretrained"] = upper.config
    run = Run.create(run_path, kind="stage1", config=description, resume=resume)
    torch.manual_seed(settings.fit.seed)
    model = build_unimodal(
        settings.model,
        input_width=stores[0].width,
        task=task,
        pretrained=upper.config if upper else None,
    )
    if upper:
        model.encoder.layers.load_state_dict(upper.weights)  # type: ignore[union-attr]
    standardise(model, train, batch_size=2 * settings.fit.batch_size, seed=settings.fit.seed)
    start_at_training_mean(model, train, task)
    objectives = Objectives(
        build_emotion_objective(settings.emotion_loss, train) if task == "emotion" else None,
        build_trait_objective(settings.trait_loss, settings.fit.batch_size)
        if task == "traits"
        else None,
    )
    varied = vary_clips(train, copies) if copies else None
    return _fit_and_finish(
        model, task, train, val, corpora, objectives, settings, run, device, on_epoch, varied
    )


def train_stage2(
    modality: Modality,
    emotion_run: Run,
    traits_run: Run,
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    settings: Stage2Settings,
    run_path: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    held_out: HeldOut | None = None,
) -> Run:
    """Train the cross-task block over two frozen stage-1 models on the union of corpora.

    Raises:
        ConfigError: the runs are not an emotion and a traits run over these features, or a
            setting is out of its limits.
        DataError: a task has no usable labelled clips in the training or validation split.
    """
    check_joint(settings)
    _check_stage1(emotion_run, "emotion", stores)
    _check_stage1(traits_run, "traits", stores)
    # The clips whose labels are hidden are drawn from all, so that they are the same without `ssl`.
    unlabelled = settings.ssl or settings.hidden_labels > 0
    train, val = _labelled_splits(corpora, stores, TASKS, held_out, unlabelled=unlabelled)
    visible, _ = hide_labels(train, settings)
    description = {
        **_describe(modality.name, corpora, stores, held_out),
        "settings": to_dict(settings),
        "stage1": {
            "emotion": _stage1_origin(emotion_run),
            "traits": _stage1_origin(traits_run),
        },
    }
    run = Run.create(run_path, kind="stage2", config=description, resume=resume)
    torch.manual_seed(settings.fit.seed)
    emotion_model, trait_model = load_model(emotion_run), load_model(traits_run)
    assert isinstance(emotion_model, UnimodalModel) and isinstance(trait_model, UnimodalModel)
    model = build_cross_task(settings.model, emotion_model, trait_model)
    objectives = Objectives(
        build_emotion_objective(settings.emotion_loss, visible),
        build_trait_objective(settings.trait_loss, settings.fit.batch_size),
    )
    return _fit_and_finish(
        model, None, train, val, corpora, objectives, settings, run, device, on_epoch
    )


def _fit_and_finish(
    model: UnimodalModel | CrossTaskModel,
    task: str | None,
    train: ClipSet,
    val: ClipSet,
    corpora: Sequence[Corpus],
    objectives: Objectives,
    settings: Stage1Settings | Stage2Settings,
    run: Run,
    device: str,
    on_epoch: OnEpoch | None,
    varied: VariedClips | None = None,
) -> Run:
    scales = [corpus.meta.scale for corpus in corpora]
    batch_size = 2 * settings.fit.batch_size
    trainable: ClipTask | CrossTaskFit
    if isinstance(model, CrossTaskModel):
        assert isinstance(settings, Stage2Settings)
        model.to(device)
        here: dict[str, Any] = {"batch_size": batch_size, "device": device}
        train, val = (frozen_clips(model, clips, run.path, **here) for clips in (train, val))
        trainable = CrossTaskFit(model, train, val, scales, objectives, settings, device)
    else:
        answer = partial(answer_frames, model, task)
        trainable = ClipTask(
            model, answer, train, val, scales, objectives, settings.fit, device, varied
        )
    result = fit(trainable, settings.fit, run, device=device, on_epoch=on_epoch)
    # Of the labels that training sees: without those that `hidden_labels` sets aside.
    seen = trainable.train_clips if isinstance(trainable, CrossTaskFit) else train
    constants = constants_of(seen.emotion_targets, seen.trait_targets)
    metrics = {
        "best_epoch": result.best_epoch,
        "epochs": result.history[-1]["epoch"],
        "val": result.best,
        "n": {"train": len(train), "val": len(val)},
        "dropped": {
            f"{split}/{corpus}/{reason}": count
            for split, clips in (("train", train), ("val", val))
            for (corpus, reason), count in clips.dropped.items()
        },
        "constants": {
            "emotion": _list(constants.emotion),
            "trait_mean": _list(constants.trait_mean),
            "trait_median": _list(constants.trait_median),
        },
        "train_sources": {
            name: sorted(set(train.source_ids[train.store_of == index].tolist()))
            for index, name in enumerate(train.corpora)
        },
    }
    outputs = trainable.validation_outputs()
    if objectives.emotion is not None and outputs.emotion_logits is not None:
        logits = outputs.emotion_logits.numpy()
        metrics["emotion_outputs"] = emotion_outputs(logits, val, objectives.emotion)
    # Written twice: scoring reads thresholds and constants from the run as anybody would.
    run.finish(metrics)
    parts = [np.flatnonzero(val.store_of == index) for index in range(len(corpora))]
    evaluations = [
        evaluate_outputs(run, corpus, "val", val.subset(rows), outputs.take(rows))
        for corpus, rows in zip(corpora, parts, strict=True)
    ]
    write_predictions(
        run.path / VAL_PREDICTIONS,
        [
            _split_predictions(run, corpus, val.subset(rows), outputs.take(rows))
            for corpus, rows in zip(corpora, parts, strict=True)
        ],
    )
    scores = outputs.trait_scores
    pairs = None if scores is None else (val.trait_targets, scores.numpy())
    write_run_report(run, evaluations, pairs)
    run.finish({**metrics, "evaluations": evaluations})
    return run


def _split_predictions(
    run: Run, corpus: Corpus, clips: ClipSet, outputs: ClipOutputs
) -> SplitPredictions:
    answers = predictions(run, corpus.meta.scale, outputs)
    return SplitPredictions(
        corpus.name,
        clips.sample_ids,
        clips.source_ids.tolist(),
        answers.emotion,
        answers.traits,
        clips.emotion_targets,
        clips.trait_targets,
        corpus.meta.scale.kind,
        answers.output,
        None if answers.thresholds is None else answers.thresholds.tolist(),
    )


def _labelled_splits(
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    tasks: Sequence[str],
    held_out: HeldOut | None,
    *,
    unlabelled: bool = False,
) -> tuple[ClipSet, ClipSet]:
    """Training and validation clips; every task must have labels in both.

    Args:
        unlabelled: training clips without any label are wanted too.
    """
    found = []
    for split in ("train", "val"):
        wanted = () if unlabelled and split == "train" else tasks
        clips = gather(corpora, stores, split=split, labelled_for=wanted)
        if held_out and split == "train":
            clips = clips.subset(np.flatnonzero(~held_out.contains(clips.source_ids)))
        for task in tasks:
            targets = clips.emotion_targets if task == "emotion" else clips.trait_targets
            if not np.isfinite(targets).any():
                raise DataError(
                    f"no usable clips with {task} labels in the {split} split of "
                    + ", ".join(corpus.name for corpus in corpora),
                    hint="see `mepr corpus show`; `mepr corpus split` makes splits",
                )
        found.append(clips)
    return found[0], found[1]


def _describe(
    modality: str,
    corpora: Sequence[Corpus],
    stores: Sequence[FrameStore],
    held_out: HeldOut | None,
) -> dict[str, Any]:
    return {
        **({"held_out": dataclasses.asdict(held_out)} if held_out else {}),
        "modality": modality,
        "labels": {"emotion": list(EMOTIONS), "traits": list(TRAITS)},
        "input_width": stores[0].width,
        "encoder": dict(stores[0].spec),
        "corpora": [
            {
                "name": corpus.name,
                "samples_sha256": corpus.hashes.samples_sha256,
                "labels_sha256": corpus.hashes.labels_sha256,
            }
            for corpus in corpora
        ],
    }


def _check_stage1(run: Run, task: str, stores: Sequence[FrameStore]) -> None:
    if run.kind != "stage1" or run.config["task"] != task:
        raise ConfigError(
            f"{run.path} is not a stage-1 {task} run", hint="--emotion-run and --traits-run"
        )
    if run.config["encoder"] != dict(stores[0].spec):
        raise ConfigError(
            f"{run.path} was trained on features of another encoder than the frame store holds",
            hint=f"its encoder: {run.config['encoder'].get('encoder')}; "
            f"the store's: {stores[0].spec.get('encoder')}",
        )
    if not run.metrics:
        raise ConfigError(f"{run.path} is not trained to its end", hint="train it with --resume")


def _stage1_origin(run: Run) -> Mapping[str, Any]:
    """What is kept of a stage-1 run inside the stage-2 run: its weights are copied there too."""
    return {
        "settings": run.config["settings"],
        "pretrained": run.config.get("pretrained"),
        "corpora": run.config["corpora"],
        "best_epoch": run.metrics["best_epoch"],
        "val": run.metrics["val"],
        "prior": run.metrics["constants"],
    }


def _list(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(v) for v in values]
