"""From raw inputs to emotions and traits with one modality's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mepr_shared.labels import EMOTIONS, TRAITS, EmotionScale
from mepr_shared.plugin import ClipFeatures, ClipInput, Modality, reopen
from mepr_shared.train.clips import USABLE
from mepr_shared.train.evaluate_run import emotion_reading
from mepr_shared.train.inference import ClipOutputs, calibrated_probabilities, run_model
from mepr_shared.train.models import load_model
from mepr_shared.train.runs import Run


class UnimodalPredictor:
    """A run and its encoder, loaded once.

    Args:
        run: a finished stage-1 or stage-2 run of the modality.
        modality: the package it was trained with.
        device: where both are put.
    """

    def __init__(self, run: Run, modality: Modality, *, device: str = "cpu") -> None:
        self.run = run
        self.task: str | None = run.config.get("task")
        self.device = device
        self.model = load_model(run, device)
        self.extractor = reopen(modality, run.config["encoder"], device=device)

    def predict(self, clips: Sequence[ClipInput]) -> list[dict[str, Any]]:
        """One JSON-ready record per clip; a clip without usable input has a status and nulls."""
        return [
            self._record(clip, collected(features))
            for clip, features in zip(clips, self.extractor.extract(clips), strict=True)
        ]

    @torch.inference_mode()
    def _record(self, clip: ClipInput, features: ClipFeatures) -> dict[str, Any]:
        record: dict[str, Any] = {
            "input": clip.text if clip.media is None else str(clip.media),
            "status": features.status,
            "status_reason": features.reason or None,
            "emotion": None,
            "traits": None,
        }
        if features.status not in USABLE or features.frames is None:
            return record
        # Through float16, as training saw the features in the frame store.
        frames = torch.from_numpy(features.frames.astype(np.float16).astype(np.float32))
        mask = torch.ones(len(frames), dtype=torch.bool)
        if features.mask is not None:
            mask = torch.from_numpy(features.mask)
        outputs = run_model(
            self.model, self.task, frames[None].to(self.device), mask[None].to(self.device)
        )
        if outputs.emotion_logits is not None:
            record["emotion"] = read_emotion(self.run, outputs)
        if outputs.trait_scores is not None:
            scores = outputs.trait_scores[0].tolist()
            record["traits"] = dict(zip(TRAITS, (round(s, 4) for s in scores), strict=True))
        return record


def collected(features: ClipFeatures) -> ClipFeatures:
    """The same features with all frames of a stream in memory."""
    if features.stream is None:
        return features
    chunks = [chunk for chunk in features.stream if len(chunk)]
    # The status is final only now.
    return replace(features, frames=np.concatenate(chunks) if chunks else None, stream=None)


def read_emotion(run: Run, outputs: ClipOutputs) -> dict[str, Any]:
    """What one clip's logits mean: calibrated probabilities and the decision.

    `present` holds the emotions over their threshold (sigmoid; `neutral` where there is none), or
    the one that wins (softmax). The decision follows the raw logits, which training weighted
    towards rare emotions, so it may differ from the largest calibrated probability.
    """
    assert outputs.emotion_logits is not None
    kind = run.metrics["emotion_outputs"]["default"]
    scale = EmotionScale("multi_label" if kind == "sigmoid" else "single_label")
    reading = emotion_reading(run, scale)
    assert reading is not None
    logits = outputs.emotion_logits.float().cpu().numpy()
    shift = np.array(reading["prior_shift"])
    probabilities = calibrated_probabilities(
        logits, kind == "sigmoid", shift, reading["temperature"]
    )[0]
    if kind == "sigmoid":
        over = probabilities >= np.array(reading["thresholds"])
        present = [name for name, is_over in zip(EMOTIONS[1:], over[1:], strict=True) if is_over]
        present = present or [EMOTIONS[0]]
    else:
        present = [EMOTIONS[int(logits[0].argmax())]]
    rounded = (round(float(p), 4) for p in probabilities)
    return {
        "present": present,
        "probabilities": dict(zip(EMOTIONS, rounded, strict=True)),
        "output": kind,
    }
