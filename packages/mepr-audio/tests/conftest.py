"""Small pretrained models in the formats that real ones come in, and sounds."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

RATE = 16_000
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 7,
}
WRITERS = {
    "wav2vec2-layer": (Wav2Vec2Model, Wav2Vec2Config, {"feat_extract_norm": "layer"}),
    "wav2vec2-stable": (
        Wav2Vec2Model,
        Wav2Vec2Config,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "wav2vec2-group": (Wav2Vec2Model, Wav2Vec2Config, {"feat_extract_norm": "group"}),
    "hubert-stable": (
        HubertModel,
        HubertConfig,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "wavlm-layer": (WavLMModel, WavLMConfig, {"feat_extract_norm": "layer"}),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of a randomly initialised model, written by `save_pretrained`."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, (model, config, extra) in WRITERS.items():
        model(config(**{**SMALL, **extra})).save_pretrained(root / name)
    whisper = WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(whisper).save_pretrained(root / "whisper")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="session")
def voice() -> Callable[..., np.ndarray]:
    """Makes `[n]` float32 at 16 kHz: a gliding tone with noise, another one for every seed."""

    def make(seconds: float, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        time = np.arange(int(seconds * RATE)) / RATE
        tone = np.sin(2 * np.pi * (180 + 40 * seed + 30 * np.sin(3 * time)) * time)
        noise = 0.05 * random.standard_normal(len(time))
        return (0.3 * tone * (1 + 0.5 * np.sin(7 * time)) + noise).astype(np.float32)

    return make


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes 16-bit mono WAV files."""

    def write(samples: np.ndarray, name: str = "clip.wav", rate: int = RATE) -> Path:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return tmp_path / name

    return write
