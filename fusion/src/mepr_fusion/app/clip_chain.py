"""One window from the frames of its modalities to what is shown, differentiable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mepr_fusion.answers import answer
from mepr_fusion.calibrate import MAXIMUM_LOG_ODDS
from mepr_fusion.data import FusionBatch
from mepr_fusion.predict.answers import Answers
from mepr_fusion.predict.compose import Evidence
from mepr_fusion.predict.parts import Part
from mepr_fusion.settings import MODES
from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.nn.cross_task import CrossTaskModel, FrozenOutputs
from mepr_shared.nn.standardise import StandardisedEncoder
from mepr_shared.train.inference import ClipOutputs, run_model, stage2_outputs

# Values of frames `[nodes, T, D]` that are run at a time.
CHUNK_VALUES = 1 << 22

Frames = Mapping[str, Tensor]


class Chain:
    """One window from the frames of its modalities to the outputs, differentiable.

    Args:
        evidence: of a prediction.
        answers: how outputs are read.
        window: number of the window.
    """

    def __init__(self, evidence: Evidence, answers: Answers, window: int = 0) -> None:
        self.answers, self.window, self.model = answers, window, evidence.model
        self.row = evidence.batch[window : window + 1]
        self.modalities = evidence.joined.modalities
        self.halves = MODES[answers.bundle.config["settings"]["mode"]][0]
        self.parts: dict[str, Part] = {}
        self.frames: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self.widths = evidence.joined.widths
        for name, part in evidence.parts.items():
            found = evidence.encoded.features[name][window]
            if not evidence.joined.present[window, self.modalities.index(name)]:
                continue
            assert found.frames is not None
            # Through float16, as the prediction was made.
            rounded = found.frames.astype(np.float16).astype(np.float32)
            mask = np.ones(len(rounded), bool) if found.mask is None else found.mask
            self.parts[name] = part
            self.frames[name] = torch.from_numpy(rounded).to(answers.device)
            self.masks[name] = torch.from_numpy(mask).to(answers.device)
        self.start = {name: self._baseline(name) for name in self.parts}

    def baseline_words(self) -> dict[str, str]:
        """What the baseline frame of each modality is."""
        return {
            name: "zeros" if _mean_frame(part.model) is None else "the mean frame of training"
            for name, part in self.parts.items()
        }

    def batch(self, frames: Frames) -> FusionBatch:
        """Stage 3's inputs for `P` versions of the window, `[P, T, D]` per modality."""
        count = len(next(iter(frames.values())))
        rows = self.row[torch.zeros(count, dtype=torch.long, device=self.row.present.device)]
        features = dict(rows.features)
        emotion, traits = rows.emotion_predictions.clone(), rows.trait_predictions.clone()
        for name, x in frames.items():
            index, mask = self.modalities.index(name), self.masks[name].expand(count, -1)
            output = _run(self.parts[name], x, mask)
            features[name] = self._features(name, output, count)
            reading = self.answers.reading(name)
            if output.emotion_logits is not None and reading is not None:
                emotion[:, index] = comparable_tensor(
                    output.emotion_logits, reading, multi_label=self.answers.multi_label
                )
            if output.trait_scores is not None:
                traits[:, index] = output.trait_scores
        return replace(
            rows, features=features, emotion_predictions=emotion, trait_predictions=traits
        )

    def outputs(self, batch: FusionBatch) -> Tensor:
        """`[P, 12]` what is shown: seven probabilities, five scores; NaN for an absent task."""
        found = answer(self.model, batch)
        logits = found.emotion_logits / self.answers.temperature
        shown = logits.sigmoid() if self.answers.multi_label else logits.softmax(dim=1)
        return torch.cat((shown, found.trait_scores), dim=1)

    def points(self, at: Tensor) -> dict[str, Tensor]:
        """Versions of the frames at `at [P]` of the way from the baseline to the clip."""
        return {
            name: torch.lerp(self.start[name], x, at.view(-1, 1, 1))
            for name, x in self.frames.items()
        }

    def at_once(self) -> int:
        """How many versions fit into memory at a time."""
        return max(1, CHUNK_VALUES // max(x.numel() for x in self.frames.values()))

    def _baseline(self, name: str) -> Tensor:
        mean = _mean_frame(self.parts[name].model)
        x = self.frames[name]
        return torch.zeros_like(x) if mean is None else mean.to(x).expand_as(x)

    def _features(self, name: str, output: ClipOutputs, count: int) -> Tensor:
        halves = [
            torch.full((count, width), torch.nan, device=self.answers.device)
            if value is None
            else value
            for width, value in zip(
                self.widths[name], (output.emotion_embedding, output.trait_embedding), strict=True
            )
        ]
        if self.halves == "both":
            return torch.cat(halves, dim=1)
        return halves[self.halves == "traits"]


def column_of(target: str) -> int:
    """Place of an emotion or trait among the twelve outputs.

    Raises:
        ConfigError: neither.
    """
    names = (*EMOTIONS, *TRAITS)
    if target not in names:
        raise ConfigError(
            f"{target!r} is no emotion or trait", hint=did_you_mean(target, list(names))
        )
    return names.index(target)


def comparable_tensor(logits: Tensor, output: EmotionOutput, *, multi_label: bool) -> Tensor:
    """`mepr_fusion.calibrate.comparable` for tensors, differentiable; `[P, 7]`."""
    shift = torch.tensor(output.prior_shift, dtype=logits.dtype, device=logits.device)
    calibrated = (logits - shift) / output.temperature
    if output.kind == "sigmoid":
        odds = calibrated.clamp(-MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)
        if multi_label:
            return odds
        log_probability = nn.functional.logsigmoid(odds)
    else:
        log_probability = calibrated.log_softmax(dim=1).clamp_min(-MAXIMUM_LOG_ODDS)
        if multi_label:
            certain = -float(np.exp(-MAXIMUM_LOG_ODDS))
            rest = torch.log(-torch.expm1(log_probability.clamp_max(certain)))
            return (log_probability - rest).clamp(-MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)
    return log_probability - log_probability.mean(dim=1, keepdim=True)


def _run(part: Part, x: Tensor, mask: Tensor) -> ClipOutputs:
    """`run_model` with gradients through the frozen stage-1 models too."""
    model = part.model
    if not isinstance(model, CrossTaskModel):
        return run_model(model, part.task, x, mask)
    emotion, trait = model.emotion_model(x, mask), model.trait_model(x, mask)
    sequence = torch.cat((emotion.sequence, trait.sequence), dim=2)
    frozen = FrozenOutputs(sequence, emotion.logits, trait.logits)
    return stage2_outputs(model.from_frozen(frozen, mask))


def _mean_frame(model: nn.Module) -> Tensor | None:
    """`[D]` mean of the training frames, where the model keeps it to standardise its input."""
    means = [m.mean for m in model.modules() if isinstance(m, StandardisedEncoder)]
    return torch.stack(means).mean(dim=0) if means else None
