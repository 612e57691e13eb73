"""The blocks of the stage-3 model.

Shapes: `B` samples, `M` modalities (the nodes of the graph), `H` the common width, `K` the
outputs of a task. `present [B, M]` is True where a sample has a modality. Whatever an absent
modality holds, NaN included, has exactly zero influence on every output and every gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Scoring = Literal["v2", "v1"]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second axis of `values [B, M, C]` where `mask [B, M]`; 0 where none is."""
    weights = mask.to(values.dtype)
    total = (values.masked_fill(~mask.unsqueeze(-1), 0.0)).sum(dim=1)
    return total / weights.sum(dim=1, keepdim=True).clamp_min(1.0)


def drop_modalities(present: Tensor, probability: float) -> Tensor:
    """A view `[B, M]` of `present` with modalities dropped at random, never a sample's last one."""
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    kept = present & (draw >= probability)
    last = functional.one_hot(draw.argmax(dim=1), present.shape[1]).bool() & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, last)


class Standardise(nn.Module):
    """`(x - mean) / std` with statistics of the training split, kept in the checkpoint.

    NaN, a half of the features that an export does not give, becomes the mean, that is 0.

    Args:
        width: features per sample.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Store statistics `[width]`; a constant feature keeps a standard deviation of 1."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width] -> [..., width]`."""
        return torch.where(x.isnan(), 0.0, (x - self.mean) / self.std)


class Projector(nn.Module):
    """What a modality has of its own: statistics of its features, and a linear map to `H`."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.standardise = Standardise(width_in)
        self.linear = nn.Linear(width_in, width)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features `[B, width_in] -> [B, H]`."""
        return self.linear(x)


class ModalityNorm(nn.Module):
    """LayerNorm over the last axis of `[M, B, H]`, with scale and shift per modality."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(modalities, 1, width))
        self.bias = nn.Parameter(torch.zeros(modalities, 1, width))
        # Stacked over modalities they are matrices, but norms all the same.
        for vector in (self.weight, self.bias):
            vector._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.weight)


class AdapterBank(nn.Module):
    """One bottleneck adapter per modality: `LayerNorm(x + up(dropout(gelu(down(x)))))`.

    All modalities share the width `H` here, so that their adapters are three stacked tensors and
    a batched product instead of `M` small layers; each keeps weights of its own.
    """

    def __init__(self, modalities: int, width: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.down_weight = nn.Parameter(torch.empty(modalities, width, bottleneck))
        self.down_bias = nn.Parameter(torch.zeros(modalities, 1, bottleneck))
        self.up_weight = nn.Parameter(torch.empty(modalities, bottleneck, width))
        self.up_bias = nn.Parameter(torch.zeros(modalities, 1, width))
        for vector in (self.down_bias, self.up_bias):
            vector._no_weight_decay = True  # type: ignore[attr-defined]
        self.norm = ModalityNorm(modalities, width)
        self.dropout = nn.Dropout(dropout)
        # The bounds nn.Linear uses: 1 / sqrt(fan-in).
        nn.init.uniform_(self.down_weight, -1 / math.sqrt(width), 1 / math.sqrt(width))
        nn.init.uniform_(self.up_weight, -1 / math.sqrt(bottleneck), 1 / math.sqrt(bottleneck))

    def hidden(self, x: Tensor) -> Tensor:
        """`[M, B, H] -> [M, B, bottleneck]`, the input of `up`."""
        hidden = torch.baddbmm(self.down_bias, x, self.down_weight)
        return self.dropout(functional.gelu(hidden))

    def up(self, hidden: Tensor) -> Tensor:
        """`[M, B, bottleneck] -> [M, B, H]`."""
        return torch.baddbmm(self.up_bias, hidden, self.up_weight)


class ProjectorAdapter(nn.Module):
    """Modality inputs of any widths to tokens of one width.

    Projector: standardise, linear, GELU, dropout, LayerNorm; then the adapter, and a modality
    embedding on what comes out.

    Args:
        widths: modality name to its input width; the order is that of the tokens.
        width: `H`.
        dropout: after each activation.
        bottleneck: inner width of the adapters.
    """

    def __init__(
        self, widths: Mapping[str, int], width: int, dropout: float, bottleneck: int
    ) -> None:
        super().__init__()
        self.projectors = nn.ModuleDict(
            {name: Projector(size, width) for name, size in widths.items()}
        )
        self.norm = ModalityNorm(len(widths), width)
        self.dropout = nn.Dropout(dropout)
        self.adapters = AdapterBank(len(widths), width, bottleneck, dropout)
        self.embedding = nn.Parameter(torch.randn(len(widths), width) * 0.02)

    def standardise(self, features: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Raw features `[B, width of the modality]` as the projectors take them; 0 where absent."""
        found = {}
        for index, (name, projector) in enumerate(self.projectors.items()):
            assert isinstance(projector, Projector)
            given = features[name].masked_fill(~present[:, index, None], torch.nan)
            found[name] = projector.standardise(given)
        return found

    def project(self, features: Mapping[str, Tensor]) -> Tensor:
        """Standardised features to `[M, B, H]`, the input of the adapters."""
        projected = [projector(features[name]) for name, projector in self.projectors.items()]
        return self.norm(self.dropout(functional.gelu(torch.stack(projected))))

    def finish(self, x: Tensor, adapted: Tensor) -> Tensor:
        """Input and output of the adapters, `[M, B, H]` each, to tokens `[B, M, H]`."""
        return self.adapters.norm(x + adapted).transpose(0, 1) + self.embedding


class GraphAttention(nn.Module):
    """Attention over the complete graph of a sample's present modalities, self-loops included.

    With `u_i = W_target x_i`, `v_j = W_source x_j` (v1: one `W` for both), per head:

    * `v2` (Brody et al. 2022, eq. 7): `e_ij = a . LeakyReLU(u_i + v_j)`
    * `v1` (Velickovic et al. 2018, eq. 3): `e_ij = LeakyReLU(a . [u_i | v_j])`

    `alpha = softmax_j(e)` over present `j`; the heads' `sum_j alpha_ij v_j` are concatenated,
    pass a linear layer, and are added to `x` before a LayerNorm.

    Args:
        width: `H`, divisible by `heads`.
        heads: attention heads.
        dropout: on the attention weights.
        scoring: `"v2"` or `"v1"`.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, scoring: Scoring = "v2") -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.scoring = scoring
        self.source = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width, width, bias=False) if scoring == "v2" else None
        inner = width // heads
        self.score = nn.Parameter(torch.empty(heads, inner if scoring == "v2" else 2 * inner))
        nn.init.xavier_uniform_(self.score)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[B, M, H]` to `(tokens [B, M, H], weights [B, heads, M target, M source])`.

        Rows of absent targets hold values without meaning; absent sources have weight 0.
        """
        message, weights = self.gather(x, present)
        return self.finish(x, self.out(message)), weights

    def gather(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[B, M, H]` to what each node gathers `[B, M, H]`, the input of `out`, and the
        weights."""
        batch, nodes, width = x.shape
        source = self.source(x).view(batch, nodes, self.heads, width // self.heads)
        if self.target is not None:
            target = self.target(x).view(batch, nodes, self.heads, width // self.heads)
            pair = functional.leaky_relu(target[:, :, None] + source[:, None], 0.2)
            energy = (pair * self.score).sum(dim=-1).permute(0, 3, 1, 2)
        else:
            score_target, score_source = self.score.chunk(2, dim=1)
            of_target = torch.einsum("bihc,hc->bhi", source, score_target)
            of_source = torch.einsum("bjhc,hc->bhj", source, score_source)
            energy = functional.leaky_relu(of_target[..., :, None] + of_source[..., None, :], 0.2)
        weights = masked_softmax(energy, present[:, None, None, :])
        message = self.dropout(weights) @ source.transpose(1, 2)
        return message.transpose(1, 2).reshape(batch, nodes, width), weights

    def finish(self, x: Tensor, out: Tensor) -> Tensor:
        """Tokens and what `out` made of the gathered: `[B, M, H]`."""
        return self.norm(x + out)


def masked_softmax(energy: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where `mask`; exactly 0 elsewhere, and 0 where nothing is."""
    # A row without any True would be softmax over -inf alone, which is NaN.
    filled = energy.masked_fill(~mask, torch.finfo(energy.dtype).min)
    return torch.softmax(filled, dim=-1).masked_fill(~mask, 0.0)


class TaskQueryAttention(nn.Module):
    """Learned queries of one task attend to the modality tokens: `[B, M, H] -> [B, H]`.

    Multi-head attention with a query that is a parameter: it equals `nn.MultiheadAttention` with
    the same weights (but for its key bias, which a softmax does not see). Keys are never formed:
    a head's score is a token times `W_k^T q`. Tokens are averaged by the weights before they are
    mapped to values, so the value map runs once per sample and not once per modality.

    Args:
        width: `H`.
        heads: attention heads.
        dropout: on the attention weights.
        queries: learned queries; what they gather is averaged.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, queries: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.query = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))
        # Three maps of width H each, initialised as nn.MultiheadAttention does.
        self.query_weight = nn.Parameter(torch.empty(width, width))
        self.key_weight = nn.Parameter(torch.empty(width, width))
        self.value_weight = nn.Parameter(torch.empty(width, width))
        for weight in (self.query_weight, self.key_weight, self.value_weight):
            nn.init.uniform_(weight, -math.sqrt(1.5 / width), math.sqrt(1.5 / width))
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """`(representation [B, H], weights [B, queries, M])`, the weights averaged over heads."""
        width = tokens.shape[-1]
        inner = width // self.heads
        query = functional.linear(self.query, self.query_weight, self.query_bias)
        query = query.view(-1, self.heads, inner) / math.sqrt(inner)
        key = torch.einsum("qhd,hdw->qhw", query, self.key_weight.view(self.heads, inner, width))
        energy = (tokens @ key.reshape(-1, width).T).transpose(1, 2)  # [B, queries * heads, M]
        weights = masked_softmax(energy, present[:, None, :])
        gathered = self.dropout(weights) @ tokens
        gathered = gathered.view(len(tokens), len(self.query), self.heads, width).mean(dim=1)
        value = torch.einsum(
            "bhw,hdw->bhd", gathered, self.value_weight.view(self.heads, inner, width)
        )
        mapped = self.out(value.reshape(len(tokens), width) + self.value_bias)
        shown = weights.view(len(tokens), len(self.query), self.heads, tokens.shape[1]).mean(dim=2)
        return self.norm(mapped), shown


class PredictProjector(nn.Module):
    """What the modalities say on their own, brought into a task's representation and output.

    The unimodal predictions (log-odds or log-probabilities) are averaged over the modalities
    that give one: a plain mean, or weights learned per modality and output (softmax over the
    present ones, starting at the mean). The average `m [B, K]` is used twice:

    * standardised and projected, it is added to the representation (SYSTEM, section 6);
    * `mean + exp(s) * (m - mean)`, with `s = 0` at the start, is added to the output, so that the
      rest of the model learns a correction of the unimodal predictions instead of learning
      them again.

    Args:
        modalities: `M`.
        outputs: `K`.
        width: `H`.
        learned_weights: learned weights instead of the plain mean.
    """

    def __init__(self, modalities: int, outputs: int, width: int, *, learned_weights: bool) -> None:
        super().__init__()
        self.standardise = Standardise(outputs)
        self.weights = nn.Parameter(torch.zeros(modalities, outputs)) if learned_weights else None
        self.linear = nn.Linear(outputs, width)
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def average(self, predictions: Tensor, present: Tensor) -> Tensor:
        """`[B, M, K]` to `[B, K]`; the training mean where no modality gives a prediction.

        A NaN row is a modality that is present but has no prediction for this task.
        """
        given = present & ~torch.isnan(predictions).any(dim=-1)
        if self.weights is None:
            average = masked_mean(predictions, given)
        else:
            energy = self.weights.T.expand(len(predictions), -1, -1)
            weights = masked_softmax(energy, given.unsqueeze(1)).transpose(1, 2)
            average = (weights * predictions.masked_fill(~given.unsqueeze(-1), 0.0)).sum(dim=1)
        return torch.where(given.any(dim=1, keepdim=True), average, self.standardise.mean)

    def forward(self, predictions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """`(added to the representation [B, H], added to the output [B, K])`."""
        average = self.average(predictions, present)
        centre = self.standardise.mean
        scaled = centre + self.log_scale.exp() * (average - centre)
        return self.linear(self.standardise(average)), scaled


class GuideBank(nn.Module):
    """One learned vector per output; its similarity to the representation joins the head's output.

    `(1 - blend) * head + blend * cos(r, g_k) / temperature`, before any sigmoid or softmax; the
    temperature is learned and starts at 1.

    Args:
        outputs: `K`.
        width: `H`.
        blend: share of the similarity.
    """

    def __init__(self, outputs: int, width: int, *, blend: float = 0.5) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(outputs, width) / math.sqrt(width))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.blend = blend

    def forward(self, representation: Tensor, head: Tensor) -> Tensor:
        """Representation `[B, H]` and head output `[B, K]` to `[B, K]`."""
        unit = functional.normalize(representation, dim=-1)
        similarity = unit @ functional.normalize(self.vectors, dim=-1).T
        scaled = similarity * torch.exp(-self.log_temperature)
        return (1 - self.blend) * head + self.blend * scaled
