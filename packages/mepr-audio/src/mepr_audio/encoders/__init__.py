"""Pretrained encoders behind one protocol: samples in, frames out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mepr_audio.plugin import LOGMEL, AudioEncoderSettings
from mepr_audio.preprocess import FrameGrid
from mepr_shared.errors import ConfigError
from mepr_shared.extract.weights import resolve

RATE = 16_000
_WHISPER_TYPES = ("whisper", "WhisperSpec")


class FrameEncoder(Protocol):
    """A loaded encoder.

    Attributes:
        grid: how its frames lie on the samples.
        width: `D` of a frame.
        longest_s: longest piece it can read, in s; None where there is no limit.
        equal_lengths: a batch must hold pieces of one sample count. True for models that
            normalise over time and would see the padding (`feat_extract_norm = "group"`).
    """

    grid: FrameGrid
    width: int
    longest_s: float | None
    equal_lengths: bool

    def measure(self, chunks: Iterable[np.ndarray]) -> Any:
        """What the encoder must know of a whole clip (level, spread), from one pass over it."""

    def encode(self, pieces: Sequence[tuple[np.ndarray, Any]]) -> list[np.ndarray]:
        """(samples `[n]` float32 at 16 kHz, what `measure` said of its clip) -> `[T, D]` each."""


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder with what identifies its weights."""

    encoder: FrameEncoder
    revision: str
    weights_sha256: str


def open_encoder(settings: AudioEncoderSettings, *, device: str, bf16: bool) -> OpenedEncoder:
    """Load the encoder that the settings name.

    Raises:
        ConfigError: the weights cannot be had, or are of no kind that is known here.
    """
    kind = settings.kind
    if LOGMEL in (settings.id, kind):
        if settings.id != LOGMEL or kind not in ("auto", LOGMEL) or settings.layers:
            raise ConfigError(
                f"encoder {settings.id!r} of kind {kind!r} with layers {list(settings.layers)}",
                hint='log-mel frames are id = "logmel" alone: no weights, no layers',
            )
        from mepr_audio.encoders.logmel import LogMelEncoder

        return OpenedEncoder(LogMelEncoder(device=device), "", "")
    folder = resolve(settings.id, revision=settings.revision, needs=settings.needs)
    if kind == "auto":
        kind = "whisper" if _model_type(folder.path) in _WHISPER_TYPES else "wav2vec2"
    encoder: FrameEncoder
    if kind == "whisper":
        from mepr_audio.encoders.whisper import WhisperEncoder

        encoder = WhisperEncoder.open(folder.path, layers=settings.layers, device=device, bf16=bf16)
    else:
        from mepr_audio.encoders.wav2vec2 import Wav2Vec2Encoder

        encoder = Wav2Vec2Encoder.open(
            folder.path, layers=settings.layers, device=device, bf16=bf16
        )
    return OpenedEncoder(encoder, folder.revision, folder.weights_sha256)


def _model_type(folder: Path) -> str:
    """`model_type` of a Hugging Face folder, the spec of a CTranslate2 one."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} has no readable config.json: {error}") from None
    if "model_type" in config:
        return str(config["model_type"])
    if (folder / "model.bin").is_file():
        from mepr_audio.encoders.ctranslate2 import read_spec

        return read_spec(folder / "model.bin")
    raise ConfigError(f"{folder}/config.json names no model_type")


def checked_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """The layers asked for.

    Raises:
        ConfigError: the encoder has no such layer.
    """
    if any(not 0 <= layer <= depth for layer in layers):
        raise ConfigError(
            f"encoder.layers = {list(layers)}: the encoder has layers 0 to {depth}",
            hint="0 is the input of the first layer",
        )
    return tuple(layers)
