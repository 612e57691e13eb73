"""Constants of a training split, and taking rows of labels and predictions together."""

from __future__ import annotations

import numpy as np

from mepr_shared.labels import EmotionScale
from mepr_shared.scoring import (
    Constants,
    Labels,
    Predictions,
    constant_predictions,
    constants_of,
    take,
)


def test_constants_are_those_of_the_labelled_rows() -> None:
    emotion = np.array([[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [np.nan] * 7])
    traits = np.array([[0.1, 0.2, np.nan, 0.4, np.nan], [0.3, np.nan, np.nan, 0.4, 0.9]] * 2)
    traits[3, 0] = 0.9
    constants = constants_of(emotion, traits)
    assert constants.emotion is not None
    assert constants.emotion.tolist() == [0.5, 0.5, 0, 0, 0, 0, 0]
    assert constants.trait_mean is not None and constants.trait_median is not None
    # extraversion was labelled by nobody: the middle of the scale
    np.testing.assert_allclose(constants.trait_mean, [0.35, 0.2, 0.5, 0.4, 0.9])
    np.testing.assert_allclose(constants.trait_median, [0.2, 0.2, 0.5, 0.4, 0.9])


def test_a_split_without_labels_has_no_constants() -> None:
    assert constants_of(None, None) == Constants()
    assert constants_of(np.full((3, 7), np.nan), np.full((3, 5), np.nan)) == Constants()


def test_a_constant_says_the_same_of_every_sample() -> None:
    labels = Labels(["a"] * 4, scale=EmotionScale("multi_label"))
    constant = constant_predictions(Constants(np.arange(7) / 7, np.full(5, 0.4)), labels)
    assert constant.emotion is not None and constant.traits is not None
    assert constant.emotion.shape == (4, 7) and (constant.emotion == np.arange(7) / 7).all()
    assert constant.traits.shape == (4, 5) and (constant.traits == 0.4).all()
    assert constant.output == "sigmoid"


def test_rows_are_taken_of_everything_that_is_there() -> None:
    labels = Labels(["a", "b", "c"], traits=np.arange(15).reshape(3, 5))
    some, said = take(labels, Predictions(traits=-np.arange(15).reshape(3, 5)), np.array([2, 0]))
    assert some.source_ids == ["c", "a"]
    assert some.traits is not None and said.traits is not None
    assert some.traits[:, 0].tolist() == [10, 0] and said.traits[:, 0].tolist() == [-10, 0]
    assert some.emotion is None and said.emotion is None
