"""What the audio modality is. Light: torch is imported only when an encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mepr_shared.errors import ConfigError
from mepr_shared.plugin import Extractor, UpperLayers

_CONFIGS = Path(__file__).parent / "configs"
LOGMEL = "logmel"


@dataclass(frozen=True)
class AudioEncoderSettings:
    """The `[encoder]` table.

    Attributes:
        id: Hugging Face id, a folder, or `package:MODULE/FOLDER` of a Wav2Vec2-like or Whisper
            model (Whisper also in CTranslate2's format); `logmel` needs no weights.
        revision: hub commit, tag or branch.
        needs: distribution that carries a `package:` encoder.
        kind: `auto` reads it from the model's own configuration.
        layers: hidden layers whose states are put side by side, 0 is the input of the first;
            empty = the model's output. Middle layers often say more about how something is said.
        pool: neighbouring frames that are averaged into one.
        chunk_s: longest piece that the encoder sees at once, in s; longer audio is cut.
        overlap_s: what neighbouring pieces of long audio share, in s.
        shortest_s: shorter clips get the status `too_short`.
        batch_s: padded seconds of audio per forward pass.
        speed, noise_db: make this a varied copy for training (`train stage1 --augment`): played
            at this speed, and with white noise at this signal-to-noise ratio in dB (0 = none).
        precision: `auto` is bf16 where the hardware multiplies it faster, else float32.
    """

    id: str
    revision: str = ""
    needs: str = ""
    kind: Literal["auto", "wav2vec2", "whisper", "logmel"] = "auto"
    layers: tuple[int, ...] = ()
    pool: int = 1
    chunk_s: float = 30.0
    overlap_s: float = 4.0
    shortest_s: float = 0.1
    batch_s: float = 120.0
    speed: float = 1.0
    noise_db: float = 0.0
    precision: str = "auto"


class AudioModality:
    """Voices, read by a Wav2Vec2-like or Whisper encoder, or as log-mel frames."""

    name = "audio"
    distribution = "mepr-audio"
    inputs: tuple[str, ...] = ("media",)
    encoder_settings: type = AudioEncoderSettings
    profiles: Mapping[str, Path] = {
        "paper": _CONFIGS / "paper.toml",
        "small": _CONFIGS / "small.toml",
    }

    def open_extractor(self, settings: AudioEncoderSettings, *, device: str) -> Extractor:
        """Load the encoder; see `mepr_shared.plugin.Modality`."""
        from mepr_audio.encoder import AudioExtractor

        return AudioExtractor.open(settings, device=device)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """Raises `ConfigError`: audio encoders are not fine-tuned."""
        raise ConfigError(
            f"model.kind = pretrained cannot continue {spec['encoder']} for {count} layers: "
            "audio encoders are used as they are",
            hint="model.kind = mamba or transformer",
        )

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table for `--encoder ID_OR_DIR`, or `--encoder logmel`."""
        return {"id": encoder, "revision": "", "needs": "", "kind": "auto", "layers": []}


AUDIO = AudioModality()
