"""Which labels the teacher rule gives to rows that lack one; a trained model is the teacher."""

from __future__ import annotations

import numpy as np
import torch

from mepr_fusion.data import standardise
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.join import Joined
from mepr_fusion.settings import FusionSettings
from mepr_fusion.teaching import Teaching
from mepr_shared import config

Array = np.ndarray


def pseudo_labels(evaluation: Evaluation, *, seed: int = 0) -> tuple[Array, Array]:
    """Labels of the training rows where there are some, else the model's confident answers.

    The rule and its settings are those of semi-supervised training (`Teaching`), whether or not
    the run was trained with it.

    Args:
        evaluation: the run; its model is the teacher.
        seed: of the dropout passes, where one modality alone gives a trait score.

    Returns:
        Emotions `[n, 7]` and traits `[n, 5]` of the `n` training rows, NaN where the model is not
        sure.
    """
    joined = evaluation.joined
    train, val = joined.select(split="train"), joined.select(split="val")
    settings = config.build(FusionSettings, evaluation.run.config["settings"])
    rows = torch.from_numpy(np.concatenate([train, val])).to(evaluation.data.present.device)
    # Gathered rows are a copy: standardising them leaves the evaluation's table as it is.
    data = standardise(evaluation.model, evaluation.data[rows])
    place = torch.arange(len(rows), device=rows.device)
    teaching = Teaching(
        evaluation.model,
        data,
        settings.semi,
        train_rows=place[: len(train)],
        val_rows=place[len(train) :],
        hidden_emotion=torch.full_like(data.emotion, torch.nan),
        hidden_traits=torch.full_like(data.traits, torch.nan),
        # The published model was taught by the published rule, whatever is configured here.
        published="published" in (settings.pseudo, settings.model.kind),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teaching.begin_epoch()
        given = teaching.labels(place[: len(train)])
    emotion, traits = (values.cpu().double().numpy() for values in (given.emotion, given.traits))
    labels = joined.emotion_targets[train], joined.trait_targets[train]
    return (
        np.where(np.isnan(labels[0]).any(axis=1, keepdims=True), emotion, labels[0]),
        np.where(np.isnan(labels[1]).all(axis=1, keepdims=True), traits, labels[1]),
    )


def lacks_a_label(joined: Joined, rows: Array) -> Array:
    """`[n]` bool: an emotion label or all trait labels are missing."""
    emotion = np.isnan(joined.emotion_targets[rows]).any(axis=1)
    return emotion | np.isnan(joined.trait_targets[rows]).all(axis=1)
