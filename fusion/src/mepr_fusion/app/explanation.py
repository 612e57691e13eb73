"""Why one prediction is what it is: key frames, words, contributions, attention, familiarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mepr_fusion.analyze.attribution import GROUPS
from mepr_fusion.answers import answer
from mepr_fusion.app.clip_attribution import ClipAttribution, Deletion, attribute, delete
from mepr_fusion.app.clip_chain import Chain
from mepr_fusion.layers import Standardise
from mepr_fusion.predict.answers import Answers
from mepr_fusion.predict.compose import Evidence
from mepr_fusion.predict.prediction import Prediction, TranscriptAnswer
from mepr_fusion.predict.sightings import Sighting
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.nn.standardise import StandardisedEncoder

KEY_FRAMES = 3
# A distance beyond this is marked. In training the mean of squared distances is 1 by construction,
# so that at most a quarter of the training clips can lie this far out (Markov's inequality).
FAR = 2.0
# Margin of a crop around its box, as a share of the box.
MARGIN = 0.15


@runtime_checkable
class NamesTokens(Protocol):
    """An extractor that says which characters of a text each of its frames stands for."""

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in `text` for every frame; empty spans for special tokens."""


@dataclass(frozen=True)
class KeyFrame:
    """A frame that matters.

    Attributes:
        number: of the frame in its window.
        time_s: in the recording.
        contribution: to the target, with sign.
        picture: what the modality saw of it, RGB uint8 `[h, w, 3]`; None where none was kept.
    """

    modality: str
    number: int
    time_s: float
    contribution: float
    picture: np.ndarray | None


@dataclass(frozen=True)
class SpokenPart:
    """A stretch of speech; `voice` is what its sound contributes, None without audio frames."""

    start_s: float
    end_s: float
    text: str
    voice: float | None


@dataclass(frozen=True)
class Word:
    """A word of the transcript and what it contributes."""

    text: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """What an answer rests on.

    Attributes:
        attribution: contributions of frames and of stage 3's inputs.
        deletion: a check of it on this clip.
        start_s, end_s: the stretch that is explained; None is the recording's start, or its end.
        key_frames: per modality that looks, those of the largest contribution first.
        parts: the stretches of speech in it.
        words: in order; empty where the text's encoder does not name its tokens.
        distance: modality -> how far the clip is from the training data (`familiarity`).
        attention: `graph [M, M]` (who listens, to whom; mean over heads), `emotion [queries, M]`
            and `traits [queries, M]`, as far as the model has them; each row sums to 1.
    """

    attribution: ClipAttribution
    deletion: Deletion
    start_s: float | None
    end_s: float | None
    key_frames: dict[str, list[KeyFrame]]
    parts: list[SpokenPart]
    words: list[Word]
    distance: dict[str, float]
    attention: dict[str, np.ndarray]

    @property
    def unfamiliar(self) -> list[str]:
        """Modalities in which the clip is unlike the training data."""
        return [name for name, distance in self.distance.items() if distance > FAR]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; pictures are left out."""
        found = self.attribution
        return {
            "target": found.target,
            "window": {"number": found.window, "start_s": self.start_s, "end_s": self.end_s},
            "method": "integrated gradients",
            "baseline": found.baseline,
            "completeness": {
                "largest_residual_share": found.completeness,
                "frames_residual": found.residual,
                "points_on_the_line": found.nodes,
            },
            "deletion": vars(self.deletion),
            "panels": {
                name: {
                    "value": panel.value,
                    "baseline": panel.baseline,
                    "residual": panel.residual,
                    "contributions": {
                        modality: dict(zip(GROUPS, row.tolist(), strict=True))
                        for modality, row in zip(found.modalities, panel.values, strict=True)
                    },
                }
                for name, panel in found.panels.items()
            },
            "frames": {name: values.tolist() for name, values in found.frames.items()},
            "key_frames": {
                name: [
                    {k: v for k, v in vars(frame).items() if k not in ("picture", "modality")}
                    for frame in frames
                ]
                for name, frames in self.key_frames.items()
            },
            "speech": [vars(part) for part in self.parts],
            "words": [vars(word) for word in self.words],
            "distance": {"values": self.distance, "far": FAR, "unfamiliar": self.unfamiliar},
            "attention": {name: value.tolist() for name, value in self.attention.items()},
        }


def explain(
    prediction: Prediction,
    evidence: Evidence,
    answers: Answers,
    *,
    target: str | None = None,
    window: int | None = None,
) -> Explanation:
    """Explain one window of a prediction.

    Args:
        prediction, evidence: of `Predictor.examine`.
        answers: `Predictor.answers`.
        target: an emotion or a trait; the emotion (else the trait) that stands out where None.
        window: its number; the one where the target is highest where None.

    Raises:
        ConfigError: no such target, or the model does not answer it.
    """
    chosen = target or _outstanding(prediction)
    if window is None:
        window = _highest(evidence, answers, chosen)
    chain = Chain(evidence, answers, window)
    emotion = chosen if chosen in EMOTIONS else _outstanding(prediction)
    found = attribute(chain, chosen, [emotion, *TRAITS])
    span = evidence.windows[window]
    return Explanation(
        found,
        delete(chain, found),
        span.start_s,
        span.end_s,
        {
            name: _key_frames(name, found.frames[name], seen[window])
            for name, seen in evidence.sightings.found.items()
            if name in found.frames
        },
        _spoken(prediction.transcript, evidence, found, window),
        _words(evidence, found, window),
        familiarity(chain),
        _attention(chain),
    )


def familiarity(chain: Chain) -> dict[str, float]:
    """Modality -> how far the clip lies from the training data, in training deviations.

    The larger of two root mean squares: of its frames, standardised as its stage-1 models do it,
    and of the embedding that stage 3 reads, standardised as stage 3 does it (a diagonal
    Mahalanobis distance over the root of the width). Each is 1 on average (in squares) over the
    training data. Layer norms between the two bound the second, so that it misses what the first
    sees. Models without statistics give none.
    """
    found = {}
    projectors = getattr(getattr(chain.model, "projector", None), "projectors", {})
    for name, part in chain.parts.items():
        frames = chain.frames[name][chain.masks[name]]
        known = [m for m in part.model.modules() if isinstance(m, StandardisedEncoder)]
        # Of two models with corpora of their own, the one that is nearer.
        distances = [min(_spread((frames - m.mean) / m.spread) for m in known)] if known else []
        standardise = getattr(projectors[name], "standardise", None) if name in projectors else None
        if isinstance(standardise, Standardise):
            values = chain.row.features[name][0]
            distances.append(_spread(standardise(values)[~values.isnan()]))
        if distances:
            found[name] = max(distances)
    return found


def _spread(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _outstanding(prediction: Prediction) -> str:
    """The most probable emotion; without emotions the trait that is farthest from the middle."""
    if prediction.emotion:
        probabilities = prediction.emotion.probabilities
        return max(probabilities, key=lambda name: probabilities[name])
    traits = prediction.traits or {}
    return max(traits, key=lambda name: abs(traits[name].score - 0.5))


def _highest(evidence: Evidence, answers: Answers, target: str) -> int:
    """Number of the window where the target's output is highest."""
    if target in TRAITS:
        values = evidence.fused.trait_scores[:, TRAITS.index(target)]
    else:
        logits = torch.from_numpy(evidence.fused.emotion_logits)
        shown = logits.sigmoid() if answers.multi_label else logits.softmax(dim=1)
        values = shown[:, EMOTIONS.index(target)].numpy() if target in EMOTIONS else np.zeros(1)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0


def _key_frames(name: str, contributions: np.ndarray, seen: Sighting) -> list[KeyFrame]:
    """The frames of the largest contribution, whatever its sign."""
    if len(seen.mask) != len(contributions):
        return []
    order = np.argsort(-np.abs(contributions), kind="stable")
    chosen = [number for number in order.tolist() if seen.mask[number]][:KEY_FRAMES]
    return [
        KeyFrame(name, n, float(seen.time_s[n]), float(contributions[n]), _crop(seen, n))
        for n in chosen
    ]


def _crop(seen: Sighting, number: int) -> np.ndarray | None:
    """The box with a margin, out of the picture that was kept of the frame."""
    if number >= len(seen.pictures) or seen.size is None:
        return None
    picture = seen.pictures[number]
    height, width = picture.shape[:2]
    left, top, right, bottom = (float(v) for v in seen.boxes[number])
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    x, y = width / seen.size[0], height / seen.size[1]
    first, last = max(0, int((left - across) * x)), min(width, round((right + across) * x))
    upper, lower = max(0, int((top - down) * y)), min(height, round((bottom + down) * y))
    if last - first < 2 or lower - upper < 2:
        return picture
    return picture[upper:lower, first:last]


def _spoken(
    transcript: TranscriptAnswer, evidence: Evidence, found: ClipAttribution, window: int
) -> list[SpokenPart]:
    """The stretches of speech in the window, with what the sound of each contributes."""
    span = evidence.windows[window]
    start = span.start_s or 0.0
    heard = _sound(evidence, found, window)
    parts = []
    for first, last, text in transcript.segments:
        if last <= start or (span.end_s is not None and first >= span.end_s):
            continue
        voice = None
        if heard is not None:
            times, values = heard
            voice = float(values[(times >= first) & (times < last)].sum())
        parts.append(SpokenPart(first, last, text, voice))
    return parts


def _sound(
    evidence: Evidence, found: ClipAttribution, window: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Times `[T]` in s and contributions `[T]` of the modality that listens."""
    start = evidence.windows[window].start_s or 0.0
    for name, values in found.frames.items():
        features = evidence.encoded.features[name][window]
        if features.hop_s and name not in evidence.sightings.found:
            return start + (np.arange(len(values)) + 0.5) * features.hop_s, values
    return None


def _words(evidence: Evidence, found: ClipAttribution, window: int) -> list[Word]:
    """Contributions of tokens, added up to words."""
    text = " ".join((evidence.texts[window] or "").split())
    for name, values in found.frames.items():
        extractor = evidence.parts[name].extractor
        if isinstance(extractor, NamesTokens):
            spans = extractor.token_spans(text)
            if len(spans) == len(values):
                return _by_word(text, spans, values)
    return []


def _by_word(text: str, spans: Sequence[tuple[int, int]], values: np.ndarray) -> list[Word]:
    words = text.split(" ")
    stops = np.cumsum([len(word) + 1 for word in words])
    sums = [0.0] * len(words)
    for (first, last), value in zip(spans, values.tolist(), strict=True):
        if last > first:
            sums[min(int(np.searchsorted(stops, first, side="right")), len(words) - 1)] += value
    return [Word(word, total) for word, total in zip(words, sums, strict=True)]


@torch.no_grad()
def _attention(chain: Chain) -> dict[str, np.ndarray]:
    """Attention weights of the window; rows and columns of absent modalities are 0."""
    weights: dict[str, Tensor] = answer(chain.model, chain.row).attention
    found = {}
    for name, value in weights.items():
        mean = value[0].mean(dim=0) if name == "graph" else value[0]
        found[name] = mean.double().nan_to_num().cpu().numpy()
    if "graph" in found:
        found["graph"] = found["graph"] * chain.row.present[0].cpu().numpy()[:, None]
    return found
