"""Who is given a pseudo-label, by whom, and what a label that was set aside can never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mepr_shared.labels import EMOTIONS
from mepr_shared.objectives.pseudo_labels import emotion_pseudo_labels, published_trait_labels

SEMI = {"ssl": True, "hidden_labels": 0.5}
EASY = {"positive": 0.25, "negative": 0.05, "warmup": 1}


def taught(make_joined, make_task, count=120, **options):
    joined = make_joined(count)
    task = make_task(joined, **{**SEMI, "semi": EASY, **options})
    with torch.no_grad():
        for parameter in task.joint.teacher.averaged:
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return task


def train_rows(task) -> torch.Tensor:
    return torch.from_numpy(task.joined.select(split="train"))


def test_only_samples_without_the_label_are_given_one(make_joined, make_task):
    task = taught(make_joined, make_task)
    rows = train_rows(task)
    torch.manual_seed(0)
    task.teaching.begin_epoch()
    found, data = task.teaching.labels(rows), task.data[rows]
    has_emotion, has_traits = ~data.emotion.isnan().any(1), ~data.traits.isnan().all(1)
    assert found.emotion[has_emotion].isnan().all() and found.traits[has_traits].isnan().all()
    assert not found.emotion[~has_emotion].isnan().all()
    assert not found.traits[~has_traits].isnan().all()
    labels = found.emotion[~found.emotion.isnan()]
    assert set(labels.unique().tolist()) <= {0.0, 1.0}
    scores = found.traits[~found.traits.isnan()]
    assert (scores >= 0).all() and (scores <= 1).all()


def test_the_teacher_sees_every_modality_and_the_student_a_part(make_joined, make_task):
    task = taught(make_joined, make_task, model={"modality_dropout": 0.9})
    views: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}
    for name, model in (("student", task.fusion), ("teacher", task.teaching.model)):
        trunk = model.trunk

        def watched(features, present, name=name, trunk=trunk):
            views[name].append(present)
            return trunk(features, present)

        model.trunk = watched
    task.model.train()
    torch.manual_seed(0)
    rows = task.draw(2)
    for batch, index in zip(task.batches(2), rows, strict=True):
        task.loss(batch)
        full = task.data.present[torch.from_numpy(index)]
        assert torch.equal(batch.samples.present, full)
        assert views["student"][-1].sum() <= full.sum()
    assert (
        sum(v.sum() for v in views["student"])
        < 0.9 * task.data.present[torch.from_numpy(np.concatenate(rows))].sum()
    )
    # The last question to the teacher: every modality of the rows it labels.
    chunk = torch.from_numpy(np.concatenate(rows))
    asked = [view for view in views["teacher"] if len(view) == len(chunk)]
    assert any(torch.equal(view, task.data.present[chunk]) for view in asked)
    assert not task.teaching.model.training


def test_confidence_is_measured_on_calibrated_logits_whatever_the_shift(make_joined, make_task):
    plain = taught(make_joined, make_task)
    joined = make_joined(120)
    joined.prior_shift[:] = [3.0, -2, 0, 1, 4, 0, 0]
    shifted = make_task(joined, **SEMI, semi=EASY)
    state = plain.joint.teacher.model.state_dict()
    shifted.joint.teacher.model.load_state_dict(state)
    rows = train_rows(plain)
    first, second = plain.teaching.labels(rows), shifted.teaching.labels(rows)
    torch.testing.assert_close(first.emotion, second.emotion, equal_nan=True)


def test_emotion_labels_are_by_the_thresholds(make_joined, make_task):
    task = taught(make_joined, make_task)
    rows = train_rows(task)
    with torch.no_grad():
        logits, _ = task.teaching._answer(task.data[rows])
    found = task.teaching.labels(rows).emotion
    data = task.data[rows]
    expected = emotion_pseudo_labels(logits, data.multi_label, positive=0.25, negative=0.05)
    free = data.emotion.isnan().any(1)
    torch.testing.assert_close(found[free], expected[free], equal_nan=True)


def test_trait_labels_are_rescaled_scores_of_samples_whose_modalities_agree(make_joined, make_task):
    task = taught(make_joined, make_task, count=300)
    torch.manual_seed(0)
    task.teaching.begin_epoch()
    labelled = task.teaching.trait_rows
    truth = task.data.traits[labelled]
    with torch.no_grad():
        _, scores = task.teaching._answer(task.data[labelled])
    for scale in task.teaching.scales:
        stretched = (scores - scale.teacher_mean) / scale.teacher_std * scale.label_std
        again = stretched + scale.label_mean
        torch.testing.assert_close(again.mean(0), truth.mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again.std(0), truth.std(0), rtol=1e-4, atol=0)
    rows = train_rows(task)
    found, data = task.teaching.labels(rows).traits, task.data[rows]
    several = data.present.sum(1) == 2
    spread = data.trait_predictions.std(1, correction=0)
    val = torch.from_numpy(task.joined.select(split="val"))
    both = task.data.present[val].all(1)
    median = task.data.trait_predictions[val][both].std(1, correction=0).median(0).values
    free = several & data.traits.isnan().all(1)
    torch.testing.assert_close(~found[free].isnan(), spread[free] <= median)
    # With one modality: over passes with dropout, whose spread is zero in a model without any.
    single = ~several & data.traits.isnan().all(1)
    assert single.any() and not found[single].isnan().any()


def test_one_modality_alone_is_judged_by_passes_with_dropout(make_joined, make_task):
    joined = make_joined(120)
    joined.present[:, 0] = False
    task = make_task(joined, **SEMI, semi=EASY, model={"dropout": 0.5})
    torch.manual_seed(0)
    task.teaching.begin_epoch()
    rows = train_rows(task)
    found, data = task.teaching.labels(rows).traits, task.data[rows]
    free = data.traits.isnan().all(1)
    share = (~found[free].isnan()).float().mean().item()
    assert 0.2 < share < 0.8  # about half lie under the median
    assert not task.teaching.model.training


def test_the_published_rule(make_joined, make_task):
    task = taught(make_joined, make_task, pseudo="published")
    task.teaching.begin_epoch()
    rows = train_rows(task)
    with torch.no_grad():
        _, scores = task.teaching._answer(task.data[rows])
    found = task.teaching.labels(rows).traits
    free = task.data[rows].traits.isnan().all(1)
    torch.testing.assert_close(found[free], published_trait_labels(scores)[free], equal_nan=True)


def test_before_the_warm_up_is_over_there_is_no_pseudo_label(make_joined, make_task):
    task = taught(make_joined, make_task, semi={**EASY, "warmup": 2})
    for epoch, expected in ((1, False), (2, False), (3, True)):
        for batch in task.batches(epoch):
            _, log = task.loss(batch)
            assert (batch.pseudo is not None) == expected
            semi = log["loss/emotion_semi"]
            assert expected or semi.isnan()
            assert any(name.startswith("pseudo/") for name in log) == expected


@pytest.mark.parametrize("refresh", [1, 3, 16])
def test_every_batch_has_the_labels_of_its_own_rows(make_joined, make_task, refresh):
    task = taught(make_joined, make_task, semi={**EASY, "refresh": refresh, "dropout_passes": 1})
    for rows, batch in zip(task.draw(2), task.batches(2), strict=True):
        wanted = task.teaching.labels(torch.from_numpy(rows))
        torch.testing.assert_close(batch.pseudo.emotion, wanted.emotion, equal_nan=True)
        index = torch.from_numpy(rows)
        torch.testing.assert_close(batch.samples.emotion, task.data.emotion[index], equal_nan=True)


def test_a_hidden_label_reaches_the_log_and_nothing_else(make_joined, make_task):
    def losses(change: bool) -> tuple[list[float], list[float]]:
        joined = make_joined(120)
        task = make_task(joined, **SEMI, semi=EASY)
        if change:
            for name in ("emotion", "traits"):
                labels = getattr(task.teaching, f"hidden_{name}")
                labels.copy_(1 - labels)
                # Nor does the table behind the data carry them to the losses.
                column = getattr(joined, f"{name.removesuffix('s')}_targets")
                gone = getattr(task.data, name).isnan().any(1).numpy()
                column[gone] = 0.5
        torch.manual_seed(0)
        seen, logged = [], []
        for batch in task.batches(2):
            total, log = task.loss(batch)
            seen.append(total.item())
            logged.append(log["pseudo/emotion_agreement"].item())
        return seen, logged

    first, second = losses(False), losses(True)
    assert first[0] == second[0]
    assert not np.array_equal(first[1], second[1], equal_nan=True)


def test_rates_and_agreement_are_what_they_say(make_joined, make_task):
    task = taught(make_joined, make_task)
    torch.manual_seed(0)
    task.teaching.begin_epoch()
    rows = train_rows(task)
    found, data = task.teaching.labels(rows), task.data[rows]
    free = data.emotion.isnan().any(1)
    given = ~found.emotion.isnan()
    rate = given.sum() / (7 * free.sum())
    assert found.log["pseudo/emotion_rate"].item() == pytest.approx(rate.item())
    truth = torch.from_numpy(task.joined.emotion_targets)[rows]
    known = given & ~truth.isnan()
    agreement = (found.emotion == truth)[known].float().mean()
    assert found.log["pseudo/emotion_agreement"].item() == pytest.approx(agreement.item())
    traits = torch.from_numpy(task.joined.trait_targets)[rows]
    error = (found.traits - traits).abs().nanmean()
    assert found.log["pseudo/trait_error"].item() == pytest.approx(error.item())


def test_the_share_of_each_emotion_is_logged_beside_that_among_labels(make_joined, make_task):
    task = taught(make_joined, make_task)
    rows = train_rows(task)
    found, visible = task.teaching.labels(rows), task.data.emotion[rows]
    every = torch.from_numpy(task.joined.emotion_targets)[rows]
    for number, name in enumerate(EMOTIONS):
        given = found.emotion[:, number]
        given = given[~given.isnan()]
        share = given.mean().item()
        positive = found.log[f"pseudo/positive_{name}"].item()
        assert positive == pytest.approx(share, nan_ok=True)
        # Among the labels that training sees: hidden ones do not count.
        labelled = found.log[f"pseudo/labelled_{name}"].item()
        assert labelled == pytest.approx(visible[:, number].nanmean().item())
    assert not torch.allclose(visible.nanmean(0), every.nanmean(0))


def test_one_labelled_sample_gives_no_label_without_a_value(make_joined, make_task):
    joined = make_joined(120)
    rows = joined.select(split="train")
    known = rows[~np.isnan(joined.trait_targets[rows]).any(axis=1)]
    joined.trait_targets[known[1:]] = np.nan
    task = make_task(joined, ssl=True, semi=EASY)
    task.teaching.begin_epoch()
    for scale in task.teaching.scales:
        assert all(torch.isfinite(value).all() for value in vars(scale).values())
