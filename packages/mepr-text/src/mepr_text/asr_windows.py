"""Whisper on windows of speech: batches of log-mel frames in, tokens, times and likelihoods out.

Whisper was trained on 30 s and its encoder costs as much for a short window as for a long one where
it is padded to that. CTranslate2 takes less, so a window is padded by a few seconds only; which
windows share a batch never changes how far each is padded.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from mepr_shared.errors import require

RATE = 16_000
LONGEST_S = 30.0

# The packaged Whisper starts to repeat itself where less silence than this follows the speech.
_PADDING_S = 4.0
# Padded lengths are multiples of this, so that windows of like length can share a batch.
_STEP_S = 2.5
_FRAMES_PER_S = 100
_S_PER_TIMESTAMP = 0.02
# Fast speech has about 8 tokens a second, times included: more is a model that repeats itself.
_TOKENS_PER_S = 12
_TOKENS_TO_SPARE = 24
# Half of the decoder's positions, the other half is for a prompt.
_MOST_TOKENS = 224


@dataclass(frozen=True)
class Window:
    """Speech to be decoded.

    Attributes:
        samples: float32 `[n]` mono at 16 kHz, at most 30 s.
        start_s: where it starts in its recording.
        language: code, or None where it is to be detected.
        language_probability: of a language that was detected before.
        faint: whether the voice activity detector heard no speech in it.
    """

    samples: np.ndarray
    start_s: float = 0.0
    language: str | None = None
    language_probability: float | None = None
    faint: bool = False


@dataclass(frozen=True)
class Decoded:
    """What Whisper makes of a window.

    Attributes:
        seconds: how long the window is.
        spans: (start in s, end in s, text) on the recording's timeline.
        tokens: how many were generated, times and the end token included.
        log_probability: mean over these tokens.
        no_speech: probability of Whisper's token for "no speech", in [0, 1].
        finished: whether it came to an end by itself.
    """

    seconds: float
    spans: tuple[tuple[float, float, str], ...]
    tokens: int
    log_probability: float
    no_speech: float
    finished: bool
    language: str
    language_probability: float | None
    faint: bool = False

    @property
    def text(self) -> str:
        return " ".join(text for _, _, text in self.spans)

    @property
    def repetition(self) -> float:
        """How much smaller the text is when it is compressed (Whisper's compression ratio)."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


class WindowDecoder:
    """Beam search over windows.

    Args:
        model: a `faster_whisper.WhisperModel`.
        beam_size: hypotheses that are followed.
        batch_windows: windows decoded at once.
    """

    def __init__(self, model: Any, *, beam_size: int, batch_windows: int) -> None:
        self.model = model
        self.beam_size = beam_size
        self.batch_windows = batch_windows
        self._tokenizer = lru_cache(self._open_tokenizer)

    def decode(self, windows: Sequence[Window], *, full: bool = False) -> list[Decoded]:
        """Decode windows, in their order.

        Args:
            full: pad to 30 s, as in Whisper's training.
        """
        found: dict[int, Decoded] = {}
        for batch, frames in self._batches(windows, full):
            chosen = [windows[index] for index in batch]
            found.update(zip(batch, self._decode(chosen, frames), strict=True))
        return [found[index] for index in range(len(windows))]

    def _batches(self, windows: Sequence[Window], full: bool) -> Iterator[tuple[list[int], int]]:
        """Indices of windows of one padded length, and that length in frames."""

        def frames(index: int) -> int:
            return padded_frames(LONGEST_S if full else len(windows[index].samples) / RATE)

        for length, same in groupby(sorted(range(len(windows)), key=frames), key=frames):
            indices = list(same)
            for first in range(0, len(indices), self.batch_windows):
                yield indices[first : first + self.batch_windows], length

    def _decode(self, windows: Sequence[Window], frames: int) -> list[Decoded]:
        encoded = self.model.encode(np.stack([self._features(w.samples, frames) for w in windows]))
        windows = self._with_language(windows, encoded)
        tokenizers = [self._tokenizer(window.language) for window in windows]
        prompts = [list(tokenizer.sot_sequence) for tokenizer in tokenizers]
        longest_s = max(len(window.samples) for window in windows) / RATE
        limit = min(_MOST_TOKENS, int(_TOKENS_TO_SPARE + _TOKENS_PER_S * longest_s))
        results = self.model.model.generate(
            encoded,
            prompts,
            beam_size=self.beam_size,
            # CTranslate2 generates half of it at most.
            max_length=2 * limit,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            _decoded(window, tokenizer, result, limit)
            for window, tokenizer, result in zip(windows, tokenizers, results, strict=True)
        ]

    def _features(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """Log-mel frames `[mels, frames]`, 0 where there is no sound any more."""
        features = self.model.feature_extractor(samples)[:, :-1][:, :frames]
        return np.pad(features, ((0, 0), (0, frames - features.shape[1])))

    def _with_language(self, windows: Sequence[Window], encoded: Any) -> list[Window]:
        if all(window.language is not None for window in windows):
            return list(windows)
        # Pairs such as ("<|en|>", 0.98), most probable first.
        best = [found[0] for found in self.model.model.detect_language(encoded)]
        return [
            window
            if window.language is not None
            else replace(window, language=token[2:-2], language_probability=float(probability))
            for window, (token, probability) in zip(windows, best, strict=True)
        ]

    def _open_tokenizer(self, language: str) -> Any:
        module = require("faster_whisper.tokenizer", extra="mepr-text[asr]")
        multilingual = self.model.model.is_multilingual
        return module.Tokenizer(
            self.model.hf_tokenizer, multilingual, task="transcribe", language=language
        )


def padded_frames(seconds: float) -> int:
    """How many log-mel frames a window of so many seconds is padded to; at most 30 s."""
    steps = math.ceil((seconds + _PADDING_S) / _STEP_S)
    return round(min(steps * _STEP_S, LONGEST_S) * _FRAMES_PER_S)


def _decoded(window: Window, tokenizer: Any, result: Any, limit: int) -> Decoded:
    tokens = result.sequences_ids[0]
    # The score is the mean over the tokens without the end token, whose probability is in it.
    total = result.scores[0] * len(tokens)
    return Decoded(
        seconds=len(window.samples) / RATE,
        spans=tuple(_spans(window, tokenizer, tokens)),
        tokens=len(tokens) + 1,
        log_probability=total / (len(tokens) + 1),
        no_speech=float(result.no_speech_prob),
        finished=len(tokens) < limit,
        language=str(window.language),
        language_probability=window.language_probability,
        faint=window.faint,
    )


def _spans(
    window: Window, tokenizer: Any, tokens: Sequence[int]
) -> Iterator[tuple[float, float, str]]:
    """Text between time stamps; the last may lack its end."""
    end_s = len(window.samples) / RATE
    start, words = 0.0, []
    for token in (*tokens, None):
        if token is not None and token < tokenizer.timestamp_begin:
            words.append(token)
            continue
        time_s = end_s
        if token is not None:
            time_s = min(end_s, (token - tokenizer.timestamp_begin) * _S_PER_TIMESTAMP)
        # A token may be a part of a character's bytes: what makes up no character is no text.
        text = " ".join(tokenizer.decode(words).replace("\ufffd", " ").split())
        if text:
            yield round(window.start_s + start, 2), round(window.start_s + time_s, 2), text
        start, words = time_s, []
