"""The stage-3 model: any non-empty subset of modalities in, both tasks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mepr_fusion.layers import (
    GraphAttention,
    GuideBank,
    PredictProjector,
    ProjectorAdapter,
    Scoring,
    TaskQueryAttention,
    drop_modalities,
    masked_mean,
)
from mepr_shared.labels import EMOTIONS, TRAITS

# The head starts near zero, so that an untrained model answers with the unimodal predictions.
HEAD_STD = 0.002

# Scores of exactly 0 or 1 would have infinite log-odds.
TRAIT_EPS = 1e-4


class FusionOutput(NamedTuple):
    """What `FusionModel.forward` gives.

    Attributes:
        emotion_logits: `[B, 7]`.
        trait_logits: `[B, 5]`.
        trait_scores: `[B, 5]` in [0, 1], the sigmoid of the logits.
        emotion_representation: `[B, H]`.
        trait_representation: `[B, H]`.
        attention: `graph [B, heads, M, M]` (target, source), `emotion [B, queries, M]` and
            `traits [B, queries, M]`, as far as the model has these blocks.
    """

    emotion_logits: Tensor
    trait_logits: Tensor
    trait_scores: Tensor
    emotion_representation: Tensor
    trait_representation: Tensor
    attention: dict[str, Tensor]


class TaskBranch(nn.Module):
    """All that belongs to one task: queries, predict projector, head, guide bank.

    Without `attention` the representation is the mean of the present tokens.
    """

    def __init__(
        self,
        outputs: int,
        width: int,
        dropout: float,
        *,
        attention: TaskQueryAttention | None,
        predict_projector: PredictProjector | None,
        guide_bank: GuideBank | None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.predict_projector = predict_projector
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)
        self.guide_bank = guide_bank
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, tokens: Tensor, predictions: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens `[B, M, H]` and predictions `[B, M, K]` to logits `[B, K]`,
        representation `[B, H]` and attention weights `[B, queries, M]` (None without queries).
        """
        weights = None
        if self.attention is None:
            representation = masked_mean(tokens, present)
        else:
            representation, weights = self.attention(tokens, present)
        unimodal: Tensor | float = 0.0
        if self.predict_projector is not None:
            addition, unimodal = self.predict_projector(predictions, present)
            representation = representation + addition
        hidden = self.dropout(representation)
        logits = self.head(hidden)
        if self.guide_bank is not None:
            logits = self.guide_bank(hidden, logits)
        return logits + unimodal, representation, weights


class FusionModel(nn.Module):
    """Projector and adapter per modality, graph attention, one branch per task.

    Args:
        modalities: modality name to the width of its features
            `[emotion embedding | trait embedding]`; the order is that of the `M` axis.
        width: `H`.
        heads: attention heads of the graph and of the task queries.
        dropout: everywhere.
        bottleneck: inner width of the adapters; `width // 2` when None.
        queries: learned queries per task.
        graph_scoring: `"v2"` or `"v1"`.
        modality_dropout: chance of each present modality to be dropped from a training sample;
            one always stays.
        learned_prediction_weights: weights over modalities in the predict projectors.
        guide_blend: share of the guide bank's similarity in the output.
        graph_attention, cross_attention, emotion_predict_projector, trait_predict_projector,
            emotion_guide_bank, trait_guide_bank: the block exists.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        *,
        width: int = 256,
        heads: int = 8,
        dropout: float = 0.2,
        bottleneck: int | None = None,
        queries: int = 1,
        graph_scoring: Scoring = "v2",
        modality_dropout: float = 0.0,
        learned_prediction_weights: bool = True,
        guide_blend: float = 0.5,
        graph_attention: bool = True,
        cross_attention: bool = True,
        emotion_predict_projector: bool = True,
        trait_predict_projector: bool = True,
        emotion_guide_bank: bool = True,
        trait_guide_bank: bool = True,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("a fusion model needs at least one modality")
        self.modalities = tuple(modalities)
        self.modality_dropout = modality_dropout
        self.projector = ProjectorAdapter(modalities, width, dropout, bottleneck or width // 2)
        self.graph = (
            GraphAttention(width, heads, dropout, scoring=graph_scoring)
            if graph_attention
            else None
        )

        def branch(outputs: int, predict_projector: bool, guide_bank: bool) -> TaskBranch:
            return TaskBranch(
                outputs,
                width,
                dropout,
                attention=TaskQueryAttention(width, heads, dropout, queries=queries)
                if cross_attention
                else None,
                predict_projector=PredictProjector(
                    len(modalities), outputs, width, learned_weights=learned_prediction_weights
                )
                if predict_projector
                else None,
                guide_bank=GuideBank(outputs, width, blend=guide_blend) if guide_bank else None,
            )

        self.emotion = branch(len(EMOTIONS), emotion_predict_projector, emotion_guide_bank)
        self.traits = branch(len(TRAITS), trait_predict_projector, trait_guide_bank)

    def shared_weight(self) -> Tensor:
        """The weight of the last linear map before the task branches (SYSTEM, section 7)."""
        if self.graph is not None:
            return self.graph.out.weight
        return self.projector.adapters.up_weight

    def tokens(
        self, features: Mapping[str, Tensor], present: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What both tasks share: tokens `[B, M, H]` and the graph's attention weights."""
        tokens = self.projector(features, present)
        if self.graph is None:
            return tokens, None
        return self.graph(tokens, present)

    def forward(
        self,
        features: Mapping[str, Tensor],
        emotion_predictions: Tensor,
        trait_predictions: Tensor,
        present: Tensor,
    ) -> FusionOutput:
        """Run the model.

        Args:
            features: per modality `[B, width]`; what absent rows hold does not matter.
            emotion_predictions: `[B, M, 7]` log-odds or log-probabilities, NaN rows where a
                modality gives none (`mepr_fusion.calibrate` makes teams' logits comparable).
            trait_predictions: `[B, M, 5]` scores in [0, 1], NaN rows where there are none.
            present: `[B, M]` bool, at least one True per row.
        """
        if self.training and self.modality_dropout > 0:
            present = drop_modalities(present, self.modality_dropout)
        tokens, graph = self.tokens(features, present)
        trait_odds = torch.logit(trait_predictions, eps=TRAIT_EPS)
        emotion = self.emotion(tokens, emotion_predictions, present)
        traits = self.traits(tokens, trait_odds, present)
        weights = {"graph": graph, "emotion": emotion[2], "traits": traits[2]}
        return FusionOutput(
            emotion_logits=emotion[0],
            trait_logits=traits[0],
            trait_scores=torch.sigmoid(traits[0]),
            emotion_representation=emotion[1],
            trait_representation=traits[1],
            attention={name: value for name, value in weights.items() if value is not None},
        )
