"""Settings -> models, and runs -> trained models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mepr_shared import config
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.nn.cross_task import CrossTaskModel
from mepr_shared.nn.pretrained import PretrainedEncoder
from mepr_shared.nn.sequence import build_sequence_encoder
from mepr_shared.nn.spec_augment import SpecAugmentedEncoder
from mepr_shared.nn.standardise import StandardisedEncoder
from mepr_shared.nn.unimodal import UnimodalModel
from mepr_shared.train.checkpoint import load_weights
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import CrossTaskSettings, ModelSettings

OUTPUTS = {"emotion": len(EMOTIONS), "traits": len(TRAITS)}


def build_unimodal(
    settings: ModelSettings,
    *,
    input_width: int,
    task: str,
    pretrained: Mapping[str, Any] | None = None,
) -> UnimodalModel:
    """A stage-1 model: `[B, T, input_width]` -> 7 emotion logits or 5 trait logits.

    Args:
        pretrained: configuration of the layers that `kind = "pretrained"` continues.
    """
    encoder = _sequence_encoder(settings, input_width, pretrained)
    if settings.time_mask or settings.feature_mask:
        encoder = SpecAugmentedEncoder(
            encoder, time_mask=settings.time_mask, feature_mask=settings.feature_mask
        )
    if settings.standardise:
        encoder = StandardisedEncoder(encoder, input_width)
    return UnimodalModel(
        encoder,
        width=settings.width,
        outputs=OUTPUTS[task],
        pooling=settings.pooling,
        dropout=settings.dropout,
    )


def _sequence_encoder(
    settings: ModelSettings, input_width: int, pretrained: Mapping[str, Any] | None
) -> nn.Module:
    if settings.kind == "pretrained":
        assert pretrained is not None  # the stage-1 driver asks the modality for it
        return PretrainedEncoder(
            pretrained,
            width=settings.width,
            dropout=settings.dropout,
            input_dropout=settings.input_dropout,
        )
    return build_sequence_encoder(
        settings.kind,
        input_width=input_width,
        width=settings.width,
        layers=settings.layers,
        dropout=settings.dropout,
        input_dropout=settings.input_dropout,
        heads=settings.heads,
        feedforward=settings.feedforward,
        positions=settings.positions,
        state_size=settings.state_size,
        expand=settings.expand,
        conv_width=settings.conv_width,
        bidirectional=settings.bidirectional,
    )


def build_cross_task(
    settings: CrossTaskSettings, emotion: UnimodalModel, traits: UnimodalModel
) -> CrossTaskModel:
    """A stage-2 model over two stage-1 models."""
    return CrossTaskModel(
        emotion, traits, width=settings.width, heads=settings.heads, dropout=settings.dropout
    )


def model_from_config(run_config: dict[str, Any]) -> UnimodalModel | CrossTaskModel:
    """The untrained model that a stage-1 or stage-2 run's `config.json` describes."""
    width = run_config["input_width"]
    if run_config["kind"] == "stage1":
        settings = config.build(ModelSettings, run_config["settings"]["model"])
        return build_unimodal(
            settings,
            input_width=width,
            task=run_config["task"],
            pretrained=run_config.get("pretrained"),
        )
    if run_config["kind"] == "stage2":
        parts = {
            task: build_unimodal(
                config.build(ModelSettings, run_config["stage1"][task]["settings"]["model"]),
                input_width=width,
                task=task,
                pretrained=run_config["stage1"][task].get("pretrained"),
            )
            for task in ("emotion", "traits")
        }
        settings2 = config.build(CrossTaskSettings, run_config["settings"]["model"])
        return build_cross_task(settings2, parts["emotion"], parts["traits"])
    raise ContractError(f"a {run_config['kind']} run holds no unimodal model")


def load_model(run: Run, device: str = "cpu") -> UnimodalModel | CrossTaskModel:
    """The trained model of a stage-1 or stage-2 run, in eval mode.

    Raises:
        ContractError: not such a run, not trained yet, or damaged.
    """
    model = model_from_config(run.config)
    load_weights(model, run.weights_path)
    return model.to(device).eval()
