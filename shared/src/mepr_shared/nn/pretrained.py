"""The upper layers of a pretrained Transformer as a stage-1 sequence encoder, fine-tuned.

The frame store holds the hidden states below them, computed once; only these layers are trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, require


class PretrainedEncoder(nn.Module):
    """`[B, T, D]` hidden states -> the encoder's remaining layers -> `[B, T, width]`.

    Args:
        config: the Hugging Face configuration of the encoder, with `num_hidden_layers` set to
            the number of layers wanted here.
        width: of the output; a projection follows the layers.
        dropout: inside the layers and after the projection.
        input_dropout: on the hidden states.

    Raises:
        ConfigError: not a BERT-like model (one whose `encoder` is called with hidden states and
            an attention mask).
    """

    def __init__(
        self, config: Mapping[str, Any], *, width: int, dropout: float, input_dropout: float
    ) -> None:
        super().__init__()
        transformers = require("transformers", extra="transformers")
        kind = config["model_type"]
        wanted = {
            **config,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
        }
        model = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(
                kind, **{k: v for k, v in wanted.items() if k != "model_type"}
            )
        )
        if not hasattr(getattr(model, "encoder", None), "layer"):
            raise ConfigError(
                f"the layers of a {kind!r} encoder cannot be fine-tuned here",
                hint="BERT-like encoders can; or choose model.kind = transformer or mamba",
            )
        self.layers = model.encoder
        hidden = model.config.hidden_size
        self.input_dropout = nn.Dropout(input_dropout)
        self.project = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, D]`, `mask [B, T]` (True = valid) -> `[B, T, width]`, zeros where masked."""
        x = self.input_dropout(x)
        blocked = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
        hidden = self.layers(x, attention_mask=blocked[:, None, None, :])[0]
        return self.project(hidden) * mask.unsqueeze(-1)
