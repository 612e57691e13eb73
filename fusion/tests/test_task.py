"""Losses count where labels are, batches follow from seed and epoch, validation selects."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mepr_fusion.answers import predict
from mepr_fusion.data import resident
from mepr_fusion.layers import drop_modalities
from mepr_fusion.settings import FusionSettings
from mepr_fusion.task import TrainingBatch, balanced_draw
from mepr_fusion.train import build_objective
from mepr_fusion.validation import labelled
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.metrics import single_label_scores, trait_scores


def test_an_epoch_holds_every_labelled_training_sample_once_and_only_those(make_joined, make_task):
    joined = make_joined()
    task = make_task(joined)
    seen = torch.cat([batch.samples.features["text"] for batch in task.batches(1)])
    assert len(list(task.batches(1))) == task.steps_per_epoch
    rows = labelled(joined, "train")
    assert set(joined.splits[rows]) == {"train"}
    known = ~np.isnan(joined.emotion_targets).any(1) | ~np.isnan(joined.trait_targets).all(1)
    assert set(rows) == set(np.flatnonzero(known & (joined.splits == "train")))
    wanted = task.data.features["text"][torch.from_numpy(rows)]
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_batches_follow_from_seed_and_epoch_alone(make_joined, make_task):
    joined = make_joined()

    def order(seed, epoch):
        batches = make_task(joined, fit={"seed": seed}).batches(epoch)
        return torch.cat([batch.samples.features["text"][:, 0] for batch in batches])

    assert torch.equal(order(0, 1), order(0, 1))
    assert not torch.equal(order(0, 1), order(0, 2))
    assert not torch.equal(order(0, 1), order(1, 1))


@pytest.mark.parametrize("share", [0.0, 0.25, 5.0])
def test_an_epoch_with_ssl_adds_samples_without_a_label_in_proportion(
    make_joined, make_task, share
):
    task = make_task(make_joined(120), hidden_labels=0.6, ssl=True, semi={"unlabelled": share})
    plain = make_task(make_joined(120), hidden_labels=0.6)
    epochs = [task.draw(epoch) for epoch in (1, 2)]
    for batches in epochs:
        assert len(batches) == task.steps_per_epoch == plain.steps_per_epoch
        rows = np.concatenate(batches)
        assert len(set(rows)) == len(rows) and set(task.train_rows) <= set(rows)
        others = set(rows) - set(task.train_rows)
        most = int(share * len(task.train_rows))
        assert others <= set(task.unlabelled_rows)
        assert len(others) == min(most, len(task.unlabelled_rows))
        counts = [len(set(batch) & others) for batch in batches]
        assert max(counts) - min(counts) <= 1
    if share == 0.25:
        drawn = [set(np.concatenate(batches)) - set(task.train_rows) for batches in epochs]
        assert drawn[0] != drawn[1]


@pytest.mark.parametrize("options", [{"pseudo": "off"}, {"semi": {"weight": 0.0}}])
def test_without_pseudo_labels_no_sample_is_drawn_in_vain(make_joined, make_task, options):
    task = make_task(make_joined(120), hidden_labels=0.6, ssl=True, **options)
    assert sorted(np.concatenate(task.draw(2))) == sorted(task.train_rows)


def test_each_loss_is_over_the_samples_with_its_label(make_joined, make_task):
    joined = make_joined()
    task = make_task(joined)
    task.model.eval()
    batch = TrainingBatch(task.data[torch.from_numpy(task.train_rows)], None)
    total, terms = task.loss(batch)
    outputs = predict(task.model, task.data, task.train_rows)
    emotion = joined.emotion_targets[task.train_rows]
    known = ~np.isnan(emotion).any(axis=1)
    logits = outputs.emotion_logits[known].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    cross_entropy = -(log_p * emotion[known]).sum(axis=1).mean()
    traits = joined.trait_targets[task.train_rows]
    square = np.nanmean((outputs.trait_scores - traits) ** 2)
    assert terms["loss/emotion"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert terms["loss/traits"].item() == pytest.approx(square, rel=1e-5)
    assert total.item() == pytest.approx(cross_entropy + 2 * square, rel=1e-5)


def test_a_task_without_a_label_in_the_batch_leaves_its_branch_alone(make_joined, make_task):
    joined = make_joined()
    task = make_task(joined)
    rows = task.train_rows[joined.corpus_of[task.train_rows] == 0]
    task.loss(TrainingBatch(task.data[torch.from_numpy(rows)], None))[0].backward()
    model = task.model
    assert all(p.grad is None or (p.grad == 0).all() for p in model.traits.parameters())
    assert any((p.grad != 0).any() for p in model.emotion.parameters())


def test_validation_scores_are_the_metrics_of_decisions_on_the_validation_rows(
    make_joined, make_task
):
    joined = make_joined()
    joined.prior_shift[0, 4] = 20.0
    task = make_task(joined)
    found = task.validate()
    films = labelled(joined, "val")
    films, talks = (films[joined.corpus_of[films] == number] for number in (0, 1))
    logits = predict(task.model, task.data, films).emotion_logits
    decided = logits + joined.prior_shift[0]
    uar = single_label_scores(joined.emotion_targets[films], decided)["uar"]
    assert uar != single_label_scores(joined.emotion_targets[films], logits)["uar"]
    scores = predict(task.model, task.data, talks).trait_scores
    traits = trait_scores(joined.trait_targets[talks], scores)
    assert found["films/uar"] == pytest.approx(uar)
    assert found["talks/ccc"] == pytest.approx(traits["ccc"], abs=1e-6)
    assert found["talks/macc"] == pytest.approx(traits["macc"], abs=1e-6)
    classes = len(np.unique(joined.emotion_targets[films].argmax(axis=1)))
    gain = (uar - 1 / classes) / (1 - 1 / classes)
    assert found["score"] == pytest.approx((gain + traits["ccc"]) / 2, abs=1e-6)


def test_balanced_draw_gives_every_corpus_the_same_share():
    rows, corpus_of = np.arange(110), np.repeat([0, 1], [100, 10])
    drawn = balanced_draw(rows, corpus_of, np.random.default_rng(0))
    assert len(drawn) == 110
    large, small = drawn[drawn < 100], drawn[drawn >= 100]
    assert len(large) == len(small) == 55
    assert len(set(large)) == 55
    counts = np.bincount(small - 100, minlength=10)
    assert counts.min() == 5 and counts.max() == 6


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_refused(make_joined, make_task, split):
    joined = make_joined()
    joined.splits[joined.splits == split] = "test"
    with pytest.raises(DataError, match=f"split '{split}'"):
        make_task(joined)


def test_each_corpus_has_class_weights_whose_optimum_has_its_shift_and_their_mean_is_one(
    make_joined,
):
    joined = make_joined()
    joined.emotion_targets[joined.corpus_of == 1] = (np.arange(7) < 3).astype(np.float32)
    joined.multi_label[joined.corpus_of == 1] = True
    joined.prior_shift[0] = [0.0, 1, 2, 0, 0.5, 0, 3]
    joined.prior_shift[1] = 0.7
    objective = build_objective(FusionSettings(), joined, joined.emotion_targets)
    weights = objective.class_weight.log().numpy()
    np.testing.assert_allclose(weights[0] - weights[0, 0], joined.prior_shift[0], atol=1e-5)
    np.testing.assert_allclose(weights[1], joined.prior_shift[1], atol=1e-5)
    np.testing.assert_array_equal(objective.shift.numpy(), joined.prior_shift)
    rows = joined.select(split="train", corpus="films")
    targets = joined.emotion_targets[rows]
    targets = targets[~np.isnan(targets).any(axis=1)]
    assert (targets @ np.exp(weights[0])).mean() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_best_logits_of_the_objective_are_calibrated(make_joined, multi_label):
    """Whatever the shift, the loss is least at the log-odds or log-probabilities of the data."""
    joined = make_joined(90)
    joined.emotion_targets[joined.corpus_of == 1] = np.nan
    rows = np.flatnonzero((joined.corpus_of == 0) & (joined.splits == "train"))
    share = np.array([8, 1, 3, 2, 2, 2, 2]) / 20
    joined.emotion_targets[rows] = np.eye(7)[np.arange(20) % 7]
    joined.emotion_targets[rows] = np.repeat(np.eye(7), (share * 20).astype(int), axis=0)
    joined.multi_label[:] = multi_label
    joined.prior_shift[0] = [0.0, 1, 2, 0, 0.5, 0, 3]
    objective = build_objective(FusionSettings(), joined, joined.emotion_targets)
    targets = torch.from_numpy(joined.emotion_targets[rows])
    logits = torch.zeros(7, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9)
    corpus = torch.zeros(20, dtype=torch.int64)

    def closure():
        optimiser.zero_grad()
        losses = objective.emotion.row_losses(
            (logits + objective.shift[corpus]).expand(20, 7),
            targets,
            torch.full((20,), multi_label),
            objective.class_weight[corpus],
        )
        losses.sum().backward()
        return losses.sum()

    optimiser.step(closure)
    found = logits.detach().sigmoid() if multi_label else logits.detach().softmax(0)
    np.testing.assert_allclose(found.numpy(), share, atol=2e-3)


def test_labels_set_aside_are_the_same_with_and_without_ssl_and_are_not_trained_on(
    make_joined, make_task
):
    joined = make_joined(240)
    plain = make_task(joined, hidden_labels=0.5)
    semi = make_task(joined, hidden_labels=0.5, ssl=True)
    for name in ("emotion", "traits"):
        torch.testing.assert_close(
            getattr(plain.data, name), getattr(semi.data, name), equal_nan=True
        )
        was = ~np.isnan(getattr(joined, f"{name.removesuffix('s')}_targets")).any(axis=1)
        left = ~getattr(plain.data, name).isnan().any(dim=1).numpy()
        train = joined.splits == "train"
        assert 0.35 < left[was & train].mean() < 0.65 and left[was & ~train].all()
    assert set(plain.train_rows) == set(semi.train_rows) < set(labelled(joined, "train"))
    rest = set(joined.select(split="train")) - set(plain.train_rows)
    assert set(semi.unlabelled_rows) == rest and not len(plain.unlabelled_rows)
    with pytest.raises(ConfigError, match=r"hidden_labels = 1.0 is not in \[0, 1\)"):
        make_task(joined, hidden_labels=1.0)


def test_the_step_is_the_model_on_raw_features_with_a_view_of_the_modalities(
    make_joined, make_task
):
    joined = make_joined()
    raw = resident(copy.deepcopy(joined), "cpu")
    task = make_task(joined)
    wanted = predict(task.model, raw, task.train_rows)
    found = predict(task.model, task.data, task.train_rows)
    np.testing.assert_allclose(found.emotion_logits, wanted.emotion_logits, atol=1e-6)
    np.testing.assert_allclose(found.trait_scores, wanted.trait_scores, atol=1e-6)
    task.fusion.modality_dropout = 0.5
    batch = TrainingBatch(task.data[torch.from_numpy(task.train_rows)], None)
    task.model.eval()
    torch.manual_seed(5)
    total, _ = task.loss(batch)
    torch.manual_seed(5)
    present = drop_modalities(batch.samples.present, 0.5)
    features, emotion, traits, _ = raw[torch.from_numpy(task.train_rows)].inputs
    output = task.model(features, emotion, traits, present)
    terms = task.objective.terms(output, batch.samples, None)
    expected = terms["emotion"].loss + 2 * terms["traits"].loss
    torch.testing.assert_close(total, expected)
