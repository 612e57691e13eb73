"""Which inputs an answer comes from, with sign: integrated gradients, and leaving modalities out.

Integrated gradients (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", eq. 1)
along the straight line from the training mean to the sample: the contributions of all inputs sum
to `f(x) - f(baseline)`. The integral is a Gauss-Legendre sum over panels of the line; a panel
whose contributions do not sum to the change of the output along it is halved, so that the work
goes to where the gradient jumps (leaky ReLUs) and to the samples that need it. Modalities that a
sample lacks are missing at both ends of the line and get exactly 0; so does a prediction or
embedding that is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mepr_fusion.answers import answer
from mepr_fusion.data import FusionBatch, moments
from mepr_shared.train.runs import replace_file

GROUPS = ("emotion_embedding", "trait_embedding", "emotion_prediction", "trait_prediction")
# Share of the difference that the contributions may miss, and the difference below which it is
# not a share but this much that counts.
TOLERANCE, SMALL = 0.005, 5e-3
# Gauss-Legendre nodes per panel, and how often a panel is halved at most.
NODES, HALVINGS = 8, 16
# A change of the output below this share of its size is rounding in float32.
ROUNDING = 1e-6
# Points on lines that are computed at once.
CHUNK = 4096

OutputKind = Literal["emotion_logit", "emotion_probability", "trait_logit", "trait_score"]


@dataclass(frozen=True)
class Target:
    """One output of the model: emotion `index` of 7, or trait `index` of 5.

    `emotion_probability` is a sigmoid or softmax as the sample's corpus is.
    """

    kind: OutputKind
    index: int


@dataclass(frozen=True)
class Baseline:
    """What a sample is compared with: the mean of the training split.

    Attributes:
        features: per modality `[width]`, the emotion embedding first.
        emotion_widths: per modality the width of the emotion embedding.
        emotion_predictions: `[M, 7]`; trait_predictions: `[M, 5]`.
    """

    features: dict[str, Tensor]
    emotion_widths: dict[str, int]
    emotion_predictions: Tensor
    trait_predictions: Tensor

    def save(self, path: Path) -> None:
        """Write it as a safetensors file."""
        tensors = {f"features.{name}": value for name, value in self.features.items()}
        tensors |= {
            f"emotion_width.{name}": torch.tensor(width)
            for name, width in self.emotion_widths.items()
        }
        tensors["emotion_predictions"] = self.emotion_predictions
        tensors["trait_predictions"] = self.trait_predictions
        stored = {name: value.cpu().contiguous() for name, value in tensors.items()}
        replace_file(path, lambda target: save_file(stored, target))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Baseline:
        """Read what `save` wrote."""
        stored = load_file(path, device=device)
        features = {
            name.removeprefix("features."): value
            for name, value in stored.items()
            if name.startswith("features.")
        }
        widths = {name: int(stored[f"emotion_width.{name}"]) for name in features}
        return cls(features, widths, stored["emotion_predictions"], stored["trait_predictions"])


@dataclass(frozen=True)
class Attribution:
    """Contributions to one output.

    Attributes:
        values: `[B, M, 4]` per modality and group (`GROUPS`), in the unit of the output.
        difference: `[B]` output less the output at the baseline.
        residual: `[B]` difference less the sum of the values.
        steps: the most points on a line that any sample needed.
    """

    values: Tensor
    difference: Tensor
    residual: Tensor
    steps: int

    @property
    def modalities(self) -> Tensor:
        """`[B, M]` contribution of each modality."""
        return self.values.sum(dim=-1)


@torch.no_grad()
def training_baseline(
    data: FusionBatch, rows: Tensor, emotion_widths: Mapping[str, int]
) -> Baseline:
    """Means of the training rows `[n]`, each over the samples that have the modality.

    Args:
        data: all samples.
        rows: indices of the training split.
        emotion_widths: per modality the features that are its emotion embedding; they come first.
    """
    means = []
    for index, values in enumerate(data.features.values()):
        means.append(moments(values, rows[data.present[rows, index]])[0])
    given = data.present[rows].unsqueeze(-1)

    def mean(values: Tensor) -> Tensor:
        chosen = values[rows].double().masked_fill(~given, torch.nan)
        return chosen.nanmean(dim=0).nan_to_num().float()

    return Baseline(
        dict(zip(data.features, means, strict=True)),
        {name: emotion_widths[name] for name in data.features},
        mean(data.emotion_predictions),
        mean(data.trait_predictions),
    )


def outputs_of(model: nn.Module, batch: FusionBatch, target: Target) -> Tensor:
    """`[B]` the chosen output of each sample."""
    output = answer(model, batch)
    if target.kind == "trait_score":
        return output.trait_scores[:, target.index]
    if target.kind == "trait_logit":
        return output.trait_logits[:, target.index]
    logits = output.emotion_logits
    if target.kind == "emotion_logit":
        return logits[:, target.index]
    softmax, sigmoid = torch.softmax(logits, dim=1), torch.sigmoid(logits)
    return torch.where(batch.multi_label[:, None], sigmoid, softmax)[:, target.index]


def integrated_gradients(
    model: nn.Module,
    batch: FusionBatch,
    baseline: Baseline,
    target: Target,
    *,
    tolerance: float = TOLERANCE,
    halvings: int = HALVINGS,
) -> Attribution:
    """Contributions of every modality's inputs to one output, per sample.

    Args:
        model: takes `FusionBatch.inputs`; it is put into eval mode.
        batch: `B` samples.
        baseline: where the lines start.
        target: the output.
        tolerance: residual as a share of the difference that is aimed at.
        halvings: where to stop; the residual then says how far off it is.
    """
    model.eval()
    line = _Line(model, batch, _baseline_batch(batch, baseline), target, baseline)
    device = batch.present.device
    rows = torch.arange(len(batch), device=device)
    low, high = torch.zeros(len(batch), device=device), torch.ones(len(batch), device=device)
    before, after = line.output(rows, low), line.output(rows, high)
    difference = after - before
    allowed = tolerance * difference.abs().clamp_min(SMALL)
    # Shares of many features are summed in float64, so that they sum to the difference.
    values = torch.zeros(*batch.present.shape, len(GROUPS), dtype=torch.float64, device=device)
    panels = torch.zeros(len(batch), dtype=torch.int64, device=device)
    for depth in range(halvings + 1):
        found = line.integral(rows, low, high)
        panels += torch.bincount(rows, minlength=len(batch))
        missed = (found.sum(dim=(1, 2)) - (after - before)).abs()
        rounding = ROUNDING * (1 + after.abs())
        done = missed <= allowed[rows] * (high - low).clamp_min(1 / NODES) + rounding
        if depth == halvings:
            done = torch.ones_like(done)
        values.index_add_(0, rows[done], found[done])
        rows, low, high = rows[~done], low[~done], high[~done]
        if not len(rows):
            break
        middle = (low + high) / 2
        between = line.output(rows, middle)
        before = torch.cat([before[~done], between])
        after = torch.cat([between, after[~done]])
        low, high = torch.cat([low, middle]), torch.cat([middle, high])
        rows = torch.cat([rows, rows])
    residual = difference.double() - values.sum(dim=(1, 2))
    steps = NODES * int(panels.max()) if len(batch) else 0
    return Attribution(values.float(), difference, residual.float(), steps)


def leave_one_out(model: nn.Module, batch: FusionBatch, target: Target) -> Tensor:
    """`[B, M]` output with all modalities less the output without one.

    NaN where the sample lacks the modality or has no other.
    """
    model.eval()
    found = torch.full(batch.present.shape, torch.nan, device=batch.present.device)
    with torch.no_grad():
        whole = outputs_of(model, batch, target)
        for index in range(batch.present.shape[1]):
            rows, part = without_modality(batch, index)
            if len(rows):
                found[rows, index] = whole[rows] - outputs_of(model, part, target)
    return found


def without_modality(batch: FusionBatch, index: int) -> tuple[Tensor, FusionBatch]:
    """Samples `[n]` that have the modality and another one, and these samples without it."""
    rows = (batch.present[:, index] & (batch.present.sum(dim=1) > 1)).nonzero().squeeze(1)
    part = batch[rows]
    present = part.present.clone()
    present[:, index] = False
    return rows, replace(part, present=present)


@dataclass(frozen=True)
class DeletionTest:
    """Does the attribution name what matters? Changes of the output when a modality is taken out.

    Attributes:
        rows: `[n]` samples with two modalities or more.
        top: `[n]` size of the change without the modality of the largest contribution.
        random: `[n]` its expectation over all modalities of the sample.
    """

    rows: np.ndarray
    top: np.ndarray
    random: np.ndarray


def deletion_test(
    model: nn.Module, batch: FusionBatch, attribution: Attribution, target: Target
) -> DeletionTest:
    """Take out the modality that the attribution ranks first, and compare with any other."""
    change = leave_one_out(model, batch, target).abs()
    rows = (batch.present.sum(dim=1) > 1).nonzero().squeeze(1)
    size = attribution.modalities.abs().masked_fill(~batch.present, -1.0)
    top = change[rows].gather(1, size[rows].argmax(dim=1, keepdim=True)).squeeze(1)
    values = (rows, top, change[rows].nanmean(dim=1))
    return DeletionTest(*(value.cpu().numpy() for value in values))


def _baseline_batch(batch: FusionBatch, baseline: Baseline) -> FusionBatch:
    """The batch with the training mean in place of every value; what is NaN stays NaN."""

    def mean(values: Tensor, means: Tensor) -> Tensor:
        return means.to(values).expand_as(values).masked_fill(values.isnan(), torch.nan)

    return replace(
        batch,
        features={
            name: mean(values, baseline.features[name]) for name, values in batch.features.items()
        },
        emotion_predictions=mean(batch.emotion_predictions, baseline.emotion_predictions),
        trait_predictions=mean(batch.trait_predictions, baseline.trait_predictions),
    )


@dataclass(frozen=True)
class _Line:
    """The lines from the baseline (0) to the samples (1), and what is computed along them."""

    model: nn.Module
    end: FusionBatch
    start: FusionBatch
    target: Target
    baseline: Baseline

    @torch.no_grad()
    def output(self, rows: Tensor, at: Tensor) -> Tensor:
        """`[P]` output at points `at [P]` of the lines of samples `rows [P]`."""
        parts = [
            outputs_of(self.model, self._points(part, place)[0], self.target)
            for part, place in zip(rows.split(CHUNK), at.split(CHUNK), strict=True)
        ]
        return torch.cat(parts) if parts else at.new_zeros(0)

    def integral(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """`[P, M, 4]` contributions along the panels from `low` to `high`, in float64."""
        size = CHUNK // NODES
        panels = zip(rows.split(size), low.split(size), high.split(size), strict=True)
        return torch.cat([self._panels(*panel) for panel in panels])

    def _panels(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        place = torch.from_numpy((nodes + 1) / 2).to(low)
        share = torch.from_numpy(weights / 2).to(low.device)
        at = low + place[:, None] * (high - low)  # [nodes, P]
        points, moving = self._points(rows.repeat(NODES), at.flatten(), gradient=True)
        with torch.enable_grad():
            total = outputs_of(self.model, points, self.target).sum()
            gradients = torch.autograd.grad(total, moving, allow_unused=True)
        end, start = self.end[rows], self.start[rows]
        length = (high - low).double()
        found = []
        for gradient, last, first in zip(gradients, _moved(end), _moved(start), strict=True):
            moved = (last - first).double() * length.view(-1, *[1] * (last.dim() - 1))
            if gradient is None:  # an input that this output does not depend on
                found.append(torch.zeros_like(moved))
                continue
            at_nodes = gradient.view(NODES, *last.shape).double()
            product = torch.einsum("s,s...->...", share, at_nodes) * moved
            found.append(torch.where(product.isnan(), 0.0, product))
        return _grouped(found, end, self.baseline)

    def _points(
        self, rows: Tensor, at: Tensor, *, gradient: bool = False
    ) -> tuple[FusionBatch, list[Tensor]]:
        """Samples at points of their lines, and those of their tensors that move."""
        end, start = self.end[rows], self.start[rows]
        moving = []
        for first, last in zip(_moved(start), _moved(end), strict=True):
            place = at.view(-1, *[1] * (first.dim() - 1))
            moving.append((first + place * (last - first)).requires_grad_(gradient))
        points = replace(
            end,
            features=dict(zip(end.features, moving, strict=False)),
            emotion_predictions=moving[-2],
            trait_predictions=moving[-1],
        )
        return points, moving


def _moved(batch: FusionBatch) -> list[Tensor]:
    return [*batch.features.values(), batch.emotion_predictions, batch.trait_predictions]


def _grouped(contributions: list[Tensor], batch: FusionBatch, baseline: Baseline) -> Tensor:
    """`[B, M, 4]` sums per modality and group; exactly 0 where the modality is absent."""
    values = torch.zeros(
        *batch.present.shape, len(GROUPS), dtype=torch.float64, device=batch.present.device
    )
    for index, name in enumerate(batch.features):
        cut = baseline.emotion_widths[name]
        values[:, index, 0] = contributions[index][:, :cut].sum(dim=1)
        values[:, index, 1] = contributions[index][:, cut:].sum(dim=1)
    values[..., 2] = contributions[-2].sum(dim=-1)
    values[..., 3] = contributions[-1].sum(dim=-1)
    return values.masked_fill(~batch.present.unsqueeze(-1), 0.0)
