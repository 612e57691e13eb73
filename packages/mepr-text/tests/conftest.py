"""What the tests of transcription share: the packaged Whisper, sounds that are no speech, files."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mepr_text.asr import Transcriber
from mepr_text.asr_settings import PROFILES

RATE = 16_000
WriteWav = Callable[[Path, np.ndarray], Path]


@pytest.fixture(scope="session")
def transcriber() -> Transcriber:
    """The small profile's Whisper (tiny.en)."""
    return Transcriber.open(PROFILES["small"], threads=1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recordings of people."""
    folder = os.environ.get("MEPR_REAL_DATA")
    if not folder:
        pytest.skip("MEPR_REAL_DATA is not set: no recordings here")
    return Path(folder)


@pytest.fixture(scope="session")
def write_wav() -> WriteWav:
    """Writes float32 samples as a 16 kHz mono WAV file."""

    def write(path: Path, samples: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        return path

    return write


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of many languages in CTranslate2's format."""
    from ctranslate2.converters.transformers import WhisperLoader
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import Tokenizer, models
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    languages = [f"<|{code}|>" for code in _LANGUAGE_CODES[:99]]
    # The empty token is what CTranslate2 tells multilingual vocabularies by.
    special = ["", "<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>", *(f"<|{0.02 * i:.2f}|>" for i in range(1501))]
    tokens = [*(f"w{i}" for i in range(51865 - len(special))), *special]
    config = WhisperConfig(
        vocab_size=len(tokens),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    folder = tmp_path_factory.mktemp("whisper")
    spec = WhisperLoader().get_model_spec(WhisperForConditionalGeneration(config))
    spec.register_vocabulary(tokens)
    spec.config.lang_ids = [tokens.index(language) for language in languages]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    Tokenizer(models.WordLevel(vocabulary, "w0")).save(str(folder / "tokenizer.json"))
    return folder
