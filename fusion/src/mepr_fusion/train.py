"""Training stage 3: inputs to a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from mepr_fusion.answers import predict
from mepr_fusion.baselines import decision_shift, unimodal_names, unimodal_outputs
from mepr_fusion.calibrate import common_shift
from mepr_fusion.data import fit_statistics, resident, standardise
from mepr_fusion.inputs import Inputs, describe_corpora
from mepr_fusion.join import Joined, multi_label_by_corpus
from mepr_fusion.model import FusionModel
from mepr_fusion.objective import FusionObjective
from mepr_fusion.packed import join_once
from mepr_fusion.published.model import build_published
from mepr_fusion.settings import MODES, ComponentSettings, FusionModelSettings, FusionSettings
from mepr_fusion.task import FusionTask, Visible, visible_labels
from mepr_fusion.validation import labelled
from mepr_shared import config
from mepr_shared.contract.living import LOCK, write_lock
from mepr_shared.errors import ConfigError
from mepr_shared.labels import EMOTIONS
from mepr_shared.metrics import best_thresholds
from mepr_shared.objectives.emotion import EmotionObjective, balanced_weights, positive_weights
from mepr_shared.scoring import constants_of
from mepr_shared.train import distributed
from mepr_shared.train.checkpoint import load_weights
from mepr_shared.train.clip_task import build_trait_objective
from mepr_shared.train.inference import decision_probabilities
from mepr_shared.train.limits import check_joint, check_limits
from mepr_shared.train.loop import fit
from mepr_shared.train.runs import Run

KIND = "stage3"


def train(
    inputs: Inputs,
    settings: FusionSettings,
    run_path: Path,
    *,
    exports_root: Path,
    min_coverage: float = 0.0,
    resume: bool = False,
    device: str = "cpu",
    on_join: Callable[[Joined], None] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Join, train, choose by validation, and write the run.

    The untrained model, which answers with the mean of the unimodal predictions, is a candidate
    like every epoch: training that does not help on validation is not kept (epoch 0).

    Args:
        inputs: corpora and exports.
        settings: everything else that determines the result.
        run_path: a new directory, or with `resume` that of the interrupted run.
        exports_root: recorded, so that the run finds its exports again.
        min_coverage: see `join`.
        resume: go on with an interrupted run.
        device: where to train.
        on_join: is told what was joined, before training starts.
        on_epoch: is told each epoch's record.

    Raises:
        MeprError: inputs that do not fit, or a run that cannot be started or continued.
    """
    check_settings(settings)
    multi_label = multi_label_by_corpus(inputs.corpora)
    shift = prior_shifts(settings, inputs, multi_label)
    with distributed.first_alone():
        joined = join_once(
            inputs,
            exports_root,
            prior_shift=shift,
            multi_label=multi_label,
            min_coverage=min_coverage,
        )
    if on_join:
        on_join(joined)
    visible = visible_labels(joined, settings.hidden_labels, settings.fit.seed)
    if settings.emotion_loss.class_weights == "balanced":
        shift = balanced_shifts(joined, visible.emotion)
        joined.prior_shift = np.stack([shift[name] for name in joined.corpora])
    description = {
        "settings": config.to_dict(settings),
        "modalities": {name: list(joined.widths[name]) for name in joined.modalities},
        "prior_shift": {corpus: values.tolist() for corpus, values in shift.items()},
        "multi_label": multi_label,
        "corpora": describe_corpora(inputs.corpora),
        "exports": {
            f"{modality}:{corpus}": export.export_id
            for (modality, corpus), export in inputs.exports.items()
        },
        "exports_root": str(exports_root.resolve()),
    }
    if distributed.rank() == 0:
        run = Run.create(run_path, kind=KIND, config=description, resume=resume)
        write_lock(run.path / LOCK, inputs.exports.values())
    distributed.wait()
    if distributed.rank() > 0:
        run = Run.load(run_path)
    torch.manual_seed(settings.fit.seed)
    model = build_model(run.config).to(device)
    data = resident(joined, device, halves=MODES[settings.mode][0])
    train_rows = labelled(joined, "train")
    fit_statistics(model, data, torch.from_numpy(train_rows).to(device))
    task = FusionTask(
        model,
        standardise(model, data),
        joined,
        {corpus.name: corpus.meta.scale for corpus in inputs.corpora},
        build_objective(settings, joined, visible.emotion).to(device),
        settings,
    )
    with distributed.own_run(run) as mine:
        result = fit(task, settings.fit, mine, start_counts=True, device=device, on_epoch=on_epoch)
    if distributed.rank() > 0:
        return run
    run.finish(
        {
            "best_epoch": result.best_epoch,
            "epochs": result.history[-1]["epoch"],
            "val": result.best,
            "val_untrained": result.history[0]["val"],
            "thresholds": thresholds_of(model, task),
            "constants": _constants(joined, visible),
            "coverage": [asdict(entry) for entry in joined.coverage],
            "dropped": dropped_records(joined),
            "warnings": joined.warnings,
            "samples": _counts(joined),
            "configurations_tried": settings.configurations_tried,
        }
    )
    return run


def check_settings(settings: FusionSettings) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: names the first.
    """
    model = settings.model
    check_limits(
        [
            ("model.heads", model.heads, 1, math.inf),
            ("model.width", model.width, 2, math.inf),
            ("model.queries", model.queries, 1, math.inf),
            ("model.dropout", model.dropout, 0, 1),
            ("model.modality_dropout", model.modality_dropout, 0, 1),
            ("model.guide_blend", model.guide_blend, 0, 1),
            ("semi.refresh", settings.semi.refresh, 1, math.inf),
            ("fit.batch_size", settings.fit.batch_size, 1, math.inf),
        ]
    )
    divisor = math.lcm(model.heads, 2) if model.kind == "published" else model.heads
    if model.width % divisor:
        raise ConfigError(
            f"model.width = {model.width} is no multiple of {divisor}",
            hint="the heads share the width",
        )
    check_joint(settings)


def build_model(run_config: Mapping[str, Any]) -> FusionModel:
    """The untrained model that a stage-3 run's `config.json` describes."""
    settings = run_config["settings"]
    options = asdict(config.build(FusionModelSettings, settings["model"]))
    components = asdict(config.build(ComponentSettings, settings["components"]))
    halves, tasks = MODES[settings["mode"]]
    parts = {"both": (0, 1), "emotion": (0,), "traits": (1,)}[halves]
    widths = {
        name: sum(pair[part] for part in parts) for name, pair in run_config["modalities"].items()
    }
    if options.pop("kind") == "published":
        return cast(FusionModel, build_published(widths, options, components, tasks=tasks))
    return FusionModel(widths, tasks=tasks, **options, **components)


def load_model(run: Run, device: str = "cpu") -> FusionModel:
    """The trained model of a stage-3 run, in eval mode.

    Raises:
        ContractError: not trained yet, or damaged.
    """
    model = build_model(run.config)
    load_weights(model, run.weights_path)
    return model.to(device).eval()


def prior_shifts(
    settings: FusionSettings, inputs: Inputs, multi_label: Mapping[str, bool]
) -> dict[str, np.ndarray]:
    """Corpus name -> `[7]` shift of its calibrated logits before a decision: that of its exports
    under `class_weights = "exports"`, else 0.

    The unimodal predictions are given this shift as well: they then decide as the model will.
    """
    found = {corpus.name: np.zeros(len(EMOTIONS), dtype=np.float32) for corpus in inputs.corpora}
    if settings.emotion_loss.class_weights != "exports":
        return found
    for corpus in found:
        exports = [e for (_, name), e in inputs.exports.items() if name == corpus]
        outputs = [export.manifest.emotion_output for export in exports]
        found[corpus] = common_shift(
            [output for output in outputs if output is not None], multi_label=multi_label[corpus]
        )
    return found


def balanced_shifts(joined: Joined, emotion: np.ndarray) -> dict[str, np.ndarray]:
    """Corpus name -> `[7]` shift of weights by inverse frequency in its training rows.

    Args:
        emotion: `[N, 7]` the labels that training sees.
    """
    found = {}
    for corpus in joined.corpora:
        rows = joined.select(split="train", corpus=corpus)
        targets = emotion[rows]
        known = ~np.isnan(targets).any(axis=1)
        found[corpus] = np.zeros(len(EMOTIONS), dtype=np.float32)
        if known.any():
            multi = bool(joined.multi_label[rows].all())
            weights = (positive_weights if multi else balanced_weights)(targets[known])
            found[corpus] = weights.log().numpy()
    return found


def build_objective(
    settings: FusionSettings, joined: Joined, emotion: np.ndarray
) -> FusionObjective:
    """The configured losses. A corpus's class weights are those whose optimum has its prior
    shift; for a softmax they are scaled to a mean of 1 over its training rows.

    Args:
        emotion: `[N, 7]` the labels that training sees.
    """
    weights = np.exp(joined.prior_shift)
    for number, corpus in enumerate(joined.corpora):
        rows = joined.select(split="train", corpus=corpus)
        targets = emotion[rows]
        targets = targets[~np.isnan(targets).any(axis=1) & ~joined.multi_label[rows]]
        if len(targets):
            weights[number] /= (targets * weights[number]).sum(axis=1).mean()
    return FusionObjective(
        EmotionObjective(
            settings.emotion_loss.loss, label_smoothing=settings.emotion_loss.label_smoothing
        ),
        build_trait_objective(settings.trait_loss, settings.fit.batch_size),
        torch.from_numpy(joined.prior_shift),
        torch.from_numpy(weights.astype(np.float32)),
    )


def thresholds_of(model: FusionModel, task: FusionTask) -> dict[str, list[float]]:
    """Per-class thresholds on the decision probabilities, chosen on validation, for the model
    (`fusion`) and each unimodal baseline; empty where no corpus is multi-label."""
    joined = task.joined
    rows = labelled(joined, "val")
    rows = rows[joined.multi_label[rows] & ~np.isnan(joined.emotion_targets[rows]).any(axis=1)]
    if not len(rows):
        return {}
    answers = {"fusion": predict(model, task.data, rows)}
    answers |= {name: unimodal_outputs(joined, name, rows) for name in unimodal_names(joined)}
    found = {}
    for name, outputs in answers.items():
        given = ~np.isnan(outputs.emotion_logits).any(axis=1)
        if given.any():
            decided = outputs.emotion_logits + decision_shift(joined, name, rows)
            probabilities = decision_probabilities(decided[given], True)
            targets = joined.emotion_targets[rows[given]]
            found[name] = best_thresholds(targets, probabilities).tolist()
    return found


def dropped_records(joined: Joined) -> list[dict[str, Any]]:
    """Samples without any modality, per corpus, split and reason."""
    return [
        {"corpus": corpus, "split": split, "reason": reason, "samples": samples}
        for (corpus, split, reason), samples in sorted(joined.dropped.items())
    ]


def _constants(joined: Joined, visible: Visible) -> dict[str, dict[str, list[float] | None]]:
    """Per corpus what a constant answer would be, from its joined training rows."""
    found = {}
    for corpus in joined.corpora:
        rows = joined.select(split="train", corpus=corpus)
        constants = constants_of(visible.emotion[rows], visible.traits[rows])
        found[corpus] = {
            name: None if values is None else values.tolist()
            for name, values in vars(constants).items()
        }
    return found


def _counts(joined: Joined) -> dict[str, dict[str, int]]:
    """Joined samples per corpus and split."""
    return {
        corpus: {
            split: len(joined.select(split=split, corpus=corpus))
            for split in ("train", "val", "test")
        }
        for corpus in joined.corpora
    }
