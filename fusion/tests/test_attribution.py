"""Integrated gradients: contributions sum up, absent modalities have none, sizes are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mepr_fusion.analyze.attribution import (
    Baseline,
    Target,
    deletion_test,
    integrated_gradients,
    leave_one_out,
    training_baseline,
    without_modality,
)
from mepr_fusion.data import FusionBatch
from mepr_fusion.model import FusionModel, FusionOutput

WIDTHS = {"audio": (6, 4), "face": (5, 5), "text": (3, 0)}
EMOTION_WIDTHS = {name: pair[0] for name, pair in WIDTHS.items()}
TARGETS = [
    Target("emotion_logit", 4),
    Target("emotion_probability", 2),
    Target("trait_logit", 0),
    Target("trait_score", 3),
]


def make_batch(count: int = 60, seed: int = 0) -> FusionBatch:
    """Modalities missing at random; some predictions and one embedding half are NaN."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    present = torch.rand(count, 3, generator=generator) > 0.35
    present[~present.any(dim=1), 1] = True
    features = {name: 1 + 2 * normal(count, sum(pair)) for name, pair in WIDTHS.items()}
    for index, values in enumerate(features.values()):
        values[~present[:, index]] = torch.nan
    features["face"][:10, 5:] = torch.nan
    emotion = normal(count, 3, 7).masked_fill(~present[..., None], torch.nan)
    emotion[5:15, 0] = torch.nan
    scores = torch.rand(count, 3, 5, generator=generator).masked_fill(~present[..., None], 0.5)
    return FusionBatch(
        features=features,
        emotion_predictions=emotion,
        trait_predictions=scores,
        present=present,
        emotion=torch.full((count, 7), torch.nan),
        traits=torch.full((count, 5), torch.nan),
        multi_label=torch.arange(count) % 2 == 0,
        corpus=torch.zeros(count, dtype=torch.int64),
    )


@pytest.fixture(scope="module")
def model() -> FusionModel:
    """Weights far from their start, so that the model is anything but linear."""
    torch.manual_seed(1)
    built = FusionModel({name: sum(pair) for name, pair in WIDTHS.items()}, width=16, heads=2)
    with torch.no_grad():
        for weight in built.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return built


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return training_baseline(make_batch(200, 5), torch.arange(200), EMOTION_WIDTHS)


def test_the_baseline_is_the_mean_of_what_is_there(tmp_path):
    batch = make_batch(80, 2)
    rows = torch.arange(50)
    found = training_baseline(batch, rows, EMOTION_WIDTHS)
    for index, (name, values) in enumerate(batch.features.items()):
        here = values[:50][batch.present[:50, index]]
        np.testing.assert_allclose(found.features[name], np.nanmean(here, axis=0), rtol=1e-5)
        given = batch.trait_predictions[:50, index][batch.present[:50, index]]
        np.testing.assert_allclose(found.trait_predictions[index], given.mean(dim=0), rtol=1e-5)
    found.save(tmp_path / "baseline.safetensors")
    again = Baseline.load(tmp_path / "baseline.safetensors")
    assert again.emotion_widths == EMOTION_WIDTHS and list(again.features) == sorted(WIDTHS)
    assert torch.equal(again.features["face"], found.features["face"])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_contributions_sum_to_the_difference_and_absent_ones_are_exactly_zero(
    model, baseline, target
):
    batch = make_batch()
    found = integrated_gradients(model, batch, baseline, target)
    missed = found.values.sum(dim=(1, 2)) - found.difference
    assert (missed.abs() <= 0.01 * found.difference.abs().clamp_min(0.005)).all()
    np.testing.assert_allclose(found.residual, -missed, atol=1e-6)
    assert (found.values[~batch.present] == 0).all()
    assert (found.values[5:15, 0, 2] == 0).all()  # no prediction
    assert (found.values[:10, 1, 1] == 0).all()  # no trait embedding
    assert (found.values[:, 2, 1] == 0).all()  # text has none at all
    assert (found.values[batch.present].abs().sum(dim=0)[:2] > 0).all()
    assert found.difference.abs().max() > 0.05


def test_they_equal_a_plain_sum_along_the_line(model, baseline):
    batch, target = make_batch(6, 3), Target("trait_score", 1)
    found = integrated_gradients(model, batch, baseline, target, tolerance=1e-4)
    steps, names = 2000, list(batch.features)
    at = ((torch.arange(steps) + 0.5) / steps)[:, None, None]
    start = {name: baseline.features[name].expand_as(batch.features[name]) for name in names}
    moving = {
        name: (start[name] + at * (batch.features[name] - start[name])).requires_grad_(True)
        for name in names
    }
    means = (baseline.emotion_predictions, baseline.trait_predictions)
    ends = (batch.emotion_predictions, batch.trait_predictions)
    said = [
        (mean + at[..., None] * (end - mean)).flatten(0, 1)
        for mean, end in zip(means, ends, strict=True)
    ]
    flat = {name: value.flatten(0, 1) for name, value in moving.items()}
    output = model(flat, *said, batch.present.repeat(steps, 1)).trait_scores[:, 1].sum()
    gradient = torch.autograd.grad(output, list(moving.values()))
    total = torch.cat(gradient, dim=2).mean(dim=0)
    moved = torch.cat([batch.features[name] - start[name] for name in names], dim=1)
    wanted = (total * moved).nan_to_num()
    parts = torch.stack([part.sum(dim=1) for part in wanted.split([6, 4, 5, 5, 3], dim=1)], dim=1)
    got = found.values[:, [0, 0, 1, 1, 2], [0, 1, 0, 1, 0]]
    np.testing.assert_allclose(got, parts, atol=2e-4)


class Linear(nn.Module):
    """Sums features of present modalities; the face counts ten times."""

    def forward(self, features, emotion_predictions, trait_predictions, present) -> FusionOutput:
        weights = torch.tensor([1.0, 10.0, 1.0])
        sums = torch.stack([values.nan_to_num().sum(dim=1) for values in features.values()], dim=1)
        score = (sums * weights * present).sum(dim=1, keepdim=True)
        logits, scores = score.expand(-1, 7), score.expand(-1, 5)
        return FusionOutput(logits, scores, scores, sums, sums, {})


def test_a_linear_model_is_attributed_exactly(baseline):
    batch = make_batch(20, 4)
    found = integrated_gradients(Linear(), batch, baseline, Target("trait_logit", 0))
    moved = batch.features["face"] - baseline.features["face"]
    wanted = (10 * moved[:, :5].nan_to_num().sum(dim=1)).masked_fill(~batch.present[:, 1], 0)
    np.testing.assert_allclose(found.values[:, 1, 0], wanted, rtol=1e-4, atol=1e-4)
    assert (found.values[..., 2:] == 0).all()


def test_leaving_one_out_is_the_answer_without_it(model):
    batch, target = make_batch(30, 6), Target("trait_score", 2)
    found = leave_one_out(model, batch, target)
    model.eval()
    with torch.no_grad():
        whole = model(*batch.inputs).trait_scores[:, 2]
        for index in range(3):
            rows, part = without_modality(batch, index)
            assert not part.present[:, index].any() and part.present.any(dim=1).all()
            without = model(*part.inputs).trait_scores[:, 2]
            np.testing.assert_allclose(found[rows, index], whole[rows] - without, atol=1e-6)
            others = torch.ones(30, dtype=torch.bool)
            others[rows] = False
            assert found[others, index].isnan().all()


def test_taking_out_what_ranks_first_moves_the_answer_more_than_another(baseline):
    batch, target = make_batch(200, 7), Target("trait_logit", 0)
    batch = replace(
        batch, features={k: v - baseline.features[k] for k, v in batch.features.items()}
    )
    centred = replace(
        baseline, features={k: torch.zeros_like(v) for k, v in baseline.features.items()}
    )
    attribution = integrated_gradients(Linear(), batch, centred, target)
    found = deletion_test(Linear(), batch, attribution, target)
    assert len(found.rows) == (batch.present.sum(dim=1) > 1).sum()
    assert found.top.mean() > 1.2 * found.random.mean()
