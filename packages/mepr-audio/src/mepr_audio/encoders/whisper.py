"""The encoder of a Whisper model: 50 frames a second.

Whisper pads every input to 30 s; here a clip is read at its own length, which costs a tenth for a
clip of 3 s and gives states that say as much about the voice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HuggingFaceEncoder

from mepr_audio.encoders import checked_layers
from mepr_audio.encoders.ctranslate2 import read_weights
from mepr_audio.encoders.logmel import HOP, RATE, MelSpectrum, blocks
from mepr_audio.preprocess import FrameGrid
from mepr_shared.errors import ConfigError


@dataclass(frozen=True)
class Peak:
    """The largest log10 mel power of a clip."""

    value: float


class WhisperEncoder:
    """States of a Whisper encoder's layers.

    Args:
        model: the loaded encoder.
        layers: whose states are put side by side; empty = the output after the last norm.
        device: where the model is put.
        bf16: multiply matrices in bfloat16.
    """

    # Two convolution strides over log-mel frames of 10 ms.
    grid = FrameGrid(2 * HOP, HOP)
    equal_lengths = False

    def __init__(
        self, model: HuggingFaceEncoder, *, layers: tuple[int, ...], device: str, bf16: bool
    ) -> None:
        depth = len(model.layers)
        self.layers = checked_layers(layers, depth)
        if self.layers:
            # Layers above the highest one asked for would be computed for nothing.
            model.layers = model.layers[: max(1, *self.layers)]
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device
        self.bf16 = bf16
        self.width = model.config.d_model * max(1, len(self.layers))
        self.longest_s = model.config.max_source_positions * 2 * HOP / RATE
        self.spectrum = MelSpectrum(model.config.num_mel_bins, device=device)

    @classmethod
    def open(
        cls, folder: Path, *, layers: tuple[int, ...], device: str, bf16: bool
    ) -> WhisperEncoder:
        """Load a Hugging Face or CTranslate2 folder.

        Raises:
            ConfigError: it holds no Whisper encoder.
        """
        model = load_ctranslate2(folder) if _is_ctranslate2(folder) else load_hugging_face(folder)
        return cls(model, layers=layers, device=device, bf16=bf16)

    @torch.inference_mode()
    def measure(self, chunks: Iterable[np.ndarray]) -> Peak:
        """The loudest value: Whisper cuts off what lies 8 decades of power below it."""
        return Peak(max(self._log(block).max().item() for block in blocks(chunks)))

    @torch.inference_mode()
    def encode(self, pieces: Sequence[tuple[np.ndarray, Peak]]) -> list[np.ndarray]:
        """`[T, D]` of each piece."""
        mels = [
            (torch.clamp(self._log(samples), min=peak.value - 8) + 4) / 4
            for samples, peak in pieces
        ]
        batch = nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True)
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
            states = self._states(batch.transpose(1, 2), lengths).float().cpu().numpy()
        kept = (-(-lengths // 2)).tolist()
        return [row[:length] for row, length in zip(states, kept, strict=True)]

    def _log(self, samples: np.ndarray) -> Tensor:
        return self.spectrum(samples).clamp(min=1e-10).log10()

    def _states(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """`[B, bands, M]` log-mel, `[B]` lengths -> `[B, ceil(M / 2), D]`."""
        model: Any = self.model
        # What follows a clip must look like the padding that a convolution sees at its end.
        inside = torch.arange(mel.shape[2], device=mel.device) < lengths[:, None]
        hidden = nn.functional.gelu(model.conv1(mel)) * inside[:, None]
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        inside = inside[:, ::2]
        blocked = torch.zeros(inside.shape, dtype=hidden.dtype, device=hidden.device)
        blocked = blocked.masked_fill(~inside, torch.finfo(hidden.dtype).min)[:, None, None]
        blocked = blocked.expand(-1, -1, inside.shape[1], -1)
        found = [hidden]
        for layer in model.layers:
            output = layer(hidden, blocked)
            hidden = output[0] if isinstance(output, tuple) else output
            found.append(hidden)
        if not self.layers:
            return model.layer_norm(hidden)
        return torch.cat([found[layer] for layer in self.layers], dim=-1)


def load_hugging_face(folder: Path) -> HuggingFaceEncoder:
    """The encoder of a folder that `save_pretrained` wrote."""
    model = WhisperModel.from_pretrained(folder, local_files_only=True)
    return model.get_encoder()


def load_ctranslate2(folder: Path) -> HuggingFaceEncoder:
    """The encoder of a folder in CTranslate2's format (as faster-whisper uses it).

    Raises:
        ConfigError: it is not a Whisper model.
    """
    weights = read_weights(folder / "model.bin", "encoder/")
    try:
        state, config = _to_hugging_face(weights)
        model = HuggingFaceEncoder(config)
        model.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{folder} holds no Whisper encoder: {error}") from None
    return model


def _is_ctranslate2(folder: Path) -> bool:
    return (folder / "model.bin").is_file() and not any(folder.glob("*.safetensors"))


def _to_hugging_face(weights: dict[str, np.ndarray]) -> tuple[dict[str, Tensor], WhisperConfig]:
    """CTranslate2's names -> Hugging Face's; query, key and value are one matrix in the former."""
    width = weights["conv1/weight"].shape[0]
    depth = sum(name.endswith("/ffn/linear_0/weight") for name in weights)
    named = {
        "conv1.weight": "conv1/weight",
        "conv1.bias": "conv1/bias",
        "conv2.weight": "conv2/weight",
        "conv2.bias": "conv2/bias",
        "embed_positions.weight": "position_encodings/encodings",
        "layer_norm.weight": "layer_norm/gamma",
        "layer_norm.bias": "layer_norm/beta",
    }
    state = {}
    for index in range(depth):
        ours, theirs = f"layers.{index}", f"layer_{index}"
        attention, feedforward = f"{theirs}/self_attention", f"{theirs}/ffn"
        for part, (norm, block) in {
            "self_attn_layer_norm": (f"{attention}/layer_norm", attention),
            "final_layer_norm": (f"{feedforward}/layer_norm", feedforward),
        }.items():
            named[f"{ours}.{part}.weight"] = f"{norm}/gamma"
            named[f"{ours}.{part}.bias"] = f"{norm}/beta"
            second = "self_attn.out_proj" if block == attention else "fc2"
            named[f"{ours}.{second}.weight"] = f"{block}/linear_1/weight"
            named[f"{ours}.{second}.bias"] = f"{block}/linear_1/bias"
        named[f"{ours}.fc1.weight"] = f"{feedforward}/linear_0/weight"
        named[f"{ours}.fc1.bias"] = f"{feedforward}/linear_0/bias"
        weight, bias = (
            weights[f"{attention}/linear_0/weight"],
            weights[f"{attention}/linear_0/bias"],
        )
        for place, part in enumerate(("q_proj", "k_proj", "v_proj")):
            rows = slice(place * width, (place + 1) * width)
            state[f"{ours}.self_attn.{part}.weight"] = torch.from_numpy(weight[rows].copy())
            if part != "k_proj":  # Whisper's keys have no bias; CTranslate2 stores zeros
                state[f"{ours}.self_attn.{part}.bias"] = torch.from_numpy(bias[rows].copy())
    state |= {ours: torch.from_numpy(weights[theirs].copy()) for ours, theirs in named.items()}
    config = WhisperConfig(
        d_model=width,
        encoder_layers=depth,
        encoder_attention_heads=int(weights["num_heads"]),
        encoder_ffn_dim=weights["layer_0/ffn/linear_0/weight"].shape[0],
        num_mel_bins=weights["conv1/weight"].shape[1],
        max_source_positions=weights["position_encodings/encodings"].shape[0],
    )
    return state, config
