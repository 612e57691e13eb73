"""Wav2Vec2, HuBERT, WavLM and their like: any model of raw samples with strided convolutions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from mepr_audio.encoders import checked_layers
from mepr_audio.preprocess import FrameGrid
from mepr_shared.errors import ConfigError


@dataclass(frozen=True)
class Level:
    """Mean and spread of a clip's samples."""

    mean: float
    spread: float


class Wav2Vec2Encoder:
    """Hidden states of a Wav2Vec2-like model.

    Args:
        model: the loaded model.
        normalise: bring every clip to mean 0 and variance 1, as the model was trained.
        layers: whose states are put side by side; empty = the model's output.
        device: where the model is put.
        bf16: multiply matrices in bfloat16.
    """

    longest_s: float | None = None

    def __init__(
        self, model: Any, *, normalise: bool, layers: tuple[int, ...], device: str, bf16: bool
    ) -> None:
        config = model.config
        self.layers = checked_layers(layers, config.num_hidden_layers)
        if self.layers and max(self.layers) < config.num_hidden_layers:
            # Layers above the highest one asked for would be computed for nothing.
            model.encoder.layers = model.encoder.layers[: max(1, *self.layers)]
            if getattr(config, "do_stable_layer_norm", False):
                # The norm after the last layer belongs to that layer's state, not to this one.
                model.encoder.layer_norm = torch.nn.Identity()
        self.model = model.eval().requires_grad_(False).to(device)
        self.normalise = normalise
        self.device = device
        self.bf16 = bf16
        self.grid = grid_of(config.conv_kernel, config.conv_stride)
        self.width = config.hidden_size * max(1, len(self.layers))
        # These normalise over time and would see the padding: no padding, and no mask.
        self.equal_lengths = config.feat_extract_norm == "group"

    @classmethod
    def open(
        cls, folder: Path, *, layers: tuple[int, ...], device: str, bf16: bool
    ) -> Wav2Vec2Encoder:
        """Load a folder that `save_pretrained` wrote.

        Raises:
            ConfigError: not a model of raw samples.
        """
        try:
            model = AutoModel.from_pretrained(folder, local_files_only=True)
        except (ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"{folder} does not load as an audio encoder: {reason}") from None
        if not hasattr(model.config, "conv_stride") or not hasattr(model, "feature_extractor"):
            raise ConfigError(
                f"{folder} is a {model.config.model_type} model, which does not read samples",
                hint="Wav2Vec2, HuBERT and WavLM do, Whisper has a kind of its own",
            )
        return cls(model, normalise=_normalises(folder), layers=layers, device=device, bf16=bf16)

    def measure(self, chunks: Iterable[np.ndarray]) -> Level:
        """Mean and spread of the whole clip."""
        if not self.normalise:
            return Level(0.0, 1.0)
        count, total, squares = 0, 0.0, 0.0
        for chunk in chunks:
            count += len(chunk)
            total += float(chunk.sum(dtype=np.float64))
            squares += float(np.dot(chunk.astype(np.float64), chunk))
        mean = total / max(1, count)
        # The small number is the one that Hugging Face's feature extractors add.
        return Level(mean, (max(0.0, squares / max(1, count) - mean * mean) + 1e-7) ** 0.5)

    @torch.inference_mode()
    def encode(self, pieces: Sequence[tuple[np.ndarray, Level]]) -> list[np.ndarray]:
        """`[T, D]` of each piece."""
        waves = [
            torch.from_numpy((samples - level.mean) / level.spread).float()
            for samples, level in pieces
        ]
        counts = torch.tensor([len(wave) for wave in waves])
        batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(self.device)
        mask = None
        if not self.equal_lengths:
            mask = (torch.arange(batch.shape[1]) < counts[:, None]).to(self.device, torch.long)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
            states = self._states(batch, mask).float().cpu().numpy()
        return [
            row[: self.grid.frames(count)]
            for row, count in zip(states, counts.tolist(), strict=True)
        ]

    def _states(self, batch: Tensor, mask: Tensor | None) -> Tensor:
        if not self.layers:
            return self.model(batch, attention_mask=mask).last_hidden_state
        output = self.model(batch, attention_mask=mask, output_hidden_states=True)
        return torch.cat([output.hidden_states[layer] for layer in self.layers], dim=-1)


def grid_of(kernels: Sequence[int], strides: Sequence[int]) -> FrameGrid:
    """Hop and receptive field of a stack of convolutions without padding."""
    hop, receptive = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        receptive += (kernel - 1) * hop
        hop *= stride
    return FrameGrid(hop, receptive)


def _normalises(folder: Path) -> bool:
    """`do_normalize` of the folder's feature extractor; Hugging Face's default is True."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return True
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}") from None
    rate = config.get("sampling_rate", 16_000)
    if rate != 16_000:
        raise ConfigError(f"{folder} reads samples at {rate} Hz, this package gives 16000 Hz")
    return bool(config.get("do_normalize", True))
