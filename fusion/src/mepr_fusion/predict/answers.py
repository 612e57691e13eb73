"""From what each modality's model answers to emotions and traits, alone and fused.

The table that stage 3 reads is built here as `join` builds it from exports, so that a clip gets the
numbers that the same clip of a corpus gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mepr_fusion.answers import Outputs, predict
from mepr_fusion.baselines import decision_shift, unimodal_outputs
from mepr_fusion.bundle.format import Bundle
from mepr_fusion.calibrate import common_shift, comparable
from mepr_fusion.data import FusionBatch, resident
from mepr_fusion.join import Joined
from mepr_fusion.predict.prediction import EmotionAnswer, TraitScore
from mepr_fusion.settings import MODES
from mepr_shared.contract.schema import EmotionOutput
from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.inference import ClipOutputs, decision_probabilities

FUSION = "fusion"


class Answers:
    """Reads outputs as those of one corpus's samples.

    Args:
        bundle: what was trained.
        model: its stage-3 model, in eval mode.
        corpus: as whose samples; the bundle's own choice where None.
        device: where the model is.

    Attributes:
        multi_label: whether any number of emotions may be present (sigmoid), or one (softmax).

    Raises:
        ConfigError: stage 3 was not trained on a corpus of that name.
    """

    def __init__(
        self, bundle: Bundle, model: Any, *, corpus: str | None = None, device: str = "cpu"
    ) -> None:
        kinds = bundle.config["multi_label"]
        self.corpus = corpus or bundle.corpus
        if self.corpus not in kinds:
            raise ConfigError(
                f"the bundle was not trained on a corpus {corpus!r}",
                hint=did_you_mean(self.corpus, kinds),
            )
        self.bundle, self.model, self.device = bundle, model, device
        self.multi_label: bool = kinds[self.corpus]
        self._readings = {name: self._reading(name) for name in bundle.modalities}
        self._half_widths, self.level = _intervals(bundle)
        calibration = bundle.content["stage3"].get("calibration") or {}
        kind = "sigmoid" if self.multi_label else "softmax"
        # Only of a run that was analysed: how sure its probabilities may be, by kind.
        self._temperature = float((calibration.get("temperature") or {}).get(kind) or 1.0)

    @property
    def temperature(self) -> float:
        """What stage 3's calibrated logits are divided by before they are shown."""
        return self._temperature

    def reading(self, name: str) -> EmotionOutput | None:
        """How the emotion logits of a modality are read; None where it has none."""
        return self._readings[name]

    def join(self, outputs: Mapping[str, Sequence[ClipOutputs | None]], count: int) -> Joined:
        """The table of `count` clips that stage 3 reads.

        Args:
            outputs: modality -> per clip its model's answer; None where there is none.
        """
        widths = {name: tuple(pair) for name, pair in self.bundle.config["modalities"].items()}
        joined = _empty(widths, count, self.corpus, self.multi_label)
        shift = self.bundle.config["prior_shift"].get(self.corpus)
        if shift is not None:
            joined.prior_shift[0] = shift
        for name, answers in outputs.items():
            index, reading = joined.modalities.index(name), self._readings[name]
            if reading is not None:
                own = common_shift([reading], multi_label=self.multi_label)
                joined.own_shift[name, self.corpus] = own
            for row, answer in enumerate(answers):
                if answer is not None:
                    self._fill(joined, name, index, row, answer)
        return joined

    def batch(self, joined: Joined) -> FusionBatch:
        """The table as the tensors that stage 3 takes."""
        halves = MODES[self.bundle.config["settings"]["mode"]][0]
        return resident(joined, self.device, halves=halves)

    def fused(self, joined: Joined, batch: FusionBatch) -> Outputs:
        """Stage 3's answer to each clip; NaN where no modality has anything."""
        rows = np.flatnonzero(joined.present.any(axis=1))
        logits = np.full((len(joined), len(EMOTIONS)), np.nan, np.float32)
        scores = np.full((len(joined), len(TRAITS)), np.nan, np.float32)
        if len(rows):
            found = predict(self.model, batch, rows)
            logits[rows] = found.emotion_logits / np.float32(self._temperature)
            scores[rows] = found.trait_scores
        return Outputs(logits, scores)

    def alone(self, joined: Joined, name: str) -> Outputs:
        """One modality's answer to each clip."""
        return unimodal_outputs(joined, name, np.arange(len(joined)))

    def emotion(self, joined: Joined, name: str, logits: np.ndarray) -> EmotionAnswer | None:
        """The mean over clips, and what is decided on; None where there is no answer.

        Args:
            name: a modality, or `fusion`.
            logits: `[n, 7]` calibrated logits of all clips of `joined`, or of some rows.
        """
        given = np.isfinite(logits).all(axis=1)
        if not given.any():
            return None
        shift = decision_shift(joined, name, np.zeros(int(given.sum()), dtype=np.int64))
        temperature = self._temperature if name == FUSION else 1.0
        shown = decision_probabilities(logits[given], self.multi_label).mean(axis=0)
        decided = decision_probabilities(logits[given] * temperature + shift, self.multi_label)
        present = self._present(name, decided.mean(axis=0), shown)
        probabilities = dict(zip(EMOTIONS, map(float, shown), strict=True))
        return EmotionAnswer(probabilities, present, "sigmoid" if self.multi_label else "softmax")

    def traits(self, name: str, scores: np.ndarray) -> dict[str, TraitScore] | None:
        """The mean over clips `[n, 5]`; intervals are known for `fusion` alone."""
        given = np.isfinite(scores).all(axis=1)
        if not given.any():
            return None
        found = {}
        for trait, value in zip(TRAITS, scores[given].mean(axis=0).tolist(), strict=True):
            half = self._half_widths.get(trait) if name == FUSION else None
            low, high = (None, None) if half is None else (value - half, value + half)
            found[trait] = TraitScore(
                value,
                None if low is None else max(0.0, low),
                None if high is None else min(1.0, high),
            )
        return found

    def _present(self, name: str, decided: np.ndarray, shown: np.ndarray) -> tuple[str, ...]:
        """The emotions over their thresholds, or the one that wins."""
        if not self.multi_label:
            return (EMOTIONS[int(decided.argmax())],)
        thresholds = self.bundle.metrics["thresholds"].get(name)
        if isinstance(thresholds, Mapping):
            thresholds = thresholds.get(self.corpus)
        reading = None if name == FUSION else self._readings[name]
        if thresholds is None and reading is not None and reading.thresholds:
            # A modality's own thresholds were chosen on calibrated probabilities.
            decided, thresholds = shown, reading.thresholds
        over = decided >= (0.5 if thresholds is None else np.array(thresholds))
        present = tuple(e for e, is_over in zip(EMOTIONS[1:], over[1:], strict=True) if is_over)
        return present or (EMOTIONS[0],)

    def _reading(self, name: str) -> EmotionOutput | None:
        """How a modality's logits are read: as for the corpus, else as for one of its kind."""
        outputs = self.bundle.modalities[name]["outputs"]
        kind = "sigmoid" if self.multi_label else "softmax"
        order = [outputs.get(self.corpus), *outputs.values()]
        known = [output for output in order if output is not None]
        alike = [output for output in known[1:] if output["kind"] == kind]
        if outputs.get(self.corpus) is None and alike:
            known = alike
        return EmotionOutput(**known[0]) if known else None

    def _fill(self, joined: Joined, name: str, index: int, row: int, answer: ClipOutputs) -> None:
        halves = [
            np.full(width, np.nan, np.float32) if value is None else value[0].float().cpu().numpy()
            for width, value in zip(
                joined.widths[name],
                (answer.emotion_embedding, answer.trait_embedding),
                strict=True,
            )
        ]
        joined.features[name][row] = np.concatenate(halves)
        joined.present[row, index] = True
        reading = self._readings[name]
        if answer.emotion_logits is not None and reading is not None:
            logits = answer.emotion_logits.float().cpu().numpy()
            joined.emotion_predictions[row, index] = comparable(
                logits, reading, multi_label=self.multi_label
            )[0]
        if answer.trait_scores is not None:
            joined.trait_predictions[row, index] = answer.trait_scores[0].float().cpu().numpy()


def _empty(
    widths: dict[str, tuple[int, int]], count: int, corpus: str, multi_label: bool
) -> Joined:
    """A table of clips that nobody has said anything of."""

    def unknown(*shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan, dtype=np.float32)

    return Joined(
        modalities=tuple(widths),
        widths=widths,
        corpora=(corpus,),
        corpus_of=np.zeros(count, dtype=np.int32),
        rows=np.arange(count),
        splits=np.full(count, None, dtype=object),
        source_ids=np.full(count, "input", dtype=object),
        features={name: unknown(sum(pair)) for name, pair in widths.items()},
        emotion_predictions=unknown(len(widths), len(EMOTIONS)),
        trait_predictions=unknown(len(widths), len(TRAITS)),
        present=np.zeros((count, len(widths)), dtype=bool),
        emotion_targets=unknown(len(EMOTIONS)),
        trait_targets=unknown(len(TRAITS)),
        multi_label=np.full(count, multi_label),
        prior_shift=np.zeros((1, len(EMOTIONS)), dtype=np.float32),
    )


def _intervals(bundle: Bundle) -> tuple[dict[str, float | None], float | None]:
    """Trait -> half-width of its interval, and the share of validation errors these hold."""
    said = bundle.content["stage3"].get("trait_intervals")
    return (said["half_width"], said["level"]) if said else ({}, None)
