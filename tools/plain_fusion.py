"""Stage 3 written out plainly, as a reference that the speed of the real one is measured against.

The same architecture and objective, in the way such code is usually written: a Python loop over
modalities, `nn.MultiheadAttention`, the teacher's forward in every step, a backward pass per loss
term for the gradient norms, and an averaged teacher by a loop over parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_fusion.data import FusionBatch

FLOOR, DECAY = 1e-3, 0.999


class PlainBranch(nn.Module):
    """One task: attention of a learned query, predictions, head, guide bank."""

    def __init__(self, outputs: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.predictions = nn.Linear(outputs, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)
        self.guides = nn.Parameter(torch.randn(outputs, width) / width**0.5)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        nn.init.normal_(self.head.weight, std=0.002)

    def forward(self, tokens: Tensor, predictions: Tensor, present: Tensor) -> Tensor:
        """Tokens `[B, M, H]` and predictions `[B, M, K]` to `[B, K]`."""
        query = self.query.expand(len(tokens), -1, -1)
        attended, _ = self.attention(query, tokens, tokens, key_padding_mask=~present)
        given = present & ~predictions.isnan().any(dim=2)
        known = torch.where(given[..., None], predictions, 0.0)
        mean = known.sum(dim=1) / given.sum(dim=1, keepdim=True).clamp_min(1)
        hidden = self.dropout(self.norm(attended[:, 0]) + self.predictions(mean))
        similarity = functional.cosine_similarity(hidden[:, None], self.guides[None], dim=2)
        blended = 0.5 * self.head(hidden) + 0.5 * similarity / self.log_temperature.exp()
        return blended + mean


class PlainModel(nn.Module):
    """Projector and adapter per modality, graph attention (v2), two branches."""

    def __init__(self, widths: Mapping[str, int], width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.projectors, self.adapters = nn.ModuleDict(), nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for name, size in widths.items():
            self.projectors[name] = nn.Sequential(
                nn.Linear(size, width), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(width)
            )
            self.adapters[name] = nn.Sequential(
                nn.Linear(width, width // 2),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(width // 2, width),
            )
            self.norms[name] = nn.LayerNorm(width)
        self.embedding = nn.Parameter(torch.randn(len(widths), width) * 0.02)
        self.heads = heads
        self.source = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width, width, bias=False)
        self.score = nn.Parameter(torch.randn(heads, width // heads) * 0.1)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.emotion = PlainBranch(7, width, heads, dropout)
        self.traits = PlainBranch(5, width, heads, dropout)

    def forward(self, batch: FusionBatch, present: Tensor) -> tuple[Tensor, Tensor]:
        """Emotion logits `[B, 7]` and trait scores `[B, 5]`."""
        tokens = []
        for name, projector in self.projectors.items():
            projected = projector(batch.features[name])
            tokens.append(self.norms[name](projected + self.adapters[name](projected)))
        x = torch.stack(tokens, dim=1) + self.embedding
        samples, nodes, width = x.shape
        source = self.source(x).view(samples, nodes, self.heads, -1)
        target = self.target(x).view(samples, nodes, self.heads, -1)
        pair = functional.leaky_relu(target[:, :, None] + source[:, None], 0.2)
        energy = (pair * self.score).sum(dim=-1)
        energy = energy.masked_fill(~present[:, None, :, None], -torch.inf)
        weights = self.dropout(torch.softmax(energy, dim=2))
        message = torch.einsum("bijh,bjhc->bihc", weights, source).reshape(samples, nodes, width)
        x = self.norm(x + self.out(message))
        odds = torch.logit(batch.trait_predictions, eps=1e-4)
        emotion = self.emotion(x, batch.emotion_predictions, present)
        return emotion, torch.sigmoid(self.traits(x, odds, present))


class PlainTraining:
    """Training steps of a `PlainModel` with four loss terms, GradNorm and an averaged teacher."""

    def __init__(self, model: PlainModel, *, semi_weight: float = 0.4, rate: float = 1e-4) -> None:
        self.model = model.train()
        self.teacher = copy.deepcopy(model).eval()
        self.optimiser = torch.optim.Adam(model.parameters(), lr=rate, foreach=True)
        self.weights = [1.0, 1.0, semi_weight, semi_weight]
        self.budgets = (2.0, 2 * semi_weight)
        self.initial: list[float | None] = [None] * 4

    def step(self, batch: FusionBatch, present: Tensor) -> float:
        """One step; gives the loss. `present` is the view with modalities dropped."""
        with torch.no_grad():
            logits, scores = self.teacher(batch, batch.present)
        emotion, traits = self.model(batch, present)
        losses = self._losses(batch, emotion, traits, logits, scores)
        self._gradnorm(losses)
        total = torch.zeros(())
        for weight, loss in zip(self.weights, losses, strict=True):
            total = total + weight * loss
        self.optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            for kept, live in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                kept.mul_(DECAY).add_(live, alpha=1 - DECAY)
        return float(total.detach())

    def _losses(
        self, batch: FusionBatch, emotion: Tensor, traits: Tensor, logits: Tensor, scores: Tensor
    ) -> list[Tensor]:
        labelled = ~batch.emotion.isnan().any(dim=1)
        with_traits = ~batch.traits.isnan().any(dim=1)
        top, guess = torch.softmax(logits, dim=1).max(dim=1)
        sure = ~labelled & (top > 0.6)
        rated = ~with_traits
        entropy = functional.cross_entropy
        return [
            entropy(emotion[labelled], batch.emotion[labelled]),
            functional.mse_loss(traits[with_traits], batch.traits[with_traits]),
            entropy(emotion[sure], guess[sure]) if sure.any() else 0 * emotion.sum(),
            functional.mse_loss(traits[rated], scores[rated]) if rated.any() else 0 * traits.sum(),
        ]

    def _gradnorm(self, losses: list[Tensor]) -> None:
        shared = self.model.out.weight
        norms = [
            float(torch.autograd.grad(loss, shared, retain_graph=True)[0].norm()) for loss in losses
        ]
        for number, loss in enumerate(losses):
            if self.initial[number] is None:
                self.initial[number] = max(loss.item(), 1e-6)
        for wallet, alpha, rate in ((0, 1.0, 0.005), (2, 1.5, 0.01)):
            terms = (wallet, wallet + 1)
            ratios = [losses[i].item() / self.initial[i] for i in terms]  # type: ignore[operator]
            mean_ratio = max(sum(ratios) / 2, 1e-6)
            scaled = [self.weights[i] * norms[i] for i in terms]
            mean = sum(scaled) / 2
            for place, i in enumerate(terms):
                target = mean * (ratios[place] / mean_ratio) ** alpha
                sign = (scaled[place] > target) - (scaled[place] < target)
                self.weights[i] = max(self.weights[i] - rate * sign * norms[i], FLOOR)
            total = sum(self.weights[i] for i in terms)
            for i in terms:
                self.weights[i] *= self.budgets[wallet // 2] / total
