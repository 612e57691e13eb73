"""The published stage-3 model, layer by layer (SYSTEM, section 6), so that its weights can be used.

Ryumina et al., "SSL-MEPR: A Semi-Supervised Multi-Task Cross-Domain Learning Framework for
Multimodal Emotion and Personality Recognition". Parameter names and shapes are the file format of
the published state dict: here, and only here, abbreviations are kept as they are there.

Shapes: `B` samples, `M` modalities, `H` the common width. The published code leaves a missing
modality out of the batch; here `present [B, M]` masks it out of the graph, the attention and the
means, with the same result: whatever it holds, NaN included, has no influence and no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_fusion.layers import drop_modalities, masked_mean, masked_softmax
from mepr_fusion.model import TRAIT_EPS, FusionOutput, Trunk
from mepr_shared.errors import ConfigError
from mepr_shared.labels import EMOTIONS, TASKS, TRAITS
from mepr_shared.objectives.gradnorm import gradient_norms

# The order of the published file; a model may have any of these, and others after them.
MODALITIES = ("body", "face", "scene", "audio", "text")

# Blocks the published model cannot do without: its file has no other way from tokens to tasks.
FIXED_BLOCKS = (
    "graph_attention",
    "cross_attention",
    "emotion_predict_projector",
    "trait_predict_projector",
)


class ModalityProjector(nn.Module):
    """Linear, ReLU, dropout, LayerNorm: `[B, width_in] -> [B, H]`."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(width_in, width), nn.ReLU(), nn.Dropout(dropout), nn.LayerNorm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ResidualAdapter(nn.Module):
    """`LayerNorm(x + up(dropout(relu(down(x)))))` over `[B, H]`, inner width `H / 2`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.adapter = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, width),
        )
        self.layernorm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layernorm(x + self.adapter(x))


class SingleHeadGraph(nn.Module):
    """Graph attention of Velickovic et al. 2018 on the complete graph: one head, no residual.

    With `u = W h`: `e_ij = LeakyReLU(0.2)(a . [u_i | u_j])`, softmax over present `j`, and
    `sum_j alpha_ij u_j`.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(2 * width, 1))
        self.W = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.a, gain=math.sqrt(2.0))

    def attend(self, u: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """`u [B, M, H]` to `(nodes [B, M, H], weights [B, 1, M target, M source])`."""
        of_target, of_source = (u @ half for half in self.a.chunk(2))
        energy = functional.leaky_relu(of_target + of_source.transpose(1, 2), 0.2)
        weights = masked_softmax(energy, present.unsqueeze(1))
        return self.dropout(weights) @ u, weights.unsqueeze(1)


class SimilarityBank(nn.Module):
    """One learned vector per output: cosine similarities in [-1, 1], no temperature."""

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(outputs, width))

    def forward(self, representation: Tensor) -> Tensor:
        """`[B, H] -> [B, outputs]`."""
        return functional.cosine_similarity(
            representation.unsqueeze(1), self.embeddings.unsqueeze(0), dim=-1
        )


class PublishedModel(nn.Module):
    """The published stage-3 model; called as `mepr_fusion.model.FusionModel` is.

    Its features are not standardised, and it takes emotion logits as the unimodal models give
    them; its own emotion logits are blended with similarities in [-1, 1] and are **not
    calibrated**: their argmax means something, their softmax is no probability to rely on.

    Args:
        modalities: modality name to the width of its features
            `[emotion embedding | trait embedding]`; the order is that of the `M` axis.
        width: `H`, even, divisible by `heads`.
        heads: of the one attention module that serves both queries.
        dropout: after each activation and on all attention weights.
        trait_guide: blend the trait guide bank in, after the sigmoid, which confines scores to
            .13-.87. The released configuration has it off; the bank is in the file all the same.
        emotion_guide: the same for emotions (before any softmax).
        tasks: `("emotion", "traits")`, or one of them: the other's parameters are there, since
            the file has them, but it answers NaN and learns nothing.
        modality_dropout: chance of each present modality to be dropped from a training sample;
            the published training drops none.

    Raises:
        ValueError: no modality, or a width that does not divide.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        *,
        width: int = 256,
        heads: int = 8,
        dropout: float = 0.2,
        trait_guide: bool = False,
        emotion_guide: bool = True,
        tasks: Sequence[str] = TASKS,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("a fusion model needs at least one modality")
        if width % heads or width % 2:
            raise ValueError(f"width {width} is not divisible by heads {heads} and by 2")
        self.modalities = tuple(modalities)
        self.tasks = tuple(tasks)
        self.modality_dropout = modality_dropout
        self.trait_guide = trait_guide
        self.emotion_guide = emotion_guide
        self.emo_query = nn.Parameter(torch.randn(1, 1, width))
        self.pkl_query = nn.Parameter(torch.randn(1, 1, width))
        self.projectors = nn.ModuleDict(
            {
                name: nn.Sequential(
                    ModalityProjector(width_in, width, dropout), ResidualAdapter(width, dropout)
                )
                for name, width_in in modalities.items()
            }
        )
        self.graph_attn = SingleHeadGraph(width, dropout)
        self.cross_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.emo_head = nn.Linear(width, len(EMOTIONS))
        self.pkl_head = nn.Linear(width, len(TRAITS))
        self.guide_bank_emo = SimilarityBank(len(EMOTIONS), width)
        self.guide_bank_pkl = SimilarityBank(len(TRAITS), width)
        self.emo_logit_proj = nn.Linear(len(EMOTIONS), width)
        self.per_logit_proj = nn.Linear(len(TRAITS), width)

    def shared_weight(self) -> Tensor:
        """The weight of the last linear map before the task branches (SYSTEM, section 7)."""
        return self.graph_attn.W.weight

    def shared_gradient_norms(
        self, shared_input: Tensor, cotangents: Tensor, rows: Tensor
    ) -> Tensor:
        """Norms `[K]` of `K` terms' gradients on `shared_weight()`: `objectives.gradient_norms`.

        Args:
            shared_input: as in `Trunk`.
            cotangents: `[K, B, M, H]`.
            rows: `[K, B]` bool.
        """
        return gradient_norms(shared_input, cotangents, rows)

    def standardise(self, features: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Raw features as `trunk` takes them: as they are, 0 where absent.

        NaN in a present modality, a half that its export does not give, counts as 0.
        """
        found = {}
        for index, name in enumerate(self.modalities):
            values = features[name]
            found[name] = values.masked_fill(~present[:, index, None] | values.isnan(), 0.0)
        return found

    def trunk(self, features: Mapping[str, Tensor], present: Tensor) -> Trunk:
        """Features `[B, width of the modality]` each, up to and with the linear map `W` of the
        graph. Who attends to whom follows in the branches; the residual is of no use to them."""
        tokens = [projector(features[name]) for name, projector in self.projectors.items()]
        hidden = torch.stack(tokens, dim=1)
        return Trunk(hidden, self.graph_attn.W(hidden), hidden, None)

    def branches(
        self,
        trunk: Trunk,
        emotion_shared: Tensor,
        trait_shared: Tensor,
        emotion_predictions: Tensor,
        trait_predictions: Tensor,
        present: Tensor,
    ) -> FusionOutput:
        """Both tasks, each from its own view of `trunk.shared` `[B, M, H]`."""
        emotion_nodes, graph = self.graph_attn.attend(emotion_shared, present)
        if trait_shared is emotion_shared:
            queries = torch.cat([self.emo_query, self.pkl_query], dim=1)
            gathered, weights = self._gather(queries, emotion_nodes, present)
            (emotion, traits), (of_emotion, of_traits) = gathered.unbind(1), weights.split(1, 1)
        else:
            trait_nodes, _ = self.graph_attn.attend(trait_shared, present)
            found, of_emotion = self._gather(self.emo_query, emotion_nodes, present)
            emotion = found.squeeze(1)
            found, of_traits = self._gather(self.pkl_query, trait_nodes, present)
            traits = found.squeeze(1)
        emotion = emotion + _projected_mean(self.emo_logit_proj, emotion_predictions, present)
        traits = traits + _projected_mean(self.per_logit_proj, trait_predictions, present)
        emotion_logits = self.emo_head(emotion)
        if self.emotion_guide:
            emotion_logits = (emotion_logits + self.guide_bank_emo(emotion)) / 2
        trait_logits = self.pkl_head(traits)
        trait_scores = torch.sigmoid(trait_logits)
        if self.trait_guide:
            trait_scores = (trait_scores + torch.sigmoid(self.guide_bank_pkl(traits))) / 2
            trait_logits = torch.logit(trait_scores, eps=TRAIT_EPS)
        if "emotion" not in self.tasks:
            emotion_logits = torch.full_like(emotion_logits, torch.nan)
        if "traits" not in self.tasks:
            trait_logits = trait_scores = torch.full_like(trait_scores, torch.nan)
        return FusionOutput(
            emotion_logits=emotion_logits,
            trait_logits=trait_logits,
            trait_scores=trait_scores,
            emotion_representation=emotion,
            trait_representation=traits,
            attention={"graph": graph, "emotion": of_emotion, "traits": of_traits},
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
            emotion_predictions: `[B, M, 7]` logits as they are, NaN rows where a modality gives
                none.
            trait_predictions: `[B, M, 5]` scores in [0, 1], NaN rows where there are none.
            present: `[B, M]` bool, at least one True per row.

        Returns:
            Emotion logits that are not calibrated; trait logits that are the log-odds of the
            scores.
        """
        if self.training and self.modality_dropout > 0:
            present = drop_modalities(present, self.modality_dropout)
        trunk = self.trunk(self.standardise(features, present), present)
        return self.branches(
            trunk, trunk.shared, trunk.shared, emotion_predictions, trait_predictions, present
        )

    def _gather(self, query: Tensor, nodes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Queries `[1, Q, H]` over nodes: `([B, Q, H], weights [B, Q, M])`, means over heads."""
        return self.cross_attn(
            query.expand(len(nodes), -1, -1), nodes, nodes, key_padding_mask=~present
        )


def build_published(
    widths: Mapping[str, int],
    options: Mapping[str, Any],
    components: Mapping[str, bool],
    *,
    tasks: Sequence[str] = TASKS,
) -> PublishedModel:
    """The published variant from a run's settings.

    Args:
        widths: modality -> width of its features.
        options: `settings.model`; `width`, `heads`, `dropout`, `modality_dropout` are read.
        components: `settings.components`; only the guide banks can be switched.
        tasks: those that the run's mode has.

    Raises:
        ConfigError: another component is off, or a width that does not divide.
    """
    for block in FIXED_BLOCKS:
        if not components.get(block, True):
            raise ConfigError(
                f"components.{block} = false: the published model is not defined without it",
                hint='model.kind = "mepr" can switch every block',
            )
    try:
        return PublishedModel(
            widths,
            width=options["width"],
            heads=options["heads"],
            dropout=options["dropout"],
            modality_dropout=options.get("modality_dropout", 0.0),
            trait_guide=components.get("trait_guide_bank", False),
            emotion_guide=components.get("emotion_guide_bank", True),
            tasks=tasks,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


def _projected_mean(linear: nn.Linear, predictions: Tensor, present: Tensor) -> Tensor:
    """Mean over the modalities that give a prediction, projected: `[B, M, K] -> [B, H]`.

    Nothing is added for a sample of which no modality gives one: a mean of 0 would be a claim.
    """
    given = present & ~predictions.isnan().any(dim=-1)
    projected = linear(masked_mean(predictions, given))
    return projected.masked_fill(~given.any(dim=1, keepdim=True), 0.0)
