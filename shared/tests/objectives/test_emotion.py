"""Emotion losses: values, gradients, mixed kinds, and what their weights do to the logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mepr_shared.errors import ConfigError, DataError
from mepr_shared.objectives.emotion import (
    EmotionObjective,
    balanced_weights,
    calibrated_logits,
    class_shares,
    positive_weights,
)

FORCED = ("bce", "ce", "soft_ce", "kl")
WEIGHTS = torch.tensor([0.5, 2.0, 1.5, 3.0, 0.8, 1.2, 2.5])


def logits(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, 7, generator=generator, dtype=torch.float64)


def mixed(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Four multi-label rows, four one-hot, two distributions, two unlabelled, shuffled kinds."""
    generator = torch.Generator().manual_seed(seed)
    many = (torch.rand(4, 7, generator=generator) < 0.4).double()
    many[:, 1] = 1
    one = torch.eye(7, dtype=torch.float64)[torch.tensor([0, 3, 6, 3])]
    shares = torch.rand(2, 7, generator=generator, dtype=torch.float64)
    nothing = torch.full((2, 7), torch.nan, dtype=torch.float64)
    targets = torch.cat([many, one, shares / shares.sum(dim=1, keepdim=True), nothing])
    kinds = torch.tensor([True] * 4 + [False] * 6 + [True, False])
    order = torch.tensor([0, 10, 4, 1, 8, 5, 2, 9, 6, 11, 3, 7])
    return logits(12, seed), targets[order], kinds[order]


def labelled(targets: Tensor) -> Tensor:
    return ~torch.isnan(targets).any(dim=1)


# --- values ---


def test_each_row_is_judged_by_its_own_kind() -> None:
    z, targets, multi = mixed()
    rows = []
    for row, target, many in zip(z, targets, multi, strict=True):
        if torch.isnan(target).any():
            continue
        if many:
            rows.append(functional.binary_cross_entropy_with_logits(row, target))
        else:
            rows.append(functional.cross_entropy(row[None], target[None]))
    found = EmotionObjective()(z, targets, multi)
    assert len(rows) == 10
    assert found.item() == pytest.approx(torch.stack(rows).mean().item())


def test_weights_and_smoothing_are_those_of_torch() -> None:
    z, targets, multi = mixed()
    one = labelled(targets) & (targets.max(dim=1).values == 1) & ~multi
    many = labelled(targets) & multi
    found = EmotionObjective(pos_weight=WEIGHTS)(z[many], targets[many], multi[many])
    expected = functional.binary_cross_entropy_with_logits(
        z[many], targets[many], pos_weight=WEIGHTS.double()
    )
    assert found.item() == pytest.approx(expected.item())
    found = EmotionObjective("ce", class_weight=WEIGHTS, label_smoothing=0.1)(
        z[one], targets[one], multi[one]
    )
    # torch divides by the sum of the weights for "mean"; here the mean is over rows
    expected = functional.cross_entropy(
        z[one],
        targets[one].argmax(dim=1),
        weight=WEIGHTS.double(),
        label_smoothing=0.1,
        reduction="sum",
    )
    assert found.item() == pytest.approx(expected.item() / int(one.sum()))


def test_a_named_loss_applies_to_every_row() -> None:
    z, targets, multi = mixed()
    known = labelled(targets)
    z_known, t = z[known], targets[known]
    shares = t / t.sum(dim=1, keepdim=True)
    expected = {
        "bce": functional.binary_cross_entropy_with_logits(z_known, t),
        "ce": functional.cross_entropy(z_known, t.argmax(dim=1)),
        "soft_ce": functional.cross_entropy(z_known, shares),
        "kl": functional.kl_div(z_known.log_softmax(dim=1), shares, reduction="batchmean"),
    }
    for name, value in expected.items():
        found = EmotionObjective(name)(z, targets, multi)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(value.item()), name


def by_loops(name: str, z: Tensor, targets: Tensor, smoothing: float, tau: float) -> float:
    """The mean over rows with every weight, number by number; the prior is 1/28 ... 7/28."""
    total = 0.0
    for row, target in zip(z.tolist(), targets.tolist(), strict=True):
        if name == "bce":
            for value, label, weight in zip(row, target, WEIGHTS.tolist(), strict=True):
                y, p = (1 - smoothing) * label + smoothing / 2, 1 / (1 + math.exp(-value))
                total -= (weight * y * math.log(p) + (1 - y) * math.log(1 - p)) / 7
            continue
        if name == "ce":
            target = [float(k == target.index(max(target))) for k in range(7)]
        adjusted = [value + tau * math.log((k + 1) / 28) for k, value in enumerate(row)]
        normaliser = math.log(sum(math.exp(value) for value in adjusted))
        masses = [
            weight * ((1 - smoothing) * share / sum(target) + smoothing / 7)
            for weight, share in zip(WEIGHTS.tolist(), target, strict=True)
        ]
        for mass, value in zip(masses, adjusted, strict=True):
            total -= mass * (value - normaliser)
            if name == "kl" and mass > 0:
                total += mass * math.log(mass / sum(masses))
    return total / len(z)


@pytest.mark.parametrize("name", FORCED)
@pytest.mark.parametrize(("smoothing", "tau"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.7), (0.1, 0.7)])
def test_each_loss_is_its_formula_in_plain_loops(name: str, smoothing: float, tau: float) -> None:
    z, targets, multi = mixed()
    known = labelled(targets)
    objective = EmotionObjective(
        name,  # type: ignore[arg-type]
        pos_weight=WEIGHTS,
        class_weight=WEIGHTS,
        label_smoothing=smoothing,
        logit_adjustment=tau,
        class_prior=torch.arange(1, 8) / 28,
    )
    expected = by_loops(name, z[known], targets[known], smoothing, tau)
    assert objective(z, targets, multi).item() == pytest.approx(expected, rel=1e-6)


def test_a_mixed_batch_is_the_sum_of_its_parts_weighted_by_their_rows() -> None:
    z, targets, multi = mixed()
    known = labelled(targets)
    objective = EmotionObjective(pos_weight=WEIGHTS, class_weight=WEIGHTS, label_smoothing=0.1)
    parts = [
        int(rows.sum()) * objective(z[rows], targets[rows], multi[rows])
        for rows in (known & multi, known & ~multi)
    ]
    expected = (parts[0] + parts[1]) / int(known.sum())
    assert objective(z, targets, multi).item() == pytest.approx(expected.item())


def test_weighted_kl_is_never_negative_and_zero_at_the_weighted_target() -> None:
    _, targets, multi = mixed()
    known = labelled(targets)
    t, kinds = targets[known], multi[known]
    objective = EmotionObjective("kl", class_weight=WEIGHTS)
    shares = (t / t.sum(dim=1, keepdim=True)).clamp_min(1e-30)
    assert objective((shares * WEIGHTS).log(), t, kinds).item() == pytest.approx(0, abs=1e-9)
    for seed in range(5):
        assert objective(logits(10, seed), t, kinds).item() > 0


# --- gradients and masks ---


@pytest.mark.parametrize("loss", ["auto", *FORCED])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_finite_differences(loss: str, weighted: bool) -> None:
    z, targets, multi = mixed()
    options = {"pos_weight": WEIGHTS, "class_weight": WEIGHTS, "label_smoothing": 0.1}
    options |= {"logit_adjustment": 0.5, "class_prior": torch.full((7,), 1 / 7)}
    objective = EmotionObjective(loss, **(options if weighted else {}))  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda x: objective(x, targets, multi), z.requires_grad_())


@pytest.mark.parametrize("loss", ["auto", *FORCED])
def test_unlabelled_rows_change_nothing_and_get_no_gradient(loss: str) -> None:
    z, targets, multi = mixed()
    known = labelled(targets)
    objective = EmotionObjective(loss, pos_weight=WEIGHTS, class_weight=WEIGHTS)  # type: ignore[arg-type]
    expected = objective(z[known], targets[known], multi[known])
    for filler in (0.0, 50.0, float("nan"), float("-inf")):
        filled = torch.where(known[:, None], z, filler).requires_grad_()
        found = objective(filled, targets, multi)
        assert found.item() == pytest.approx(expected.item())
        found.backward()
        assert filled.grad is not None
        assert (filled.grad[~known] == 0).all()
        assert (filled.grad[known] != 0).any(dim=1).all()


@pytest.mark.parametrize("loss", ["auto", *FORCED])
def test_a_batch_without_labels_is_exactly_zero_and_still_has_a_graph(loss: str) -> None:
    z = torch.full((4, 7), torch.nan, requires_grad=True)
    nothing = torch.full((4, 7), torch.nan)
    found = EmotionObjective(loss)(z, nothing, torch.tensor([True, False] * 2))  # type: ignore[arg-type]
    assert found.item() == 0
    found.backward()
    assert z.grad is not None and (z.grad == 0).all()


def test_half_precision_logits_are_judged_in_float32() -> None:
    z, targets, multi = mixed()
    for loss in ("auto", "kl"):
        found = EmotionObjective(loss)(z.bfloat16(), targets.float(), multi)
        assert found.dtype == torch.float32
        expected = EmotionObjective(loss)(z.bfloat16().double(), targets, multi)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_swapped_emotions_cost_more() -> None:
    _, targets, multi = mixed()
    good = torch.where(torch.isnan(targets), 0.0, 4 * targets - 2)
    order = [1, 0, 2, 4, 3, 6, 5]
    for loss in ("auto", *FORCED):
        objective = EmotionObjective(loss)  # type: ignore[arg-type]
        right, wrong = objective(good, targets, multi), objective(good[:, order], targets, multi)
        assert wrong.item() > right.item() + 0.1


# --- what weights do to the best logits ---


def best_logits(objective: EmotionObjective, targets: Tensor, multi_label: bool) -> Tensor:
    """The bias that minimises the objective on these rows, by Newton-like descent (LBFGS)."""
    z = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    kinds = torch.full((len(targets),), multi_label)
    optimiser = torch.optim.LBFGS([z], max_iter=500, line_search_fn="strong_wolfe")
    optimiser.param_groups[0].update(tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(z.expand(len(targets), 7), targets, kinds)
        loss.backward()
        return loss

    optimiser.step(closure)
    return z.detach()


def test_calibrated_logits_of_a_weighted_bce_give_the_prevalence() -> None:
    """Trained with positive weights, z - log w is the logit of the true probability."""
    targets = torch.zeros(100, 7, dtype=torch.float64)
    for k, positives in enumerate((10, 20, 30, 40, 50, 60, 70)):
        targets[:positives, k] = 1
    objective = EmotionObjective(pos_weight=positive_weights(targets.numpy()))
    z = best_logits(objective, targets, multi_label=True)
    raw, calibrated = z.sigmoid(), calibrated_logits(z, objective.prior_shift(True)).sigmoid()
    np.testing.assert_allclose(calibrated, targets.mean(dim=0), atol=1e-4)
    # the cap of 10 is not reached: weighted, every class looks balanced
    np.testing.assert_allclose(raw, 0.5, atol=1e-4)


@pytest.mark.parametrize("loss", ["auto", "kl"])
@pytest.mark.parametrize("adjustment", [0.0, 0.7])
def test_calibrated_logits_of_a_weighted_cross_entropy_give_the_prevalence(
    loss: str, adjustment: float
) -> None:
    counts = [40, 10, 5, 5, 20, 12, 8]
    targets = torch.eye(7, dtype=torch.float64)[
        torch.arange(7).repeat_interleave(torch.tensor(counts))
    ]
    objective = EmotionObjective(
        loss,  # type: ignore[arg-type]
        class_weight=balanced_weights(targets.numpy(), power=0.5),
        logit_adjustment=adjustment,
        class_prior=class_shares(targets.numpy()),
    )
    z = best_logits(objective, targets, multi_label=False)
    calibrated = calibrated_logits(z, objective.prior_shift(False)).softmax(dim=0)
    np.testing.assert_allclose(calibrated, np.array(counts) / 100, atol=1e-4)
    assert abs(z.softmax(dim=0) - calibrated).max() > 0.05  # there was something to undo


def test_full_logit_adjustment_makes_every_class_equally_likely() -> None:
    targets = torch.eye(7, dtype=torch.float64)[torch.tensor([0] * 60 + list(range(7)) * 3)]
    prior = targets.mean(dim=0)
    objective = EmotionObjective(logit_adjustment=1.0, class_prior=prior)
    z = best_logits(objective, targets, multi_label=False)
    np.testing.assert_allclose(z.softmax(dim=0), 1 / 7, atol=1e-4)


def test_the_shift_belongs_to_the_activation_of_the_rows() -> None:
    objective = EmotionObjective(pos_weight=WEIGHTS, class_weight=WEIGHTS.flip(0))
    assert (objective.activation(True), objective.activation(False)) == ("sigmoid", "softmax")
    torch.testing.assert_close(objective.prior_shift(True), WEIGHTS.log())
    torch.testing.assert_close(objective.prior_shift(False), WEIGHTS.flip(0).log())
    assert EmotionObjective("kl").activation(True) == "softmax"
    assert EmotionObjective("bce").activation(False) == "sigmoid"
    assert (EmotionObjective().prior_shift(True) == 0).all()
    assert (EmotionObjective(class_prior=WEIGHTS).prior_shift(False) == 0).all()


# --- weights of a training split ---


def test_positive_weights_are_negatives_per_positive_within_the_cap() -> None:
    targets = np.zeros((100, 7))
    for k, positives in enumerate((50, 20, 1, 99, 0, 100, 80)):
        targets[:positives, k] = 1
    with_unlabelled = np.concatenate([targets, np.full((9, 7), np.nan)])
    expected = [1, 4, 10, 0.1, 1, 1, 0.25]
    np.testing.assert_allclose(positive_weights(with_unlabelled), expected, rtol=1e-6)
    np.testing.assert_allclose(positive_weights(targets, cap=3)[[1, 2, 3]], [3, 3, 1 / 3])


def test_balanced_weights_give_each_class_the_same_mass_and_a_mean_of_one() -> None:
    counts = np.array([50, 25, 10, 5, 5, 5, 0])
    targets = np.eye(7)[np.repeat(np.arange(7), counts)]
    weights = balanced_weights(targets).numpy()
    np.testing.assert_allclose((weights * counts)[:6], 100 / 6, rtol=1e-5)
    assert weights[6] == 1  # a class nobody has
    half = balanced_weights(targets, power=0.5).numpy()
    np.testing.assert_allclose(half[1] / half[0], math.sqrt(2), rtol=1e-5)
    assert (half * counts).sum() / 100 == pytest.approx(1)
    np.testing.assert_allclose(balanced_weights(targets, power=0), 1)


def test_class_shares_sum_to_one_and_none_is_zero() -> None:
    targets = np.eye(7)[[0, 0, 0, 1]]
    shares = class_shares(np.concatenate([targets, np.full((2, 7), np.nan)]))
    np.testing.assert_allclose(shares, np.array([3.5, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5]) / 7.5)


def test_a_split_without_labels_has_no_weights() -> None:
    for weights_of in (positive_weights, balanced_weights, class_shares):
        with pytest.raises(DataError, match="no row"):
            weights_of(np.full((3, 7), np.nan))


# --- module ---


def test_weights_move_with_the_module_but_stay_out_of_the_state_dict() -> None:
    objective = EmotionObjective(pos_weight=WEIGHTS)
    assert objective.state_dict() == {}
    assert objective.to("meta").pos_weight.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "bec"}, "did you mean 'bce'"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"logit_adjustment": -1.0}, "negative"),
        ({"logit_adjustment": 1.0}, "needs class_prior"),
        ({"pos_weight": [1.0] * 6}, "pos_weight takes 7 positive numbers"),
        ({"class_weight": [0.0] * 7}, "class_weight takes 7 positive numbers"),
    ],
)
def test_unusable_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmotionObjective(**options)  # type: ignore[arg-type]
