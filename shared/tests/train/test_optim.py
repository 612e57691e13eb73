"""Optimisers and schedules against written-out formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mepr_shared.train.optim import Lion, build_optimiser, schedule
from mepr_shared.train.settings import FitSettings


def test_lion_follows_its_formula():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3))
    expected, momentum = weight.detach().clone(), torch.zeros(5, 3)
    optimiser = Lion([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    for _ in range(4):
        gradient = torch.randn(5, 3)
        weight.grad = gradient.clone()
        optimiser.step()
        update = torch.sign(0.9 * momentum + 0.1 * gradient)
        expected = expected - 0.1 * (update + 0.2 * expected)
        momentum = 0.99 * momentum + 0.01 * gradient
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd", "rmsprop"])
def test_weight_decay_is_obeyed_and_spares_vectors(name):
    def stepped(decay):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        chosen = FitSettings(optimiser=name, weight_decay=decay, learning_rate=0.01)
        optimiser = build_optimiser(model, chosen)
        model.weight.grad = torch.full_like(model.weight, 1e-3)
        model.bias.grad = torch.full_like(model.bias, 1e-3)
        optimiser.step()
        return model

    plain, decayed = stepped(0.0), stepped(0.5)
    assert not torch.equal(plain.weight, decayed.weight)
    assert torch.equal(plain.bias, decayed.bias)


def test_a_marked_parameter_is_not_decayed():
    model = nn.Linear(4, 4, bias=False)
    model.weight._no_weight_decay = True
    groups = build_optimiser(model, FitSettings(weight_decay=0.5)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(0, 0.5), (1, 0.0)]


def test_schedules_begin_rise_and_end_where_they_say():
    steps = 100
    assert {schedule("none", 0.1, steps)(s) for s in range(steps)} == {1.0}
    cosine = schedule("cosine", 0.1, steps)
    assert cosine(0) == 1 and cosine(100) == pytest.approx(0)
    assert cosine(50) == pytest.approx(0.5)
    warm = schedule("cosine_warmup", 0.1, steps)
    assert [warm(s) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert warm(10) == 1 and warm(55) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    linear = schedule("linear_warmup", 0.2, steps)
    assert linear(19) == 1 and linear(60) == pytest.approx(0.5) and linear(100) == 0
    cycle = schedule("onecycle", 0.3, steps)
    assert cycle(29) == pytest.approx(1) and cycle(0) < 0.06 and cycle(100) == pytest.approx(0)
