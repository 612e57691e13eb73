"""Which frames, sounds and words an answer comes from: integrated gradients through all stages.

Integrated gradients (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", eq. 1)
along one line, from a clip of the same length whose every frame is the baseline frame to the clip
itself, all modalities at once. Along that line the inputs of stage 3 move on a curve: the same
integral, cut at stage 3's door, gives the share of each modality's embeddings and predictions. Both
sums are the answer less the answer to the baseline clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mepr_fusion.analyze.attribution import GROUPS
from mepr_fusion.app.clip_chain import Chain, column_of
from mepr_fusion.data import FusionBatch
from mepr_shared.errors import ConfigError

# The residual that is aimed at, as a share of the difference, which counts as SMALL at least.
TOLERANCE, SMALL = 0.0075, 0.02
FIRST_NODES, LAST_NODES = 24, 192
# Layer norms saturate close to the baseline, and most of the answer arises there: the nodes lie
# at this power of evenly spread ones.
CROWDING = 2
# Gauss-Legendre nodes on each straight piece of stage 3's curve.
PIECE_NODES = 3


@dataclass(frozen=True)
class Panel:
    """Contributions of stage 3's inputs to one output.

    Attributes:
        target: an emotion (its probability) or a trait (its score).
        value: the output; baseline: the output for the baseline clip.
        values: `[M, 4]` contributions of each modality's groups (`GROUPS`); 0 where absent.
        residual: what the values miss of `value - baseline`.
    """

    target: str
    value: float
    baseline: float
    values: np.ndarray
    residual: float


@dataclass(frozen=True)
class ClipAttribution:
    """What one window's answer comes from.

    Attributes:
        target: what `frames` explain.
        window: number of the window.
        modalities: the `M` of all panels.
        panels: by target; the chosen one among them.
        frames: modality -> `[T]` contributions of its frames or tokens to `target`; 0 where masked.
        residual: what the frames miss of `value - baseline`.
        nodes: points on the line.
        baseline: what the line starts from, in words, by modality.
    """

    target: str
    window: int
    modalities: tuple[str, ...]
    panels: dict[str, Panel]
    frames: dict[str, np.ndarray]
    residual: float
    nodes: int
    baseline: dict[str, str]

    @property
    def chosen(self) -> Panel:
        """The panel of the target."""
        return self.panels[self.target]

    @property
    def completeness(self) -> float:
        """The largest residual, of frames and panels, as a share of the difference."""
        shares = [abs(self.residual) / _size(self.chosen.value - self.chosen.baseline)]
        shares += [abs(p.residual) / _size(p.value - p.baseline) for p in self.panels.values()]
        return max(shares)


@dataclass(frozen=True)
class Deletion:
    """Changes of the output when frames become baseline frames.

    Attributes:
        count: how many frames, of all modalities together.
        top: size of the change where these are the frames that carry the answer.
        random: its mean where they are drawn at random.
    """

    count: int
    top: float
    random: float


def attribute(chain: Chain, target: str, others: Sequence[str] = ()) -> ClipAttribution:
    """Contributions to `target` of frames, and to it and `others` of stage 3's inputs.

    Raises:
        ConfigError: no such output, or the model does not have it.
    """
    chain.model.eval()
    with torch.no_grad():
        ends = chain.batch(chain.points(torch.tensor([0.0, 1.0], device=chain.answers.device)))
        first, last = chain.outputs(ends).double()
    column = column_of(target)
    if last[column].isnan():
        raise ConfigError(f"the model does not answer {target!r}")
    difference = float(last[column] - first[column])
    nodes = FIRST_NODES
    while True:
        frames, curve = _frames(chain, column, nodes)
        residual = difference - sum(float(values.sum()) for values in frames.values())
        if abs(residual) <= TOLERANCE * _size(difference) or nodes >= LAST_NODES:
            break
        nodes *= 2
    curve = _concatenate([ends[:1], curve, ends[1:]])
    wanted = [t for t in dict.fromkeys((target, *others)) if not last[column_of(t)].isnan()]
    panels = {
        name: Panel(
            name,
            float(last[column_of(name)]),
            float(first[column_of(name)]),
            values,
            float(last[column_of(name)] - first[column_of(name)]) - float(values.sum()),
        )
        for name, values in _panels(chain, curve, wanted).items()
    }
    return ClipAttribution(
        target,
        chain.window,
        chain.modalities,
        panels,
        frames,
        residual,
        nodes,
        chain.baseline_words(),
    )


@torch.no_grad()
def delete(
    chain: Chain,
    attribution: ClipAttribution,
    *,
    share: float = 0.2,
    draws: int = 16,
    seed: int = 0,
) -> Deletion:
    """Put the baseline frame in place of the frames that carry the answer, and of random ones."""
    names = list(attribution.frames)
    valid = np.concatenate([chain.masks[name].cpu().numpy() for name in names])
    values = np.concatenate([attribution.frames[name] for name in names])
    sign = 1.0 if attribution.chosen.value >= attribution.chosen.baseline else -1.0
    places = np.flatnonzero(valid)
    count = max(1, round(share * len(places)))
    order = places[np.argsort(-sign * values[places], kind="stable")]
    random = np.random.default_rng(seed)
    removed = [order[:count]] + [random.choice(places, count, replace=False) for _ in range(draws)]
    stops = np.cumsum([len(attribution.frames[name]) for name in names])[:-1]
    column, found = column_of(attribution.target), []
    for some in _split(removed, chain.at_once()):
        gone = np.zeros((len(some), len(values)), dtype=bool)
        for row, chosen in enumerate(some):
            gone[row, chosen] = True
        versions = {}
        for name, hidden in zip(names, np.split(gone, stops, axis=1), strict=True):
            where = torch.from_numpy(hidden).to(chain.answers.device).unsqueeze(-1)
            versions[name] = torch.where(where, chain.start[name], chain.frames[name])
        found.append(chain.outputs(chain.batch(versions))[:, column].double().cpu().numpy())
    changes = np.abs(np.concatenate(found) - attribution.chosen.value)
    return Deletion(count, float(changes[0]), float(changes[1:].mean()))


def _frames(chain: Chain, column: int, nodes: int) -> tuple[dict[str, np.ndarray], FusionBatch]:
    """Contributions `[T]` by modality, and stage 3's inputs at the nodes, in order."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    even = (places + 1) / 2
    slope = CROWDING * even ** (CROWDING - 1)
    at = torch.from_numpy(even**CROWDING).to(chain.answers.device, torch.float32)
    share = torch.from_numpy(weights / 2 * slope).to(chain.answers.device)
    total = {
        name: torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for name, x in chain.frames.items()
    }
    curve = []
    size = chain.at_once()
    for some, weight in zip(at.split(size), share.split(size), strict=True):
        versions = {name: x.requires_grad_(True) for name, x in chain.points(some).items()}
        with torch.enable_grad():
            batch = chain.batch(versions)
            output = chain.outputs(batch)[:, column].sum()
            gradients = torch.autograd.grad(output, list(versions.values()), allow_unused=True)
        for name, gradient in zip(versions, gradients, strict=True):
            if gradient is not None:
                mean = torch.einsum("p,ptd->td", weight, gradient.double())
                moved = (chain.frames[name] - chain.start[name]).double()
                total[name] += (mean * moved).sum(dim=1)
        curve.append(_detached(batch))
    return {name: value.cpu().numpy() for name, value in total.items()}, _concatenate(curve)


def _panels(chain: Chain, curve: FusionBatch, targets: Sequence[str]) -> dict[str, np.ndarray]:
    """`[M, 4]` by target: the integral along the straight pieces between points of the curve."""
    places, weights = np.polynomial.legendre.leggauss(PIECE_NODES)
    device = chain.answers.device
    at = torch.from_numpy((places + 1) / 2).to(device, torch.float32)
    share = torch.from_numpy(weights / 2).to(device)
    low, high = _moving(curve[:-1]), _moving(curve[1:])
    moving = [
        torch.lerp(a, b, at.view(-1, *[1] * a.dim())).flatten(0, 1).requires_grad_(True)
        for a, b in zip(low, high, strict=True)
    ]
    pieces = len(curve) - 1
    rows = torch.arange(pieces, device=device).repeat(len(at))
    points = replace(
        curve[rows],
        features=dict(zip(curve.features, moving, strict=False)),
        emotion_predictions=moving[-2],
        trait_predictions=moving[-1],
    )
    with torch.enable_grad():
        outputs = chain.outputs(points)
    found = {}
    for target in targets:
        gradients = torch.autograd.grad(
            outputs[:, column_of(target)].sum(), moving, allow_unused=True, retain_graph=True
        )
        sums = []
        for gradient, a, b in zip(gradients, low, high, strict=True):
            if gradient is None:
                sums.append(torch.zeros(a.shape[1:], dtype=torch.float64, device=device))
                continue
            mean = torch.einsum(
                "s,s...->...", share, gradient.view(len(at), *a.shape).double().nan_to_num()
            )
            sums.append((mean * (b - a).double()).nan_to_num().sum(dim=0))
        found[target] = _grouped(chain, sums)
    return found


def _grouped(chain: Chain, sums: Sequence[Tensor]) -> np.ndarray:
    """`[M, 4]` from the sums of every feature `[width]` and prediction `[M, K]`."""
    values = np.zeros((len(chain.modalities), len(GROUPS)))
    for index, (name, total) in enumerate(zip(chain.modalities, sums[:-2], strict=True)):
        emotion_width = {"both": chain.widths[name][0], "emotion": len(total), "traits": 0}
        cut = emotion_width[chain.halves]
        values[index, 0] = float(total[:cut].sum())
        values[index, 1] = float(total[cut:].sum())
    values[:, 2] = sums[-2].sum(dim=1).cpu().numpy()
    values[:, 3] = sums[-1].sum(dim=1).cpu().numpy()
    present = chain.row.present[0].cpu().numpy()
    return np.where(present[:, None], values, 0.0)


def _moving(batch: FusionBatch) -> list[Tensor]:
    return [*batch.features.values(), batch.emotion_predictions, batch.trait_predictions]


def _detached(batch: FusionBatch) -> FusionBatch:
    return replace(
        batch,
        features={name: value.detach() for name, value in batch.features.items()},
        emotion_predictions=batch.emotion_predictions.detach(),
        trait_predictions=batch.trait_predictions.detach(),
    )


def _concatenate(batches: Sequence[FusionBatch]) -> FusionBatch:
    """Points of one window, one after the other; all else is the same for all of them."""
    count = sum(len(batch) for batch in batches)
    first = batches[0]
    rows = first[torch.zeros(count, dtype=torch.long, device=first.present.device)]
    return replace(
        rows,
        features={
            name: torch.cat([batch.features[name] for batch in batches]) for name in first.features
        },
        emotion_predictions=torch.cat([batch.emotion_predictions for batch in batches]),
        trait_predictions=torch.cat([batch.trait_predictions for batch in batches]),
    )


def _split(values: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _size(difference: float) -> float:
    return max(abs(difference), SMALL)
