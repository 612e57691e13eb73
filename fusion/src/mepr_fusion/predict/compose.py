"""Puts a `Prediction` together from what was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mepr_fusion.answers import Outputs
from mepr_fusion.data import FusionBatch
from mepr_fusion.join import Joined
from mepr_fusion.predict.answers import FUSION, Answers
from mepr_fusion.predict.parts import Encoded, Part
from mepr_fusion.predict.prediction import (
    InputFacts,
    ModalityAnswer,
    Prediction,
    TranscriptAnswer,
    WindowAnswer,
)
from mepr_fusion.predict.sightings import Sightings
from mepr_fusion.predict.timeline import Span
from mepr_shared.errors import DataError
from mepr_shared.train.clips import USABLE
from mepr_shared.train.inference import ClipOutputs


@dataclass(frozen=True)
class Evidence:
    """What a prediction was computed from, for who explains it.

    Attributes:
        windows: the stretches of the input, one row each in everything below.
        texts: what is said in each.
        encoded: features `[T, D]` of every modality, with times and masks.
        outputs: modality -> per window its own model's answer.
        joined: the table that stage 3 read, by window.
        batch: the same as the tensors that `model` takes.
        fused: stage 3's answer to every window.
        sightings: where each modality looked.
        model: the stage-3 model, in eval mode.
        parts: the modalities' models.
    """

    windows: list[Span]
    texts: list[str | None]
    encoded: Encoded
    outputs: dict[str, list[ClipOutputs | None]]
    joined: Joined
    batch: FusionBatch
    fused: Outputs
    sightings: Sightings
    model: Any
    parts: dict[str, Part]


def compose(
    facts: InputFacts,
    transcript: TranscriptAnswer,
    evidence: Evidence,
    answers: Answers,
    absent: Mapping[str, tuple[str, str]],
) -> Prediction:
    """The prediction, without warnings and times.

    Args:
        absent: modality -> (status, reason) why it took no part.

    Raises:
        DataError: no modality found anything.
    """
    joined, fused = evidence.joined, evidence.fused
    modalities = {
        name: ModalityAnswer(*absent[name])
        if name in absent
        else _modality(name, evidence, transcript, answers)
        for name in joined.modalities
    }
    if not joined.present.any():
        reasons = "; ".join(
            f"{name}: {answer.status} {answer.reason}".rstrip()
            for name, answer in modalities.items()
        )
        raise DataError(f"nothing in {facts.path} can be used ({reasons})")
    return Prediction(
        facts,
        answers.emotion(joined, FUSION, fused.emotion_logits),
        answers.traits(FUSION, fused.trait_scores),
        modalities,
        transcript,
        _timeline(evidence, answers),
        corpus=answers.corpus,
        bundle=answers.bundle.id,
        interval_level=answers.level,
    )


def _timeline(evidence: Evidence, answers: Answers) -> tuple[WindowAnswer, ...]:
    """The answer to each window of a long recording."""
    if len(evidence.windows) < 2:
        return ()
    joined, fused = evidence.joined, evidence.fused
    names = np.array(joined.modalities)
    return tuple(
        WindowAnswer(
            window.start_s or 0.0,
            window.end_s or 0.0,
            answers.emotion(joined, FUSION, fused.emotion_logits[row : row + 1]),
            answers.traits(FUSION, fused.trait_scores[row : row + 1]),
            tuple(names[joined.present[row]].tolist()),
            evidence.texts[row] or "",
        )
        for row, window in enumerate(evidence.windows)
    )


def _modality(
    name: str, evidence: Evidence, transcript: TranscriptAnswer, answers: Answers
) -> ModalityAnswer:
    features = evidence.encoded.features[name]
    alone = answers.alone(evidence.joined, name)
    status, reason = overall([(f.status, f.reason) for f in features])
    if status == "no_text" and transcript.reason:
        reason = transcript.reason
    scores = [f.score for f in features if f.score is not None]
    return ModalityAnswer(
        status,
        reason,
        answers.emotion(evidence.joined, name, alone.emotion_logits),
        answers.traits(name, alone.trait_scores),
        frames=sum(len(f.frames) for f in features if f.frames is not None),
        masked=sum(int((~f.mask).sum()) for f in features if f.mask is not None),
        score=float(np.mean(scores)) if scores else None,
        encoder=str(evidence.parts[name].extractor.spec["encoder"]),
        windows=sum(f.status in USABLE for f in features),
    )


def overall(found: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """One status for several windows: `ok` where all are, `partial` where some are."""
    if len(found) == 1:
        return found[0]
    usable = [(status, reason) for status, reason in found if status in USABLE]
    others = [(status, reason) for status, reason in found if status not in USABLE]
    if not usable:
        return others[0]
    notes = [f"{others[0][0]} in {len(others)} of {len(found)} windows"] if others else []
    notes += list(dict.fromkeys(reason for status, reason in usable if reason))[:1]
    partial = bool(others) or any(status != "ok" for status, _ in usable)
    return ("partial" if partial else "ok"), "; ".join(notes)
