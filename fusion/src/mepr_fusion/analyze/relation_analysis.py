"""Emotion-trait relations of a run: from labels, from its answers, and from pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mepr_fusion.analyze.pseudo_answers import lacks_a_label, pseudo_labels
from mepr_fusion.analyze.rectified import possible_range, rectified_relations
from mepr_fusion.analyze.relations import Relations, disagreements, relations
from mepr_fusion.answers import Outputs
from mepr_fusion.evaluate import Evaluation
from mepr_shared.intervals import DEFAULT_RESAMPLING, Resampling
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.inference import decision_probabilities

Array = np.ndarray

# What each answer is an answer to; printed with it.
MEANING = {
    "labels": "labels of rows that have both: a statement about the labelled people",
    "predictions": "the model's answers to all rows: emotion and trait come from the same inputs "
    "and share their errors, so this is a statement about the model, not yet about people",
    "rectified": "labels, made more certain by the predictions of rows that lack a label: a "
    "statement about people, if labels are missing at random within a corpus",
    "pseudo_labels": "labels, and where one is missing the confident answers of the model "
    "(training split, where pseudo-labels are used): what semi-supervised training learns from; "
    "only confident rows are kept, which stretches correlations",
}


def relation_analysis(
    evaluation: Evaluation, split: str, how: Resampling = DEFAULT_RESAMPLING
) -> tuple[dict[str, Relations], dict[str, Any]]:
    """All answers that the run allows, and the same ready for JSON.

    Returns:
        Answer (`MEANING`) to relations; and a record with `answers`, `disagreements` between
        them, `possible_range` and `notes`. In answers that come from the model, `supported` says
        whether labels show the same (the rectified answer where there is one).
    """
    joined, notes = evaluation.joined, []
    rows = joined.select(split=split)
    labels = (joined.emotion_targets[rows].astype(float), joined.trait_targets[rows].astype(float))
    sources, corpus_of = joined.source_ids[rows].tolist(), joined.corpus_of[rows]
    outputs = evaluation.outputs("fusion", rows)
    said = (shown_probabilities(outputs, joined.multi_label[rows]), outputs.trait_scores)
    found: dict[str, Relations] = {}
    both = ~np.isnan(labels[0]).any(axis=1) & ~np.isnan(labels[1]).all(axis=1)
    if both.any():
        found["labels"] = relations(*labels, sources, corpus_of, how)
    else:
        notes.append(f"no row of {split} has labels of both tasks")
    two_tasks = all(np.isfinite(values).any() for values in said)
    bounds = None
    if not two_tasks:
        notes.append("the model answers one task: no relation in its predictions")
    else:
        found["predictions"] = relations(*said, sources, corpus_of, how)
        rectified = rectified_relations(labels, said, sources, corpus_of, how)
        if both.all():
            notes.append(f"every row of {split} has both labels: rectified would equal labels")
        elif rectified is None:
            notes.append(
                "fewer than 20 sources have rows with both labels: predictions cannot be "
                "rectified, and only a range of correlations is known (possible_range)"
            )
        else:
            found["rectified"] = rectified
            if split == "train":
                notes.append("the model was fitted to the training labels: rectified may be biased")
        trait_variance = np.nanvar(labels[1], axis=0) if both.any() else _trait_variance(evaluation)
        if trait_variance is not None:
            bounds = possible_range(*said, trait_variance)
        pseudo = _pseudo_relations(evaluation, how, notes)
        if pseudo is not None:
            found["pseudo_labels"] = pseudo
    answers = {name: {"meaning": MEANING[name], **value.to_json()} for name, value in found.items()}
    _mark_support(found, answers)
    record = {
        "answers": answers,
        "disagreements": disagreements(found),
        "possible_range": None if bounds is None else bounds.tolist(),
        "notes": notes,
    }
    return found, record


def shown_probabilities(outputs: Outputs, multi_label: Array, temperature: float = 1.0) -> Array:
    """`[n, 7]` probabilities of calibrated logits, sigmoid or softmax as each row's corpus is."""
    z = outputs.emotion_logits / temperature
    return np.where(
        multi_label[:, None], decision_probabilities(z, True), decision_probabilities(z, False)
    )


def _pseudo_relations(
    evaluation: Evaluation, how: Resampling, notes: list[str]
) -> Relations | None:
    joined = evaluation.joined
    train = joined.select(split="train")
    if not lacks_a_label(joined, train).any():
        notes.append("every training row has both labels: there are no pseudo-labels")
        return None
    emotion, traits = pseudo_labels(evaluation)
    lacking = lacks_a_label(joined, train)
    return relations(
        emotion[lacking],
        traits[lacking],
        joined.source_ids[train][lacking].tolist(),
        joined.corpus_of[train][lacking],
        how,
    )


def _trait_variance(evaluation: Evaluation) -> Array | None:
    labels = evaluation.joined.trait_targets[evaluation.joined.select(split="train")]
    return None if np.isnan(labels).all() else np.nanvar(labels.astype(float), axis=0)


def _mark_support(found: Mapping[str, Relations], answers: Mapping[str, Any]) -> None:
    """Say of every cell and emotion that the model answered whether labels show it too."""
    true = found.get("rectified", found.get("labels"))
    for name in ("predictions", "pseudo_labels"):
        if name not in found:
            continue
        for cell in answers[name]["cells"]:
            place = EMOTIONS.index(cell["emotion"]), TRAITS.index(cell["trait"])
            cell["supported"] = bool(
                true is not None
                and true.significant[place]
                and true.correlation[place] * cell["r"] > 0
            )
        for entry in answers[name]["order"]:
            index = EMOTIONS.index(entry["emotion"])
            entry["supported"] = bool(
                true is not None
                and true.mean_significant[index]
                and true.mean[index] * entry["mean_r"] > 0
            )
