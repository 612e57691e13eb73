"""Trait losses: values, gradients, masks, names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mepr_shared.errors import ConfigError
from mepr_shared.metrics import trait_scores
from mepr_shared.objectives.traits import (
    MINIMUM_CCC_ROWS,
    PUBLISHED_COMBINATIONS,
    TraitObjective,
    parse_trait_loss,
)

SINGLE = ("mae", "mse", "rmse", "logcosh", "bell", "gl", "ccc")


def batch(rows: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores and labels `[rows, 5]`, no two equal: |d| has a kink at 0."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    offsets = 0.05 + 0.2 * torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, (rows, 5), generator=generator) * 2 - 1
    return targets + signs * offsets, targets


def by_formula(name: str, scores: np.ndarray, targets: np.ndarray) -> float:
    d = (scores - targets)[~np.isnan(targets)]
    if name == "ccc":
        return 1 - trait_scores(targets, scores)["ccc"]
    return {
        "mae": lambda: abs(d).mean(),
        "mse": lambda: (d**2).mean(),
        "rmse": lambda: np.sqrt((d**2).mean()),
        "logcosh": lambda: np.log(np.cosh(d)).mean(),
        "bell": lambda: (1 - np.exp(-(d**2) / (2 * 0.09**2))).mean(),
        "gl": lambda: (1 - np.exp(-(d**2) / 0.08**2)).mean(),
    }[name]()


@pytest.mark.parametrize("name", SINGLE)
def test_each_loss_is_its_formula_with_and_without_missing_labels(name: str) -> None:
    scores, targets = batch()
    found = TraitObjective(name)(scores, targets)
    assert found.item() == pytest.approx(by_formula(name, scores.numpy(), targets.numpy()))
    targets[2] = torch.nan
    targets[5:8, 1] = torch.nan
    found = TraitObjective(name)(scores, targets)
    assert found.item() == pytest.approx(by_formula(name, scores.numpy(), targets.numpy()))


@pytest.mark.parametrize("scale", ["unit", "published"])
@pytest.mark.parametrize("name", [*PUBLISHED_COMBINATIONS, "mae+0.5*ccc"])
def test_gradients_are_those_of_finite_differences(name: str, scale: str) -> None:
    scores, targets = batch()
    targets[0, 0] = targets[3] = torch.nan
    objective = TraitObjective(name, scale=scale)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda s: objective(s, targets), scores.requires_grad_())


@pytest.mark.parametrize("name", SINGLE)
def test_unlabelled_entries_change_nothing_and_get_no_gradient(name: str) -> None:
    scores, targets = batch(rows=20)
    targets[9:12] = torch.nan
    targets[12:14, 3] = torch.nan
    masked = torch.isnan(targets)
    losses, gradients = [], []
    for filler in (0.5, 7.0, float("nan"), float("inf")):
        said = torch.where(masked, filler, scores).requires_grad_()
        loss = TraitObjective(name)(said, targets)
        loss.backward()
        assert said.grad is not None
        assert (said.grad[masked] == 0).all()
        losses.append(loss.item())
        gradients.append(said.grad[~masked])
    assert len(set(losses)) == 1
    assert all(torch.equal(gradients[0], other) for other in gradients)
    # rows that carry no label at all may as well not be in the batch
    labelled = ~masked.all(dim=1)
    without = TraitObjective(name)(scores[labelled], targets[labelled])
    assert without.item() == pytest.approx(losses[0])


@pytest.mark.parametrize("name", [*SINGLE, "mae+ccc"])
def test_a_batch_without_labels_is_exactly_zero_and_still_has_a_graph(name: str) -> None:
    scores = torch.full((4, 5), torch.nan, requires_grad=True)
    loss = TraitObjective(name)(scores, torch.full((4, 5), torch.nan))
    assert loss.item() == 0
    loss.backward()
    assert scores.grad is not None and (scores.grad == 0).all()


@pytest.mark.parametrize("name", SINGLE)
def test_a_perfect_prediction_costs_nothing_and_has_finite_gradients(name: str) -> None:
    _, targets = batch()
    scores = targets.clone().requires_grad_()
    loss = TraitObjective(name)(scores, targets)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


# --- ccc ---


def test_ccc_counts_a_constant_as_zero_and_can_leave_it() -> None:
    _, targets = batch()
    scores = torch.full((12, 5), 0.5, dtype=torch.float64, requires_grad=True)
    loss = TraitObjective("ccc")(scores, targets)
    assert loss.item() == pytest.approx(1)
    loss.backward()
    assert scores.grad is not None and (scores.grad != 0).all()
    both = torch.full((12, 5), 0.3, requires_grad=True)  # constant labels too: 0 / 0
    loss = TraitObjective("ccc")(both, torch.full((12, 5), 0.3))
    assert loss.item() == 1
    loss.backward()
    assert both.grad is not None and (both.grad == 0).all()


def test_ccc_leaves_out_traits_with_fewer_than_eight_labels() -> None:
    scores, targets = batch(rows=10)
    targets[:3, 4] = torch.nan  # 7 labels are left
    found = TraitObjective("ccc")(scores, targets)
    expected = TraitObjective("ccc")(scores[:, :4], targets[:, :4])
    assert found.item() == pytest.approx(expected.item())
    few = MINIMUM_CCC_ROWS - 1
    mixed = TraitObjective("mae+ccc")(scores[:few], targets[:few])
    plain = TraitObjective("mae")(scores[:few], targets[:few])
    assert mixed.item() == pytest.approx(plain.item())
    assert TraitObjective("mae+ccc").minimum_rows == 8
    assert TraitObjective("mae+bell").minimum_rows == 1


def test_ccc_is_the_mean_over_traits_not_that_of_the_flattened_matrix() -> None:
    scores, targets = batch()
    shift = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = 1 - TraitObjective("ccc")(scores + shift, targets + shift).item()
    known = trait_scores((targets + shift).numpy(), (scores + shift).numpy())
    assert found == pytest.approx(known["ccc"])
    assert abs(known["ccc"] - known["ccc_flat"]) > 0.01


# --- names ---


def test_all_sixteen_published_combinations_are_the_sums_of_their_parts() -> None:
    scores, targets = batch()
    assert len(set(PUBLISHED_COMBINATIONS)) == 16
    for name in PUBLISHED_COMBINATIONS:
        parts = sum(TraitObjective(part)(scores, targets).item() for part in name.split("_"))
        assert TraitObjective(name)(scores, targets).item() == pytest.approx(parts)
        by_plus = TraitObjective(name.replace("_", "+"))(scores, targets)
        assert by_plus.item() == pytest.approx(parts)


def test_factors_weigh_the_terms() -> None:
    scores, targets = batch()
    expected = 2 * TraitObjective("mae")(scores, targets) + 0.5 * TraitObjective("ccc")(
        scores, targets
    )
    found = TraitObjective("2*mae + 0.5 * ccc")(scores, targets)
    assert found.item() == pytest.approx(expected.item())
    assert parse_trait_loss("mae+0.5*ccc") == ((1.0, "mae"), (0.5, "ccc"))


def test_the_published_scale_keeps_the_constants_of_the_released_code() -> None:
    scores, targets = batch()
    d = scores - targets
    bell = TraitObjective("bell", scale="published")(scores, targets)
    assert bell.item() == pytest.approx((300 * (1 - torch.exp(-(d**2) / 162))).mean().item())
    gl = TraitObjective("gl", scale="published")(scores, targets)
    assert gl.item() == pytest.approx((600 * (1 - torch.exp(-(d**2) / 64))).mean().item())
    for name in ("mae", "ccc"):  # those have no constants
        published = TraitObjective(name, scale="published")(scores, targets)
        assert published.item() == TraitObjective(name)(scores, targets).item()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("logcos", "did you mean 'logcosh'"),
        ("mae+", "unknown loss ''"),
        ("mae_ccc", "unknown loss 'mae_ccc'"),
        ("mae+0*ccc", "'0' is not a positive number"),
        ("mae+-1*ccc", "'-1' is not a positive number"),
        ("x*mae", "'x' is not a positive number"),
        ("mae+mae", "names 'mae' twice"),
    ],
)
def test_a_loss_that_cannot_be_read_is_refused(loss: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TraitObjective(loss)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'published'"):
        TraitObjective("bell", scale="publishd")  # type: ignore[arg-type]


def test_half_precision_scores_are_judged_in_float32() -> None:
    scores, targets = batch(rows=64)
    rough = scores.bfloat16()
    for name in SINGLE:
        found = TraitObjective(name)(rough, targets.float())
        assert found.dtype == torch.float32
        expected = TraitObjective(name)(rough.double(), targets)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_swapped_traits_cost_more() -> None:
    scores, targets = batch(rows=64)
    near = targets + 0.1 * (scores - targets)
    for name in SINGLE:
        right = TraitObjective(name)(near, targets).item()
        assert TraitObjective(name)(near[:, [1, 0, 2, 3, 4]], targets).item() > right + 1e-3
