"""What the text modality is. Light: torch is imported only when an encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.plugin import Extractor, SpeechReader, UpperLayers

_CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class TextEncoderSettings:
    """The `[encoder]` table.

    Attributes:
        id: sentence-transformers / Hugging Face id, a folder, or `package:MODULE/FOLDER`.
        revision: hub commit, tag or branch.
        needs: distribution that carries a `package:` encoder.
        layers: hidden layers whose states are put side by side (0 is the input embedding, which
            also carries least context); empty = the model's own token embeddings. Middle layers
            often say more about a speaker than the last, which was trained for sentence meaning.
        max_tokens: longest window in tokens, special tokens included; 0 = the model's own.
        overlap: tokens that neighbouring windows of a long text share.
        context_turns: preceding turns of the dialogue that the encoder reads before the text;
            their tokens inform the text's own tokens and are then cut off.
        batch_tokens: padded tokens per forward pass.
        precision: `auto` is bf16 where the hardware multiplies it faster, else float32.
    """

    id: str
    revision: str = ""
    needs: str = ""
    layers: tuple[int, ...] = ()
    max_tokens: int = 0
    overlap: int = 32
    context_turns: int = 0
    batch_tokens: int = 4096
    precision: str = "auto"


class TextModality:
    """Transcripts, read by a sentence-transformers encoder as token embeddings."""

    name = "text"
    distribution = "mepr-text"
    inputs: tuple[str, ...] = ("text",)
    encoder_settings: type = TextEncoderSettings
    profiles: Mapping[str, Path] = {
        "paper": _CONFIGS / "paper.toml",
        "small": _CONFIGS / "small.toml",
    }

    def open_extractor(self, settings: TextEncoderSettings, *, device: str) -> Extractor:
        """Load tokenizer and encoder; see `mepr_shared.plugin.Modality`."""
        from mepr_text.encoder import TextExtractor

        return TextExtractor.open(settings, device=device)

    def upper_layers(self, spec: Mapping[str, Any], count: int) -> UpperLayers:
        """The encoder's layers above the extracted one; see `mepr_shared.plugin.Modality`."""
        from mepr_text.encoder import upper_layers

        return upper_layers(spec, count)

    def named_encoder(self, encoder: str) -> Mapping[str, Any]:
        """The `[encoder]` table for `--encoder ID_OR_DIR`."""
        return {"id": encoder, "revision": "", "needs": ""}

    def open_speech_reader(self, *, model: str, language: str, device: str) -> SpeechReader:
        """Load a Whisper; see `mepr_shared.plugin.ReadsSpeech`."""
        from mepr_text.hearing import WhisperReader

        return WhisperReader.open(model, language=language, device=device)


TEXT = TextModality()
