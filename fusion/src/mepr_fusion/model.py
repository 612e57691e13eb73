"""The stage-3 model: any non-empty subset of modalities in, both tasks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from mepr_shared.labels import EMOTIONS, TASKS, TRAITS
from mepr_shared.objectives.gradnorm import gradient_norms

# The head starts near zero, so that an untrained model answers with the unimodal predictions.
HEAD_STD = 0.002

# Scores of exactly 0 or 1 would have infinite log-odds.
TRAIT_EPS = 1e-4


class FusionOutput(NamedTuple):
    """What `FusionModel.forward` gives.

    Attributes:
        emotion_logits: `[B, 7]`, calibrated: a decision adds the prior shift of the corpus.
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


class Trunk(NamedTuple):
    """What both tasks start from.

    Attributes:
        shared_input: input of the last linear map before the branches, `[B, M, H]` with the
            graph, `[M, B, bottleneck]` without it.
        shared: its output, `[B, M, H]` or `[M, B, H]`; each branch gets its own view of it.
        residual: what is added to the output, of the same shape.
        graph: the graph's attention weights `[B, heads, M, M]`, None without it.
    """

    shared_input: Tensor
    shared: Tensor
    residual: Tensor
    graph: Tensor | None


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
        tasks: `("emotion", "traits")`, or one of them.
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
        tasks: Sequence[str] = TASKS,
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

        self.tasks = tuple(tasks)
        self.emotion = self.traits = None
        if "emotion" in tasks:
            self.emotion = branch(len(EMOTIONS), emotion_predict_projector, emotion_guide_bank)
        if "traits" in tasks:
            self.traits = branch(len(TRAITS), trait_predict_projector, trait_guide_bank)

    def shared_weight(self) -> Tensor:
        """The weight of the last linear map before the task branches (SYSTEM, section 7)."""
        if self.graph is not None:
            return self.graph.out.weight
        return self.projector.adapters.up_weight

    def shared_gradient_norms(
        self, shared_input: Tensor, cotangents: Tensor, rows: Tensor
    ) -> Tensor:
        """Norms `[K]` of `K` terms' gradients on `shared_weight()`: `objectives.gradient_norms`.

        Args:
            shared_input: as in `Trunk`.
            cotangents: `[K, *shape of Trunk.shared]`.
            rows: `[K, B]` bool.
        """
        if self.graph is not None:
            return gradient_norms(shared_input, cotangents, rows)
        # Without the graph every modality has a matrix of its own: they are one tensor.
        parts = [
            gradient_norms(inputs, cotangents[:, index], rows)
            for index, inputs in enumerate(shared_input)
        ]
        return torch.linalg.vector_norm(torch.stack(parts), dim=0)

    def standardise(self, features: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Raw features as `trunk` takes them; 0 where a modality is absent."""
        return self.projector.standardise(features, present)

    def trunk(self, features: Mapping[str, Tensor], present: Tensor) -> Trunk:
        """Everything that both tasks share.

        Args:
            features: standardised, per modality `[B, width]`.
            present: `[B, M]`; the modalities to be used.
        """
        projected = self.projector.project(features)
        hidden = self.projector.adapters.hidden(projected)
        adapted = self.projector.adapters.up(hidden)
        if self.graph is None:
            return Trunk(hidden, adapted, projected, None)
        tokens = self.projector.finish(projected, adapted)
        message, weights = self.graph.gather(tokens, present)
        return Trunk(message, self.graph.out(message), tokens, weights)

    def branches(
        self,
        trunk: Trunk,
        emotion_shared: Tensor,
        trait_shared: Tensor,
        emotion_predictions: Tensor,
        trait_predictions: Tensor,
        present: Tensor,
    ) -> FusionOutput:
        """Both tasks, each from its own view of `trunk.shared`.

        A task the model does not have answers NaN, with an empty representation.
        """
        finish = self.projector.finish if self.graph is None else self.graph.finish
        same = emotion_shared is trait_shared
        emotion_tokens = finish(trunk.residual, emotion_shared)
        trait_tokens = emotion_tokens if same else finish(trunk.residual, trait_shared)
        emotion = self._answer(self.emotion, emotion_tokens, emotion_predictions, present, EMOTIONS)
        trait_odds = torch.logit(trait_predictions, eps=TRAIT_EPS)
        traits = self._answer(self.traits, trait_tokens, trait_odds, present, TRAITS)
        weights = {"graph": trunk.graph, "emotion": emotion[2], "traits": traits[2]}
        return FusionOutput(
            emotion_logits=emotion[0],
            trait_logits=traits[0],
            trait_scores=torch.sigmoid(traits[0]),
            emotion_representation=emotion[1],
            trait_representation=traits[1],
            attention={name: value for name, value in weights.items() if value is not None},
        )

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
        trunk = self.trunk(self.standardise(features, present), present)
        return self.branches(
            trunk, trunk.shared, trunk.shared, emotion_predictions, trait_predictions, present
        )

    @staticmethod
    def _answer(
        branch: TaskBranch | None,
        tokens: Tensor,
        predictions: Tensor,
        present: Tensor,
        names: Sequence[str],
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if branch is not None:
            return branch(tokens, predictions, present)
        return tokens.new_full((len(tokens), len(names)), torch.nan), tokens[:, 0, :0], None
