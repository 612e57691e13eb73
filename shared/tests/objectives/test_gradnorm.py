"""Weights of loss terms: a written-out reference, budget and floor, norms without a backward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mepr_shared.objectives.gradnorm import Wallet, gradient_norms, project


def bisected(weights: np.ndarray, budget: float, floor: float) -> np.ndarray:
    """The projection by another way: the threshold at which the sum is the budget, halved in."""
    low, high = weights.min() - budget - 1, weights.max()
    for _ in range(200):
        middle = (low + high) / 2
        if np.maximum(weights - middle, floor).sum() > budget:
            low = middle
        else:
            high = middle
    return np.maximum(weights - high, floor)


class WrittenOut:
    """GradNorm as in the paper, in float64, one term at a time; every term is in every batch."""

    def __init__(self, terms: int, budget: float, alpha: float, rate: float, first: int) -> None:
        self.weights = np.full(terms, budget / terms)
        self.budget, self.alpha, self.rate, self.first = budget, alpha, rate, first
        self.seen: list[np.ndarray] = []

    def update(self, losses: np.ndarray, norms: np.ndarray, floor: float) -> None:
        if len(self.seen) < self.first:
            self.seen.append(losses)
        if len(self.seen) < self.first:
            return
        initial = np.mean(self.seen, axis=0)
        ratios = [loss / start for loss, start in zip(losses, initial, strict=True)]
        gradients = [w * g for w, g in zip(self.weights, norms, strict=True)]
        moved = []
        for w, g, ratio, gradient in zip(self.weights, norms, ratios, gradients, strict=True):
            target = np.mean(gradients) * (ratio / np.mean(ratios)) ** self.alpha
            moved.append(w - self.rate * np.sign(gradient - target) * g)
        self.weights = bisected(np.array(moved), self.budget, floor)


def toy(seed: int = 0, scale: float = 1.0):
    """Two regressions over one shared linear layer; the second loss is `scale` times larger."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    shared = nn.Parameter(draw(3, 4) / 2)
    heads = [nn.Parameter(draw(3, 2)), nn.Parameter(draw(3, 2))]
    truth = [draw(4, 2), 3 * draw(4, 2)]

    def losses() -> list[torch.Tensor]:
        x = draw(16, 4)
        hidden = torch.tanh(x @ shared.T)
        errors = [hidden @ h - x @ t for h, t in zip(heads, truth, strict=True)]
        return [errors[0].square().mean(), scale * errors[1].square().mean()]

    return shared, heads, losses


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5])
def test_weights_follow_a_written_out_reference_for_200_steps(alpha):
    shared, heads, losses = toy()
    given = {"budget": 2.0, "alpha": alpha, "learning_rate": 0.005, "first_steps": 20}
    wallet = Wallet(["a", "b"], floor=1e-3, **given)
    wallet.weights, wallet.initial_sum, wallet.steps_seen = (
        t.double() for t in (wallet.weights, wallet.initial_sum, wallet.steps_seen)
    )
    reference = WrittenOut(2, 2.0, alpha, 0.005, 20)
    optimiser = torch.optim.SGD([shared, *heads], lr=0.02)
    for step in range(200):
        found = losses()
        norms = [torch.autograd.grad(x, shared, retain_graph=True)[0].norm() for x in found]
        optimiser.zero_grad()
        sum(w * x for w, x in zip(wallet.weights.tolist(), found, strict=True)).backward()
        optimiser.step()
        values = [torch.stack([x.detach() for x in group]) for group in (found, norms)]
        wallet.update(*values, torch.ones(2, dtype=torch.bool))
        reference.update(*(value.numpy() for value in values), floor=1e-3)
        np.testing.assert_allclose(wallet.weights.numpy(), reference.weights, rtol=0, atol=1e-6)
        if step < 19:
            assert wallet.weights.tolist() == [1.0, 1.0]
    assert abs(wallet.weights[0] - 1) > 0.05  # it did something


def test_float32_weights_follow_the_reference_too():
    random = np.random.default_rng(1)
    wallet = Wallet(["a", "b"], budget=2.0, alpha=1.0, learning_rate=0.005)
    reference = WrittenOut(2, 2.0, 1.0, 0.005, 20)
    for step in range(200):
        losses = (1.5 + random.random(2)) * [1.0, 0.99**step]
        norms = 0.2 + random.random(2)
        given = [torch.tensor(v, dtype=torch.float32) for v in (losses, norms)]
        wallet.update(*given, torch.ones(2, dtype=torch.bool))
        reference.update(losses, norms, 1e-3)
    np.testing.assert_allclose(wallet.weights.numpy(), reference.weights, rtol=0, atol=1e-5)


def test_a_task_whose_gradients_are_a_hundred_times_larger_ends_with_a_lower_weight():
    # Alike tasks: without the factor neither is preferred.
    ends = {}
    for scale in (1.0, 100.0):
        wallet = Wallet(["a", "b"], budget=2.0, alpha=1.0, learning_rate=0.005)
        random = np.random.default_rng(0)
        for _ in range(300):
            drawn = torch.from_numpy(0.5 + random.random((2, 2))).float()
            drawn[:, 1] *= scale
            wallet.update(drawn[0], drawn[1], torch.ones(2, dtype=torch.bool))
        ends[scale] = wallet.weights.tolist()
    assert abs(ends[1.0][0] - ends[1.0][1]) < 0.3
    assert ends[100.0][1] < 0.1 * ends[100.0][0]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_sum_is_the_budget_and_no_weight_is_under_the_floor_at_any_step(data):
    terms = data.draw(st.integers(1, 4))
    budget = data.draw(st.floats(0.1, 4.0))
    floor = data.draw(st.floats(0, 0.999)) * budget / terms
    wallet = Wallet(
        [str(i) for i in range(terms)],
        budget=budget,
        alpha=data.draw(st.floats(0, 3)),
        learning_rate=data.draw(st.floats(1e-4, 1.0)),
        floor=floor,
        first_steps=data.draw(st.integers(1, 3)),
    )
    # NaN stands beside a term that is absent, and for a bad batch.
    values = st.lists(
        st.one_of(st.floats(0, 1e4), st.sampled_from([math.nan, math.inf])),
        min_size=terms,
        max_size=terms,
    )
    presence = st.lists(st.booleans(), min_size=terms, max_size=terms)
    for _ in range(data.draw(st.integers(1, 8))):
        losses, norms = torch.tensor(data.draw(values)), torch.tensor(data.draw(values))
        wallet.update(losses, norms, torch.tensor(data.draw(presence)))
        assert wallet.weights.sum().item() == pytest.approx(budget, rel=1e-5)
        assert (wallet.weights >= floor - 1e-6 * budget).all()


def test_an_absent_term_counts_for_nothing_and_learns_its_start_when_it_comes():
    wallet = Wallet(["a", "b"], budget=2.0, alpha=1.0, learning_rate=0.1, first_steps=2)
    here, both = torch.tensor([True, False]), torch.tensor([True, True])
    nan = math.nan
    for _ in range(5):
        # Alone, a term has nothing to be balanced with.
        wallet.update(torch.tensor([2.0, nan]), torch.tensor([1.0, nan]), here)
        assert wallet.weights.tolist() == [1.0, 1.0]
    wallet.update(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]), both)
    assert wallet.weights.tolist() == [1.0, 1.0] and wallet.steps_seen.tolist() == [2, 1]
    wallet.update(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 1.0]), both)
    assert wallet.initial_sum.tolist() == [4.0, 8.0]  # means 2 and 4
    # Ratios 1/2 and 5/4: the first learns faster and is held back.
    torch.testing.assert_close(wallet.weights, torch.tensor([0.9, 1.1]))


def test_a_bad_batch_leaves_no_trace():
    wallet = Wallet(["a", "b"], budget=2.0, alpha=1.0, learning_rate=0.1, first_steps=1)
    both = torch.tensor([True, True])
    bad = (
        ([math.nan, 1.0], [1.0, 1.0]),
        ([math.inf, 1.0], [math.nan, 1.0]),
        ([9.0, 1.0], [math.inf, 1.0]),
        ([9.0, 1.0], [math.nan, 1.0]),
    )
    for losses, norms in bad:
        wallet.update(torch.tensor(losses), torch.tensor(norms), both)
    assert wallet.initial_sum.tolist() == [0.0, 1.0] and wallet.weights.tolist() == [1.0, 1.0]
    wallet.update(torch.ones(2), torch.tensor([1.0, 3.0]), both)
    assert wallet.weights.tolist() != [1.0, 1.0]


def test_budgets_that_the_floors_exceed_are_refused():
    with pytest.raises(ValueError, match="2 terms with floor 0.6 do not fit budget 1.0"):
        Wallet(["a", "b"], budget=1.0, alpha=1.0, learning_rate=0.1, floor=0.6)
    with pytest.raises(ValueError, match="0 terms"):
        Wallet([], budget=1.0, alpha=1.0, learning_rate=0.1)


def test_state_round_trip_goes_on_as_if_nothing_had_been():
    random = np.random.default_rng(0)
    steps = [torch.from_numpy(0.1 + random.random((2, 3))).float() for _ in range(40)]
    new = lambda: Wallet("abc", budget=3.0, alpha=1.5, learning_rate=0.01, first_steps=10)  # noqa: E731
    whole, first, second = new(), new(), new()
    present = torch.ones(3, dtype=torch.bool)
    for number, (losses, norms) in enumerate(steps):
        whole.update(losses, norms, present)
        (first if number < 7 else second).update(losses, norms, present)
        if number == 6:
            second.load({name: value.clone() for name, value in first.tensors().items()})
    assert torch.equal(whole.weights, second.weights)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.floats(0.1, 5.0),
    st.floats(0.0, 0.999),
)
def test_projection_is_that_by_bisection(weights, budget, share):
    floor = share * budget / len(weights)
    found = project(torch.tensor(weights, dtype=torch.float64), budget, floor).numpy()
    np.testing.assert_allclose(found, bisected(np.array(weights), budget, floor), atol=1e-9)


@pytest.mark.parametrize(
    "shape", [(6, 1, 50), (6, 3, 4), (40, 2, 8)], ids=["few rows", "more", "many"]
)
def test_norms_are_those_of_the_gradients_of_each_term(shape):
    """Few rows go by their products with one another, many by the weight gradient itself."""
    samples, nodes, width = shape
    torch.manual_seed(0)
    layer, x = nn.Linear(width, 5).double(), torch.randn(*shape, dtype=torch.float64)
    rows = torch.zeros(3, samples, dtype=torch.bool)
    rows[0, ::2], rows[1, 1::3] = True, True
    shared = layer(x)
    into = torch.randn(3, samples, nodes, 5, dtype=torch.float64)
    found = gradient_norms(x, into, rows)
    for term in range(3):
        loss = (shared * into[term] * rows[term][:, None, None]).sum()
        (gradient,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
        assert found[term].item() == pytest.approx(gradient.norm().item(), rel=1e-5)


def test_both_ways_to_the_norms_agree():
    torch.manual_seed(0)
    x, into = torch.randn(20, 20), torch.randn(2, 20, 7)
    rows = torch.rand(2, 20) < 0.7
    by_rows = gradient_norms(x, into, rows)
    # Rows of zeros change nothing but which way is the shorter one.
    padding = torch.zeros(10, 20)
    by_weight = gradient_norms(
        torch.cat([x, padding]),
        torch.cat([into, torch.ones(2, 10, 7)], dim=1),
        torch.cat([rows, torch.ones(2, 10, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(by_rows, by_weight, rtol=1e-5, atol=0)
