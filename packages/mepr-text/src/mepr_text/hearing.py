"""What is said in one media file: a `mepr_shared.plugin.SpeechReader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.waveform import RATE, stream_waveform
from mepr_shared.plugin import Speech
from mepr_text.asr import Transcriber, Transcript, joined
from mepr_text.asr_settings import PROFILES, AsrSettings
from mepr_text.transcribe import BLOCK_S


class WhisperReader:
    """Reads files with a Whisper, long ones block by block.

    Args:
        transcriber: the loaded Whisper.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber
        self.spec: Mapping[str, Any] = transcriber.spec
        self.languages: Sequence[str] = transcriber.languages

    @classmethod
    def open(cls, model: str, *, language: str, device: str) -> WhisperReader:
        """Load a Whisper.

        Args:
            model: `small`, `paper`, or what `AsrSettings.model` takes.
            language: code, or `auto`.
            device: where it runs; on what CTranslate2 has no kernels for, it runs on the CPU.

        Raises:
            MeprError: as `Transcriber.open`.
        """
        settings = PROFILES.get(model) or AsrSettings(model)
        kind = device if device.startswith("cuda") else "cpu"
        return cls(Transcriber.open(replace(settings, language=language), kind))

    def read(self, media: Path) -> Speech:
        """What is said in a media file. Bad media gives a status, never an exception."""
        parts: list[tuple[float, Transcript]] = []
        try:
            stream = stream_waveform(media, rate=RATE, chunk_s=BLOCK_S)
        except MediaProblem as problem:
            return Speech("", status=problem.status, reason=problem.reason)
        for number, samples in enumerate(stream):
            parts.append((number * BLOCK_S, self.transcriber.transcribe(samples)))
        if stream.nothing_finite:
            reason = "not one sample is a finite number"
            return Speech("", status="decode_error", reason=reason)
        heard = joined(parts)
        reason = "; ".join(filter(None, (heard.reason, stream.problem)))
        status = "no_text" if not heard.text else "partial" if stream.problem else "ok"
        return Speech(
            heard.text,
            heard.segments,
            heard.language,
            heard.language_probability,
            heard.confidence,
            status,
            reason,
        )
