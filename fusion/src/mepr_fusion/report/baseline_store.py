"""The linear baseline of a run, fitted once: `baselines.json` and `baselines.safetensors`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mepr_fusion.data import FusionBatch
from mepr_fusion.join import Joined
from mepr_fusion.report.embedding_baselines import NAME, LinearModel, fit_linear_model
from mepr_fusion.task import hide_labels
from mepr_fusion.validation import labelled
from mepr_shared.contract.files import sha256_file, sha256_json
from mepr_shared.train.runs import Run, replace_file

RECORD, WEIGHTS = "baselines.json", "baselines.safetensors"
# Raised when the same inputs would give another fit.
FIT_VERSION = 1


def linear_model_of(run: Run, joined: Joined) -> LinearModel:
    """The baseline of a run: read where it was fitted on the same exports and labels, else fitted.

    Args:
        run: a stage-3 run.
        joined: its table.
    """
    key = fit_key(run)
    stored = _read(run, key)
    if stored is not None:
        return stored
    model = fit_linear_model(as_seen(run, joined))
    # safetensors writes the memory as it lies, whatever the strides say.
    arrays = {name: np.ascontiguousarray(values) for name, values in model.arrays.items()}
    replace_file(run.path / WEIGHTS, lambda target: save_file(arrays, target))
    digest = sha256_file(run.path / WEIGHTS)
    run.write_json(RECORD, {NAME: {"fitted_on": key, "weights_sha256": digest, **model.record}})
    return model


def as_seen(run: Run, joined: Joined) -> Joined:
    """The table with the labels that training saw: without those it set aside."""
    settings = run.config["settings"]
    if not settings.get("hidden_labels"):
        return joined
    rows = joined.select(split="train") if settings["ssl"] else labelled(joined, "train")
    none = torch.empty(0)
    labels = FusionBatch(
        {},
        *(none, none, none),
        torch.from_numpy(joined.emotion_targets),
        torch.from_numpy(joined.trait_targets),
        *(none, none),
    )
    seen, _ = hide_labels(labels, rows, settings["hidden_labels"], settings["fit"]["seed"])
    return replace(joined, emotion_targets=seen.emotion.numpy(), trait_targets=seen.traits.numpy())


def fit_key(run: Run) -> str:
    """Hash of what the fit depends on: exports, corpora, the labels that training saw."""
    settings = run.config["settings"]
    return sha256_json(
        {
            "fit_version": FIT_VERSION,
            "exports": run.config["exports"],
            "corpora": [
                {name: corpus[name] for name in ("name", "samples_sha256", "labels_sha256")}
                for corpus in run.config["corpora"]
            ],
            "hidden_labels": [settings["hidden_labels"], settings["ssl"], settings["fit"]["seed"]]
            if settings.get("hidden_labels")
            else None,
        }
    )


def _read(run: Run, key: str) -> LinearModel | None:
    """What is stored, None where there is nothing, another fit, or damage: it is refitted then."""
    try:
        record: dict[str, Any] = json.loads((run.path / RECORD).read_text("utf-8"))[NAME]
        if record.pop("fitted_on") != key:
            return None
        if sha256_file(run.path / WEIGHTS) != record.pop("weights_sha256"):
            return None
        return LinearModel(load_file(run.path / WEIGHTS), record)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
