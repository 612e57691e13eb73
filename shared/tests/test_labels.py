"""The label spaces: their order, other sources' names, and targets of each kind."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_shared.errors import DataError
from mepr_shared.labels import (
    EMOTION_ALIASES,
    EMOTION_KINDS,
    EMOTIONS,
    TRAITS,
    EmotionScale,
    emotion_name,
    emotion_targets,
    reorder,
)

# as CMU-MOSEI gives them: intensities in [0, 3], the last row unlabelled
INTENSITIES = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1 / 3, 0.0, 2.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0],
        [np.nan] * 7,
    ],
    dtype=np.float32,
)


def test_the_order_is_that_of_every_file_written_so_far() -> None:
    assert ",".join(EMOTIONS) == "neutral,anger,disgust,fear,happiness,sadness,surprise"
    assert ",".join(TRAITS) == (
        "openness,conscientiousness,extraversion,agreeableness,emotional_stability"
    )
    assert EMOTION_KINDS == ("intensity", "multi_label", "single_label", "distribution")


def test_names_of_other_sources_are_understood() -> None:
    assert [emotion_name(name) for name in EMOTIONS] == list(EMOTIONS)
    assert emotion_name(" Joy ") == "happiness"  # MELD
    assert emotion_name("calm") == "neutral"  # RAVDESS
    assert [emotion_name(name) for name in ("happy", "sad", "surprised")] == [
        "happiness",
        "sadness",
        "surprise",
    ]
    assert set(EMOTION_ALIASES.values()) <= set(EMOTIONS)
    with pytest.raises(DataError, match="unknown emotion 'hapiness'.*did you mean 'happiness'"):
        emotion_name("hapiness")


def test_columns_are_put_in_order_by_name() -> None:
    sdk = ("sentiment", "happiness", "sadness", "anger", "surprise", "disgust", "fear")
    values = np.arange(14).reshape(2, 7)
    assert reorder(values, sdk, EMOTIONS[1:]).tolist() == [
        [3, 5, 6, 1, 2, 4],
        [10, 12, 13, 8, 9, 11],
    ]
    with pytest.raises(DataError, match="missing: neutral$"):
        reorder(values, sdk, EMOTIONS)


# --- targets ---


def test_an_emotion_is_present_above_the_bound_and_neutral_where_no_other_is() -> None:
    found = emotion_targets(INTENSITIES, EmotionScale("intensity", 3))
    assert found.dtype == np.float32
    # the third row calls itself neutral as well; its surprise says otherwise
    assert found[:3].tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [0] * 6 + [1]]
    assert np.isnan(found[3]).all()


def test_a_third_is_not_above_a_third() -> None:
    """One third is larger in float32 than in float64, and MOSEI's values are thirds."""
    strong = emotion_targets(INTENSITIES, EmotionScale("intensity", 3, present_above=1 / 3))
    assert strong[1].tolist() == [0, 0, 0, 0, 1, 0, 0]
    only_weak = np.array([[0, 0, 1 / 3, 0, 0, 0, 0]])
    strong = emotion_targets(only_weak, EmotionScale("intensity", 3, present_above=1 / 3))
    assert strong[0].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_presence_labels_are_kept_and_neutral_follows_from_them() -> None:
    values = np.array([[0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    found = emotion_targets(values, EmotionScale("multi_label"))
    assert found.tolist() == [[0, 1, 0, 0, 1, 0, 0], [1] + [0] * 6, [1] + [0] * 6]


def test_a_single_label_is_one_hot() -> None:
    values = np.array([[0, 0, 0, 1, 0, 0, 0], [np.nan] * 7, [1, 0, 0, 0, 0, 0, 0]])
    found = emotion_targets(values, EmotionScale("single_label"))
    assert found[[0, 2]].tolist() == [[0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert np.isnan(found[1]).all()


def test_a_distribution_sums_to_one() -> None:
    votes = np.array([[2, 0, 0, 0, 6, 0, 0], [np.nan] * 7])
    found = emotion_targets(votes, EmotionScale("distribution", maximum=8))
    assert found[0].tolist() == [0.25, 0, 0, 0, 0.75, 0, 0]
    assert np.isnan(found[1]).all()


def test_a_row_with_any_value_missing_is_unlabelled() -> None:
    values = np.zeros((1, 7))
    values[0, 6] = np.nan
    for kind in EMOTION_KINDS:
        assert np.isnan(emotion_targets(values, EmotionScale(kind))).all()  # type: ignore[arg-type]


def test_the_kind_decides_between_sigmoid_and_softmax() -> None:
    multi = {kind for kind in EMOTION_KINDS if EmotionScale(kind).is_multi_label}  # type: ignore[arg-type]
    assert multi == {"intensity", "multi_label"}
    with pytest.raises(DataError, match="did you mean 'multi_label'"):
        EmotionScale("multilabel")  # type: ignore[arg-type]
