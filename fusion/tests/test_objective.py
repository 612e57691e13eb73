"""The terms of a stage-3 batch, their gradients, and their norms on the shared weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mepr_fusion.layers import drop_modalities
from mepr_fusion.model import FusionOutput
from mepr_fusion.objective import PseudoLabels
from mepr_fusion.task import TrainingBatch
from mepr_shared.objectives.emotion import EmotionObjective

TERMS = ("emotion", "traits", "emotion_semi", "traits_semi")


def make_pseudo(samples, seed: int = 0) -> PseudoLabels:
    """Labels for some of the samples without one, in part unsure."""
    generator = torch.Generator().manual_seed(seed)
    emotion = torch.eye(7)[torch.randint(7, (len(samples),), generator=generator)]
    traits = torch.rand(len(samples), 5, generator=generator)
    emotion[::5], traits[::6], traits[1::4, 2] = torch.nan, torch.nan, torch.nan
    free, without = samples.emotion.isnan().any(1), samples.traits.isnan().all(1)
    emotion = torch.where(free[:, None], emotion, torch.nan)
    return PseudoLabels(emotion, torch.where(without[:, None], traits, torch.nan), {})


def make_output(samples, **changes: Tensor) -> FusionOutput:
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(len(samples), 7, generator=generator)
    odds = torch.randn(len(samples), 5, generator=generator)
    given = {"emotion_logits": logits, "trait_logits": odds, "trait_scores": odds.sigmoid()}
    return FusionOutput(**(given | changes), emotion_representation=logits,
                        trait_representation=odds, attention={})  # fmt: skip


def all_rows(task):
    return task.data[torch.from_numpy(task.joined.select(split="train"))]


def test_labelled_and_pseudo_labelled_rows_are_disjoint_and_each_term_is_over_its_own(
    make_joined, make_task
):
    joined = make_joined(90)
    joined.prior_shift[:] = np.linspace(-1, 1, 7)
    task = make_task(joined, ssl=True, hidden_labels=0.3)
    samples = all_rows(task)
    pseudo, output = make_pseudo(samples), make_output(samples)
    terms = task.objective.terms(output, samples, pseudo)
    assert set(terms) == set(TERMS)
    assert set(task.objective.terms(output, samples, None)) == {"emotion", "traits"}
    for name in ("emotion", "traits"):
        assert not (terms[name].rows & terms[f"{name}_semi"].rows).any()
        assert terms[name].rows.any() and terms[f"{name}_semi"].rows.any()
    shift, weight = (t[samples.corpus] for t in (task.objective.shift, task.objective.class_weight))
    logits = (output.emotion_logits + shift).double().log_softmax(1)
    for name, labels in (("emotion", samples.emotion), ("emotion_semi", pseudo.emotion)):
        rows = terms[name].rows
        each = -(weight * labels.nan_to_num() * logits).sum(1)[rows]
        # A pseudo-label counts among all that have no label: few sure ones weigh little.
        free = samples.emotion.isnan().any(1).sum().item()
        count = free if name == "emotion_semi" else rows.sum().item()
        assert terms[name].loss.item() == pytest.approx(each.sum().item() / count, rel=1e-5)
    for name, labels in (("traits", samples.traits), ("traits_semi", pseudo.traits)):
        error = (output.trait_scores - labels)[terms[name].rows].square()
        assert terms[name].loss.item() == pytest.approx(error.nanmean().item(), rel=1e-5)


def test_what_is_answered_to_rows_of_neither_kind_does_not_matter(make_joined, make_task):
    task = make_task(make_joined(90), ssl=True, hidden_labels=0.3)
    samples = all_rows(task)
    pseudo = make_pseudo(samples)
    plain = make_output(samples)
    logits, odds = (plain.emotion_logits.clone(), plain.trait_logits.clone())
    logits.requires_grad_(), odds.requires_grad_()
    output = make_output(samples, emotion_logits=logits, trait_scores=odds.sigmoid())
    terms = task.objective.terms(output, samples, pseudo)
    sum(term.loss for term in terms.values()).backward()
    neither = ~(terms["emotion"].rows | terms["emotion_semi"].rows)
    assert neither.any() and (logits.grad[neither] == 0).all()
    neither = ~(terms["traits"].rows | terms["traits_semi"].rows)
    assert neither.any() and (odds.grad[neither] == 0).all()
    unsure = terms["traits_semi"].rows[:, None] & pseudo.traits.isnan()
    assert unsure.any() and (odds.grad[unsure] == 0).all()


@pytest.mark.parametrize("graph", [True, False])
def test_norms_of_one_backward_are_those_of_four_autograd_grad_calls(make_joined, make_task, graph):
    task = make_task(
        make_joined(90), weighting="gradnorm", ssl=True, hidden_labels=0.3,
        gradnorm={"first_steps": 1}, model={"dropout": 0.3, "modality_dropout": 0.3},
        components={"graph_attention": graph},
    )  # fmt: skip
    for wallet in task.joint.wallets:
        wallet.weights.copy_(wallet.budget * torch.tensor([0.85, 0.15]))
    with torch.no_grad():  # heads start near zero
        for branch in (task.fusion.emotion, task.fusion.traits):
            branch.head.weight.normal_(std=0.5)
    samples = all_rows(task)
    batch = TrainingBatch(samples, make_pseudo(samples))
    task.model.train()
    torch.manual_seed(3)
    total, log = task.loss(batch)
    total.backward()
    combined = task.fusion.shared_weight().grad.clone()
    found = task.joint.after_backward()
    torch.manual_seed(3)
    present = drop_modalities(samples.present, 0.3)
    trunk = task.fusion.trunk(samples.features, present)
    rest = (samples.emotion_predictions, samples.trait_predictions, present)
    output = task.fusion.branches(trunk, trunk.shared, trunk.shared, *rest)
    terms = task.objective.terms(output, samples, batch.pseudo)
    weighted = torch.zeros_like(combined)
    for name, weight in zip(TERMS, (1.7, 0.3, 0.68, 0.12), strict=True):
        weights = task.fusion.shared_weight()
        (gradient,) = torch.autograd.grad(terms[name].loss, weights, retain_graph=True)
        assert gradient.any()
        norm = found[f"gradient_norm/{name}"].item()
        assert norm == pytest.approx(gradient.norm().item(), rel=1e-5)
        assert log[f"weight/{name}"].item() == pytest.approx(weight)
        weighted += weight * gradient
    torch.testing.assert_close(combined, weighted, rtol=1e-4, atol=1e-7)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()  # the graph is gone: nothing went through it twice


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "mixed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_row_losses_are_those_of_finite_differences(kind, weighted):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 7, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.eye(7, dtype=torch.float64)[torch.randperm(7, generator=generator)[:6]]
    multi = {"sigmoid": [True] * 6, "softmax": [False] * 6, "mixed": [True, False] * 3}[kind]
    multi_label = torch.tensor(multi)
    targets[0, 2] = targets[2, :] = targets[3, 1] = math.nan
    weights = 0.5 + torch.rand(6, 7, dtype=torch.float64, generator=generator)
    objective = EmotionObjective(
        pos_weight=[1, 2, 3, 1, 0.5, 1, 1],
        class_weight=[1, 0.3, 2, 1, 1, 4, 1],
        label_smoothing=0.1,
    )

    def losses(logits):
        return objective.row_losses(logits, targets, multi_label, weights if weighted else None)

    assert torch.autograd.gradcheck(losses, (logits,))
    # Beside an unknown target nothing counts, not even NaN.
    unknown = targets.isnan() | (~multi_label[:, None] & targets.isnan().any(1, keepdim=True))
    poisoned = torch.where(unknown, torch.nan, logits.detach()).requires_grad_()
    found = losses(poisoned)
    torch.testing.assert_close(found, losses(logits))
    found.sum().backward()
    assert (poisoned.grad[unknown] == 0).all() and torch.isfinite(poisoned.grad).all()
    assert (poisoned.grad[~unknown] != 0).any() and found[2] == 0
