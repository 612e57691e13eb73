"""Speech recognition: samples in, text with times, language and confidence out.

A model trained on subtitles invents words for noise. So only what a voice activity detector takes
for speech (Silero, inside faster-whisper) reaches Whisper, and its words are judged once more
(`asr_rules`). The detector misses screams and shouts, which matter here: where it hears nothing in
a short clip, Whisper may be asked too, and is believed if it is sure.

There is no sampling: the same sound gives the same text.

Whisper: Radford et al. 2023, "Robust Speech Recognition via Large-Scale Weak Supervision".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mepr_shared.errors import ConfigError, DataError, did_you_mean, require
from mepr_shared.extract.weights import PretrainedFolder, resolve
from mepr_text.asr_rules import NO_SPEECH, better, not_understood, problem
from mepr_text.asr_settings import AsrSettings
from mepr_text.asr_windows import LONGEST_S, RATE, Decoded, Window, WindowDecoder

# Raise this when the same settings would give another text than before.
SCHEMA = 1
# Silero's verdict on sound in which nothing at all resembles a voice is below this.
FAINT = 0.1
# Stated beside the settings, or without influence on the text.
_NOT_IN_SETTINGS = ("model", "revision", "needs", "batch_windows")


@dataclass(frozen=True)
class Transcript:
    """What is said.

    Attributes:
        text: empty where nobody speaks.
        language: code; None where nobody speaks.
        language_probability: of the detected language, in [0, 1]; None where it was given.
        confidence: geometric mean of the tokens' probabilities, in [0, 1]; None without text.
        segments: (start in s, end in s, text).
        reason: why there is no text, or which part has none.
        tokens: how many the confidence is a mean of.
    """

    text: str
    language: str | None = None
    language_probability: float | None = None
    confidence: float | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    reason: str = ""
    tokens: int = 0


class Transcriber:
    """A loaded Whisper.

    Args:
        model: a `faster_whisper.WhisperModel`.
        settings: how it is used.
        spec: what determines its texts: model, revision, weights, settings. Plain JSON.
    """

    def __init__(self, model: Any, settings: AsrSettings, spec: Mapping[str, Any]) -> None:
        self.model = model
        self.settings = settings
        self.spec = spec
        self.decoder = WindowDecoder(
            model, beam_size=settings.beam_size, batch_windows=settings.batch_windows
        )

    @classmethod
    def open(cls, settings: AsrSettings, device: str = "cpu", *, threads: int = 0) -> Transcriber:
        """Load the model that the settings name.

        Args:
            device: `cpu`, `cuda` or `cuda:N`.
            threads: CPU threads; 0 = OMP_NUM_THREADS, else CTranslate2's default.

        Raises:
            MissingDependency: faster-whisper, or the package with the weights, is not installed.
            ConfigError: the weights cannot be had or are no such Whisper; device, language or
                number format cannot be used.
        """
        whisper = require("faster_whisper", extra="mepr-text[asr]")
        kind, index = _device(device)
        folder = resolve(settings.model, revision=settings.revision, needs=settings.needs)
        compute_type = settings.compute_type
        if compute_type == "auto":
            compute_type = "float16" if kind == "cuda" else "int8"
        model = _load(whisper, folder, kind, index, compute_type, threads)
        language = settings.language
        if language != "auto" and language not in model.supported_languages:
            raise ConfigError(
                f"{settings.model} does not know the language {language!r}",
                hint=did_you_mean(language, ["auto", *model.supported_languages]),
            )
        if language == "auto" and not model.model.is_multilingual:
            settings = replace(settings, language="en")
        read = {**asdict(settings), "compute_type": compute_type}
        spec = {
            "model": settings.model,
            "revision": folder.revision,
            "weights_sha256": folder.weights_sha256,
            "settings": {name: read[name] for name in read if name not in _NOT_IN_SETTINGS},
            # It brings the voice activity detector and the log-mel frames.
            "faster_whisper": whisper.__version__,
            "schema": SCHEMA,
        }
        return cls(model, settings, spec)

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that the model knows."""
        return list(self.model.supported_languages)

    def transcribe(self, samples: np.ndarray) -> Transcript:
        """What is said in a recording; see `transcribe_batch`."""
        return self.transcribe_batch([samples])[0]

    def transcribe_batch(self, recordings: Sequence[np.ndarray]) -> list[Transcript]:
        """What is said in several recordings; faster than one after the other.

        Args:
            recordings: float32 `[n]` each, mono at 16 kHz, full scale 1, of any length.

        Raises:
            DataError: samples that are no finite numbers, or more than one channel.
        """
        windows = [self._windows(_checked(samples)) for samples in recordings]
        # The first window of each recording says which language the others are in.
        first = iter(self._decode([found[0] for found in windows if found]))
        heard = [[next(first)] if found else [] for found in windows]
        later = [
            replace(w, language=d[0].language, language_probability=d[0].language_probability)
            for found, d in zip(windows, heard, strict=True)
            for w in found[1:]
        ]
        others = iter(self._decode(later))
        for found, decoded in zip(windows, heard, strict=True):
            decoded.extend(next(others) for _ in found[1:])
        return [self._transcript(decoded) for decoded in heard]

    def _windows(self, samples: np.ndarray) -> list[Window]:
        """The stretches of speech, at most 30 s each."""
        settings = self.settings
        language = None if settings.language == "auto" else settings.language
        found = _voiced(samples, settings.speech_above, settings.shortest_speech_s)
        short = len(samples) <= LONGEST_S * RATE
        ask = settings.faint_no_speech_above > 0 and short
        if not found and ask and _voiced(samples, FAINT, 0.0):
            return [Window(samples, 0.0, language, faint=True)]
        return [Window(samples[start:end], start / RATE, language) for start, end in found]

    def _decode(self, windows: Sequence[Window]) -> list[Decoded]:
        """Decode with little padding, and once more as Whisper was trained where that fails."""
        settings = self.settings
        found = self.decoder.decode(windows)
        again = [index for index, first in enumerate(found) if not_understood(first, settings)]
        second = self.decoder.decode([windows[index] for index in again], full=True)
        for index, decoded in zip(again, second, strict=True):
            found[index] = better(found[index], decoded, settings)
        return found

    def _transcript(self, windows: Sequence[Decoded]) -> Transcript:
        problems = [problem(decoded, self.settings) for decoded in windows]
        kept = [d for d, found in zip(windows, problems, strict=True) if not found]
        counts = Counter(filter(None, problems))
        if not kept:
            return Transcript("", reason=", ".join(counts) or NO_SPEECH)
        of = f" in {{}} of {len(windows)} stretches of speech"
        tokens = sum(d.tokens for d in kept)
        mean = sum(d.log_probability * d.tokens for d in kept) / tokens
        return Transcript(
            text=" ".join(d.text for d in kept),
            language=windows[0].language,
            language_probability=windows[0].language_probability,
            confidence=math.exp(mean),
            segments=tuple(span for d in kept for span in d.spans),
            reason=", ".join(what + of.format(count) for what, count in counts.items()),
            tokens=tokens,
        )


def joined(parts: Sequence[tuple[float, Transcript]]) -> Transcript:
    """One transcript of the consecutive parts of a recording.

    Args:
        parts: (start of the part in s, its transcript).
    """
    spoken = [transcript for _, transcript in parts if transcript.text]
    reason = "; ".join(dict.fromkeys(t.reason for _, t in parts if t.reason and t.text))
    if not spoken:
        return Transcript("", reason="; ".join(dict.fromkeys(t.reason for _, t in parts)))
    tokens = sum(t.tokens for t in spoken)
    mean = sum(math.log(t.confidence or 1.0) * t.tokens for t in spoken) / tokens
    return replace(
        spoken[0],
        text=" ".join(t.text for t in spoken),
        confidence=math.exp(mean),
        segments=tuple(
            (round(start + offset, 2), round(end + offset, 2), text)
            for offset, transcript in parts
            for start, end, text in transcript.segments
        ),
        reason=reason,
        tokens=tokens,
    )


def _voiced(samples: np.ndarray, above: float, shortest_s: float) -> list[tuple[int, int]]:
    """Where Silero's verdict is above a probability: (first sample, last + 1), at most 30 s."""
    vad = require("faster_whisper.vad", extra="mepr-text[asr]")
    options = vad.VadOptions(
        threshold=above,
        min_speech_duration_ms=round(1000 * shortest_s),
        max_speech_duration_s=LONGEST_S,
    )
    found = vad.get_speech_timestamps(samples, options)
    return [(stretch["start"], stretch["end"]) for stretch in found]


def _device(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise ConfigError(
            f"Whisper cannot run on the device {device!r}", hint="known: cpu, cuda, cuda:N"
        )
    return kind, int(index or 0)


def _load(
    whisper: Any, folder: PretrainedFolder, kind: str, index: int, compute_type: str, threads: int
) -> Any:
    missing = [n for n in ("model.bin", "tokenizer.json") if not (folder.path / n).is_file()]
    if missing:
        raise ConfigError(
            f"{folder.id} is no Whisper in CTranslate2's format: it has no {missing[0]}",
            hint="ct2-transformers-converter --model ID --output_dir DIR "
            "--copy_files tokenizer.json preprocessor_config.json",
        )
    try:
        model = whisper.WhisperModel(
            str(folder.path),
            device=kind,
            device_index=index,
            compute_type=compute_type,
            cpu_threads=threads,
        )
    except (RuntimeError, ValueError) as error:  # no CUDA, another kind of model, a number format
        raise ConfigError(f"{folder.id} cannot be loaded on {kind}: {error}") from None
    mels = len(model.feature_extractor.mel_filters)
    if mels != model.model.n_mels:
        raise ConfigError(
            f"{folder.id} wants {model.model.n_mels} mel bands, but its preprocessor_config.json "
            f"says {mels} or is missing"
        )
    return model


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise DataError(
            f"expected finite mono samples [n], got an array of shape {list(samples.shape)}"
        )
    return samples
