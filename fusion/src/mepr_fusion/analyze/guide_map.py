"""Which guide vectors are alike, and how near each lies to the samples it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mepr_fusion.answers import answer
from mepr_fusion.data import FusionBatch
from mepr_shared.labels import EMOTIONS, TRAITS

Array = np.ndarray
REPRESENT_BATCH = 4096


def guide_vectors(model: nn.Module) -> dict[str, Array]:
    """Per task (`emotion [7, H]`, `traits [5, H]`) the guide bank's vectors, where it has one."""
    found = {}
    for task, published in (("emotion", "guide_bank_emo"), ("traits", "guide_bank_pkl")):
        bank = getattr(getattr(model, task, None), "guide_bank", None)
        vectors = getattr(bank, "vectors", None)
        used = {"emotion": "emotion_guide", "traits": "trait_guide"}[task]
        # The published file holds a bank that is switched off too: it guides nothing then.
        if vectors is None and getattr(model, used, False):
            vectors = getattr(getattr(model, published, None), "embeddings", None)
        if vectors is not None:
            found[task] = vectors.detach().cpu().double().numpy()
    return found


@torch.inference_mode()
def representations(model: nn.Module, data: FusionBatch, rows: Array) -> dict[str, Array]:
    """Per task what the guide banks see of samples `[n]`: `[n, H]`."""
    model.eval()
    parts: dict[str, list[Tensor]] = {"emotion": [], "traits": []}
    for part in torch.from_numpy(rows).to(data.present.device).split(REPRESENT_BATCH):
        output = answer(model, data[part])
        for task, value in (
            ("emotion", output.emotion_representation),
            ("traits", output.trait_representation),
        ):
            if value.shape[1]:  # a task that the model has
                parts[task].append(value.double().cpu())
    return {task: torch.cat(values).numpy() for task, values in parts.items() if values}


def class_means(represented: Array, member: Array) -> Array:
    """`[K, H]` mean representation of each class less that of all samples; NaN for empty ones.

    What all samples share says nothing of a class, and would make all cosines alike.

    Args:
        represented: `[n, H]`.
        member: `[n, K]` bool.
    """
    count = member.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = member.T.astype(float) @ represented / count[:, None]
    return means - represented.mean(axis=0)


def high_and_low(traits: Array) -> tuple[Array, Array]:
    """`[n, 5]` bool each: the upper and the lower third of every trait's labels."""
    low, high = np.nanquantile(traits, (1 / 3, 2 / 3), axis=0)
    return traits >= high, traits <= low


def cosine(first: Array, second: Array) -> Array:
    """`[K, L]` cosines of rows `[K, H]` and `[L, H]`; NaN for a row that is NaN or zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)]
    return unit[0] @ unit[1].T


def guide_map(
    model: nn.Module, data: FusionBatch, rows: Array, emotion: Array, traits: Array
) -> dict[str, Any] | None:
    """Cosines of the guide vectors with each other and with the classes they stand for.

    Args:
        rows: `[n]` samples that classes are taken from.
        emotion, traits: `[n, 7]`, `[n, 5]` their labels, NaN where there is none.

    Returns:
        `names, similarity` (up to 12 x 12), and per task `to_class_means` with its `columns`
        (emotions; traits: upper third less lower third of the labels). None without a guide bank.
        The two tasks' vectors live in representations of their own: a cosine between tasks
        compares directions that training never had to compare.
    """
    vectors = guide_vectors(model)
    if not vectors:
        return None
    names = {"emotion": EMOTIONS, "traits": TRAITS}
    stacked = np.concatenate(list(vectors.values()))
    found: dict[str, Any] = {
        "names": [name for task in vectors for name in names[task]],
        "similarity": cosine(stacked, stacked).tolist(),
        "to_class_means": {},
    }
    seen = representations(model, data, rows) if len(rows) else {}
    for task in vectors:
        labels = emotion if task == "emotion" else traits
        known = ~np.isnan(labels).all(axis=1)
        if task not in seen or known.sum() < 2:
            continue
        represented, labels = seen[task][known], labels[known]
        if task == "emotion":
            means = class_means(represented, labels > 0.5)
        else:
            high, low = high_and_low(labels)
            means = class_means(represented, high) - class_means(represented, low)
        found["to_class_means"][task] = {
            "columns": list(names[task]),
            "n": int(known.sum()),
            "cosine": cosine(vectors[task], means).tolist(),
        }
    return found
