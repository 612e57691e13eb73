"""Modified GradNorm: weights of loss terms that share a budget (SYSTEM, section 7).

GradNorm (Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing") moves
the weight of each term so that the gradients of all terms on one shared weight have similar norms,
larger for terms that learn slowly. Here supervised and semi-supervised terms have a wallet each,
an initial loss is a mean over a term's first steps, and after each update the weights are put
back onto {sum = budget, each >= floor}.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = 1e-12


class Wallet:
    """The weights of `K` terms that share a budget.

    One update with losses L, unweighted gradient norms g and weights w, over the terms that are
    in the batch and whose initial loss is known (eq. 1 and 2 of the paper):

        G_i = w_i g_i,  r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))
        w_i <- w_i - rate * sign(G_i - mean_j(G_j) r_i^alpha) g_i

    Args:
        terms: names; every weight starts at `budget / K`.
        budget: sum of the weights.
        alpha: strength of the balance of learning speeds.
        learning_rate: of the weights.
        floor: least weight.
        first_steps: steps over which an initial loss is averaged.
        device: where the weights live.

    Raises:
        ValueError: no term, or floors that exceed the budget.
    """

    def __init__(
        self,
        terms: Sequence[str],
        *,
        budget: float,
        alpha: float,
        learning_rate: float,
        floor: float = 1e-3,
        first_steps: int = 20,
        device: str | torch.device = "cpu",
    ) -> None:
        if not terms or floor * len(terms) > budget:
            raise ValueError(f"{len(terms)} terms with floor {floor} do not fit budget {budget}")
        self.terms = tuple(terms)
        self.budget, self.alpha, self.floor = budget, alpha, floor
        self.learning_rate, self.first_steps = learning_rate, first_steps
        self.weights = torch.full((len(terms),), budget / len(terms), device=device)
        self.initial_sum = torch.zeros(len(terms), device=device)
        self.steps_seen = torch.zeros(len(terms), device=device)

    @torch.no_grad()
    def update(self, losses: Tensor, norms: Tensor, present: Tensor) -> None:
        """One step of the weights; no value leaves the device.

        Args:
            losses: `[K]` unweighted losses; where not `present` they may be anything.
            norms: `[K]` norms of the unweighted gradients on the shared weight.
            present: `[K]` bool, the term has samples in this batch.
        """
        # What is not finite belongs to a bad batch, which the optimiser skips as well.
        present = present & losses.isfinite() & norms.isfinite()
        first = present & (self.steps_seen < self.first_steps)
        self.initial_sum += torch.where(first, losses, 0.0)
        self.steps_seen += first
        active = present & (self.steps_seen >= self.first_steps)
        count = active.sum().clamp_min(1)
        initial = self.initial_sum / self.steps_seen.clamp_min(1)
        speed = torch.where(active, losses / initial.clamp_min(_TINY), 0.0)
        relative = speed / (speed.sum() / count).clamp_min(_TINY)
        weighted = torch.where(active, self.weights * norms, 0.0)
        target = weighted.sum() / count * relative.clamp_min(_TINY) ** self.alpha
        gradient = torch.sign(weighted - target) * norms
        step = torch.where(active & gradient.isfinite(), gradient, 0.0)
        moved = self.weights - self.learning_rate * step
        self.weights.copy_(project(moved, self.budget, self.floor))

    def tensors(self) -> dict[str, Tensor]:
        """State for resuming."""
        return {
            "weights": self.weights,
            "initial_sum": self.initial_sum,
            "steps_seen": self.steps_seen,
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])


def project(weights: Tensor, budget: float, floor: float) -> Tensor:
    """The nearest point to `weights [K]` with sum `budget` and every entry >= `floor`.

    Euclidean projection onto a simplex that starts at the floor (Duchi et al. 2008, figure 1).
    """
    # The same number added to all weights changes nothing; without it large weights would lose
    # the digits of the budget.
    weights = weights - weights.max()
    above = weights.sort(descending=True).values
    excess = above.cumsum(0) - (budget - floor * len(weights))
    counts = torch.arange(1, len(weights) + 1, device=weights.device, dtype=weights.dtype)
    support = (above - excess / counts > 0).sum().clamp_min(1)
    threshold = excess.gather(0, (support - 1).view(1)) / support
    return (weights - threshold).clamp_min(0) + floor


def gradient_norms(shared_input: Tensor, cotangents: Tensor, rows: Tensor) -> Tensor:
    """Norms of the gradients of `K` terms on the weight of `shared = Linear(shared_input)`.

    A term's gradient there is the matrix product of its cotangent at `shared` with
    `shared_input`, so no further backward is needed (SYSTEM, section 7).

    Args:
        shared_input: `[B, ..., I]`.
        cotangents: `[K, B, ..., H]`, gradient of a loss at `shared` in which term k is alone
            on its rows; or `[T, B, ..., H]` where term k has cotangent `k % T`, so that the terms
            of one task share its products.
        rows: `[K, B]` bool, the rows of each term.

    Returns:
        `[K]` Frobenius norms.
    """
    terms, samples = rows.shape
    inputs = shared_input.detach().reshape(-1, shared_input.shape[-1]).float()
    tasks, repeats = len(cotangents), terms // len(cotangents)
    if len(inputs) <= inputs.shape[1]:
        # ||X^T C||^2 = sum(X X^T * C C^T): smaller products for few rows. A term's rows are
        # chosen from the sums per pair of samples; a NaN of another term must not come in.
        flat = cotangents.float().reshape(tasks, len(inputs), -1)
        gram = (flat @ flat.transpose(1, 2)) * (inputs @ inputs.T)
        each = len(inputs) // samples
        pairs = gram.view(tasks, samples, each, samples, each).sum(dim=(2, 4))
        both = (rows[:, :, None] & rows[:, None, :]).view(repeats, tasks, samples, samples)
        return torch.where(both, pairs, 0.0).sum(dim=(2, 3)).clamp_min(0).sqrt().view(terms)
    chosen = cotangents.float().repeat(repeats, *[1] * (cotangents.ndim - 1))
    chosen = chosen * rows.view(terms, samples, *[1] * (cotangents.ndim - 2))
    flat = chosen.reshape(terms, len(inputs), -1)
    return torch.linalg.vector_norm(flat.transpose(1, 2) @ inputs, dim=(1, 2))
