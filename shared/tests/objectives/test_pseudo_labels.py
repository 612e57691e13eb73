"""Labels from a teacher's answers: only where it is sure, and on the scale of real labels."""

from __future__ import annotations

import torch

from mepr_shared.objectives.emotion import EmotionObjective, calibrated_logits
from mepr_shared.objectives.pseudo_labels import (
    TraitScale,
    emotion_pseudo_labels,
    positive_share,
    published_trait_labels,
    spread_over_modalities,
)

NAN = torch.nan


def same(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)


def test_multi_label_classes_are_labelled_one_by_one_beyond_both_thresholds():
    probability = torch.tensor([[0.61, 0.59, 0.5, 0.11, 0.09, 0.99, 0.01]])
    found = emotion_pseudo_labels(torch.logit(probability), torch.tensor([True]))
    same(found, [[1.0, NAN, NAN, NAN, 0.0, 1.0, 0.0]])
    found = emotion_pseudo_labels(
        torch.logit(probability), torch.tensor([True]), positive=0.55, negative=0.2
    )
    same(found, [[1.0, 1.0, NAN, 0.0, 0.0, 1.0, 0.0]])


def test_single_label_rows_are_one_hot_or_nothing():
    sure = torch.tensor([0.05, 0.61, 0.1, 0.1, 0.1, 0.02, 0.02])
    unsure = torch.tensor([0.05, 0.59, 0.12, 0.1, 0.1, 0.02, 0.02])
    found = emotion_pseudo_labels(torch.stack([sure, unsure]).log(), torch.tensor([False, False]))
    same(found, [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [NAN] * 7])


def test_a_teacher_without_an_answer_gives_no_label():
    nothing = torch.full((2, 7), NAN)
    found = emotion_pseudo_labels(nothing, torch.tensor([True, False]))
    assert found.isnan().all() and published_trait_labels(nothing[:, :5]).isnan().all()


def test_the_shift_of_weighted_training_makes_no_labels():
    """A model trained with class weights w answers z + log w: the same labels as without them."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 7, generator=generator)
    multi_label = torch.arange(200) % 2 == 0
    weights = [0.2, 1.0, 8.0, 5.0, 0.5, 1.0, 3.0]
    weighted = EmotionObjective(pos_weight=weights, class_weight=weights)
    kinds = (weighted.prior_shift(True), weighted.prior_shift(False))
    shift = torch.where(multi_label[:, None], *kinds)
    expected = emotion_pseudo_labels(logits, multi_label)
    found = emotion_pseudo_labels(calibrated_logits(logits + shift, shift), multi_label)
    torch.testing.assert_close(found, expected, equal_nan=True)
    raw = emotion_pseudo_labels(logits + shift, multi_label)
    assert not torch.equal(raw.nan_to_num(2), expected.nan_to_num(2))


def test_trait_labels_have_the_mean_and_the_spread_of_real_ones():
    generator = torch.Generator().manual_seed(0)
    scores = 0.5 + 0.03 * torch.randn(500, 5, generator=generator)  # shrunken, as answers are
    mean, std = torch.full((5,), 0.45), torch.tensor([0.05, 0.08, 0.1, 0.12, 0.06])
    scale = TraitScale(torch.full((5,), torch.inf), scores.mean(0), scores.std(0), mean, std)
    labels = scale.labels(scores, torch.zeros_like(scores))
    torch.testing.assert_close(labels.mean(0), mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(labels.std(0), std, rtol=0.02, atol=0)
    order = scores[:, 0].argsort()
    assert (labels[order, 0].diff() >= 0).all() and (labels >= 0).all() and (labels <= 1).all()


def test_trait_scores_with_more_spread_than_the_limit_give_no_label_trait_by_trait():
    ones = torch.ones(5)
    limit = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    scale = TraitScale(limit, 0.5 * ones, 0.1 * ones, 0.5 * ones, 0.1 * ones)
    scores = torch.full((1, 5), 0.5)
    found = scale.labels(scores, torch.full((1, 5), 0.3))
    assert found.isnan().tolist() == [[True, True, False, False, False]]


def test_a_teacher_that_always_says_the_same_gives_the_mean_label():
    ones = torch.ones(5)
    scale = TraitScale(ones, 0.5 * ones, 0 * ones, 0.4 * ones, 0.1 * ones)
    found = scale.labels(torch.full((2, 5), 0.5), torch.zeros(2, 5))
    torch.testing.assert_close(found, torch.full((2, 5), 0.4))


def test_the_published_rule_pushes_scores_to_the_ends():
    found = published_trait_labels(torch.tensor([[0.61, 0.6, 0.5, 0.4, 0.39]]))
    same(found, [[1.0, NAN, NAN, NAN, 0.0]])


def test_spread_is_over_the_modalities_that_are_there_and_give_a_score():
    scores = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    scores[1, 2] = NAN
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    spread, several = spread_over_modalities(scores, present)
    torch.testing.assert_close(spread[0], scores[0].std(dim=0, correction=0))
    torch.testing.assert_close(spread[1], scores[1, :2].std(dim=0, correction=0))
    torch.testing.assert_close(spread[2], scores[2, ::2].std(dim=0, correction=0))
    assert (spread[3] == 0).all() and several.tolist() == [True, True, True, False]
    assert spread_over_modalities(scores[:, :0], present[:, :0])[0].shape == (4, 5)


def test_rounding_is_no_spread():
    none, one = torch.zeros(5), torch.ones(5)
    scale = TraitScale(none, none, one, none, one)
    scores = torch.full((2, 5), 0.5)
    found = scale.labels(scores, torch.tensor([[1e-8] * 5, [1e-3] * 5]))
    same(found, [[0.5] * 5, [NAN] * 5])


def test_the_positive_share_is_over_labels_that_are_given():
    labels = torch.tensor([[1.0, 0.0, NAN], [0.0, NAN, NAN], [1.0, 0.0, NAN]])
    torch.testing.assert_close(
        positive_share(labels), torch.tensor([2 / 3, 0.0, NAN]), equal_nan=True
    )
