"""Stage 2: one modality, both tasks. Two frozen stage-1 models look at the same clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mepr_shared.nn.layers import Attention, FeedForward
from mepr_shared.nn.pooling import masked_mean
from mepr_shared.nn.unimodal import UnimodalModel


class FrozenOutputs(NamedTuple):
    """What the two frozen stage-1 models say about `B` clips; it never changes in training.

    `sequence [B, T, He + Ht]` holds both models' last features side by side, `emotion_logits
    [B, 7]` and `trait_logits [B, 5]` their predictions.
    """

    sequence: Tensor
    emotion_logits: Tensor
    trait_logits: Tensor


class CrossTaskFeatures(NamedTuple):
    """What the two task branches start from.

    `shared_input [B, 2H]` and `shared [B, H]` are input and output of the shared linear layer,
    `emotion_logits [B, 7]` and `trait_logits [B, 5]` the frozen stage-1 predictions.
    """

    shared_input: Tensor
    shared: Tensor
    emotion_logits: Tensor
    trait_logits: Tensor


class CrossTaskOutput(NamedTuple):
    """`emotion_logits [B, 7]`, `trait_logits [B, 5]`, `trait_scores [B, 5]` in [0, 1],
    `emotion_embedding [B, H]`, `trait_embedding [B, H]`."""

    emotion_logits: Tensor
    trait_logits: Tensor
    trait_scores: Tensor
    emotion_embedding: Tensor
    trait_embedding: Tensor


class CrossAttentionLayer(nn.Module):
    """One sequence refined by another: pre-norm cross-attention, then feed-forward."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 2 * width, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """`x [B, T, H]` attends to `context [B, T, H]` of the same clip, `mask [B, T]`."""
        attended = self.attention(self.query_norm(x), self.context_norm(context), mask)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class TaskBranch(nn.Module):
    """From the shared features to one task's embedding and prediction.

    The prediction is `w * new + (1 - w) * stage 1` in logits, with a learned w that starts at 1/2.
    The new prediction corrects stage 1's: `new = stage 1 + head`, where the head starts at zero.
    Training so begins exactly where stage 1 ended; with a head from scratch it first loses what
    stage 1 knew (on MELD six points of UAR) and seldom gets it back.
    """

    def __init__(self, width: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.head = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs))
        correction = self.head[-1]
        assert isinstance(correction, nn.Linear)
        nn.init.zeros_(correction.weight)
        nn.init.zeros_(correction.bias)
        self.blend = nn.Parameter(torch.zeros(()))

    def forward(self, shared: Tensor, stage1: Tensor) -> tuple[Tensor, Tensor]:
        """`shared [B, H]`, `stage1 [B, K]` -> blended logits `[B, K]`, embedding `[B, H]`."""
        embedding = self.embed(shared)
        weight = torch.sigmoid(self.blend)
        new = stage1 + self.head(embedding)
        return weight * new + (1.0 - weight) * stage1, embedding


class CrossTaskModel(nn.Module):
    """Cross-attention between the emotion and the trait features of one clip, a head per task.

    Both stage-1 models are frozen: no gradients, and eval mode even while this model trains.
    Each task's sequence attends to the other's as stage 1 gave it, not as the other direction
    has already changed it, so the result does not depend on which comes first.

    Args:
        emotion_model: trained stage-1 model of 7 emotion logits.
        trait_model: trained stage-1 model of 5 trait logits, over the same input features.
        width: H, the common width; a multiple of `heads`.
        heads: attention heads.
        dropout: on residual branches, inside feed-forward parts and task branches.
    """

    def __init__(
        self,
        emotion_model: UnimodalModel,
        trait_model: UnimodalModel,
        *,
        width: int,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.emotion_model = emotion_model.requires_grad_(False).eval()
        self.trait_model = trait_model.requires_grad_(False).eval()
        self.project_emotion = _projection(emotion_model.width, width)
        self.project_trait = _projection(trait_model.width, width)
        self.emotion_from_trait = CrossAttentionLayer(width, heads, dropout=dropout)
        self.trait_from_emotion = CrossAttentionLayer(width, heads, dropout=dropout)
        self.pooled_norm = nn.LayerNorm(2 * width)
        self.shared = nn.Linear(2 * width, width)
        self.emotion_branch = TaskBranch(width, emotion_model.outputs, dropout=dropout)
        self.trait_branch = TaskBranch(width, trait_model.outputs, dropout=dropout)

    def train(self, mode: bool = True) -> CrossTaskModel:
        """Training mode for what is trained here; the stage-1 models stay in eval mode."""
        super().train(mode)
        self.emotion_model.eval()
        self.trait_model.eval()
        return self

    def shared_weight(self) -> Tensor:
        """The weight of the last linear layer before the task branches, for GradNorm."""
        return self.shared.weight

    @torch.no_grad()
    def frozen(self, x: Tensor, mask: Tensor) -> FrozenOutputs:
        """The stage-1 part: `x [B, T, D]`, `mask [B, T]`, the same clip for both models."""
        emotion, trait = self.emotion_model(x, mask), self.trait_model(x, mask)
        sequence = torch.cat((emotion.sequence, trait.sequence), dim=2)
        return FrozenOutputs(sequence, emotion.logits, trait.logits)

    def features(self, frozen: FrozenOutputs, mask: Tensor) -> CrossTaskFeatures:
        """Everything between the stage-1 models and the branches."""
        widths = (self.emotion_model.width, self.trait_model.width)
        emotion_sequence, trait_sequence = frozen.sequence.split(widths, dim=2)
        emotion = self.project_emotion(emotion_sequence)
        trait = self.project_trait(trait_sequence)
        refined_emotion = self.emotion_from_trait(emotion, trait, mask)
        refined_trait = self.trait_from_emotion(trait, emotion, mask)
        pooled = torch.cat(
            (masked_mean(refined_emotion, mask), masked_mean(refined_trait, mask)), 1
        )
        shared_input = self.pooled_norm(pooled)
        return CrossTaskFeatures(
            shared_input, self.shared(shared_input), frozen.emotion_logits, frozen.trait_logits
        )

    def predict(
        self, features: CrossTaskFeatures, emotion_shared: Tensor, trait_shared: Tensor
    ) -> CrossTaskOutput:
        """The two branches, each from its own view `[B, H]` of the shared features.

        Both are `features.shared`; with GradNorm each task has a view of its own, in which one
        backward leaves that task's gradient (`JointObjective.views`).
        """
        emotion, emotion_embedding = self.emotion_branch(emotion_shared, features.emotion_logits)
        trait, trait_embedding = self.trait_branch(trait_shared, features.trait_logits)
        return CrossTaskOutput(
            emotion, trait, torch.sigmoid(trait), emotion_embedding, trait_embedding
        )

    def forward(self, x: Tensor, mask: Tensor) -> CrossTaskOutput:
        """`x [B, T, D]`, `mask [B, T]` (True = valid) -> both tasks' predictions."""
        return self.from_frozen(self.frozen(x, mask), mask)

    def from_frozen(self, frozen: FrozenOutputs, mask: Tensor) -> CrossTaskOutput:
        """The same from stage-1 outputs that are there already."""
        features = self.features(frozen, mask)
        return self.predict(features, features.shared, features.shared)


def _projection(input_width: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_width, width), nn.LayerNorm(width))
