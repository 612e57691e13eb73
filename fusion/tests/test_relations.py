"""Emotion-trait relations: right numbers, planted ones found, none found where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mepr_fusion.analyze.rectified import possible_range, rectified_relations
from mepr_fusion.analyze.relations import (
    correlation_influence,
    correlations_from,
    disagreements,
    holm,
    ordering,
    pair_moments,
    relations,
    robust_p_values,
)
from mepr_shared.corpora.demo import make_demo_features
from mepr_shared.corpora.index import Corpus
from mepr_shared.labels import EMOTIONS


def numbered(count: int, size: int = 4) -> list[str]:
    """Sources of `size` samples each."""
    return [f"source-{row // size}" for row in range(count)]


def random_labels(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (random.random((count, 7)) < 0.3).astype(float), random.random((count, 5))


def test_every_cell_is_the_correlation_of_the_samples_that_have_both():
    emotion, traits = random_labels(200, 0)
    emotion[:50], traits[30:90] = np.nan, np.nan
    traits[100:120, 2] = np.nan
    emotion[140:160, 4] = np.nan
    found = relations(emotion, traits, numbered(200))
    for e, t in np.ndindex(7, 5):
        known = ~np.isnan(emotion[:, e]) & ~np.isnan(traits[:, t])
        wanted = np.corrcoef(emotion[known, e], traits[known, t])[0, 1]
        assert found.correlation[e, t] == pytest.approx(wanted, abs=1e-12)
        assert found.n[e, t] == known.sum()
    np.testing.assert_allclose(found.mean, found.correlation.mean(axis=1))
    inside = (found.interval[..., 0] < found.correlation) & (
        found.correlation < found.interval[..., 1]
    )
    assert inside.all()


def test_two_corpora_with_different_means_make_no_relation():
    emotion, traits = random_labels(400, 1)
    emotion[200:] = (np.random.default_rng(2).random((200, 7)) < 0.9).astype(float)
    traits[200:] += 3
    corpus_of = np.repeat([0, 1], 200)
    assert relations(emotion, traits, numbered(400)).significant.all()
    assert not relations(emotion, traits, numbered(400), corpus_of).significant.any()


def test_an_emotion_that_never_varies_has_no_relation_and_does_not_count():
    emotion, traits = random_labels(200, 3)
    emotion[:, 3] = 0
    found = relations(emotion, traits, numbered(200))
    assert np.isnan(found.correlation[3]).all() and np.isnan(found.p_value[3]).all()
    assert not found.significant[3].any()
    assert "fear" not in {entry["emotion"] for entry in ordering(found)}


def test_few_sources_have_numbers_but_no_interval_and_no_claim():
    emotion, traits = random_labels(60, 4)
    traits += emotion[:, :5]
    found = relations(emotion, traits, numbered(60, 6))
    assert found.interval is None and found.p_value is None and not found.significant.any()
    assert found.correlation[0, 0] > 0.5 and found.sources == 10


def test_holm_is_the_step_down_rule():
    p = np.array([[0.01, 0.04], [np.nan, 0.03]])
    np.testing.assert_allclose(holm(p), [[0.03, 0.06], [np.nan, 0.06]])


def test_influence_is_what_leaving_a_sample_out_changes():
    emotion, traits = random_labels(300, 5)
    moments = pair_moments(emotion, traits, np.zeros(300))
    influence = correlation_influence(moments)
    np.testing.assert_allclose(influence.sum(axis=0), 0, atol=1e-12)
    total = moments.sum(axis=0)
    for row in (0, 7, 100):
        without = correlations_from(total - moments[row])["correlation"]
        change = correlations_from(total)["correlation"] - without
        np.testing.assert_allclose(influence[row], change, atol=3e-4)


def test_p_values_of_independent_samples_are_the_usual_ones_and_repeats_add_nothing():
    random = np.random.default_rng(6)
    e, t = random.standard_normal((2, 2000, 1))
    t = t + 0.05 * e
    values = np.tile(e, (1, 7)), np.tile(t, (1, 5))
    influence = correlation_influence(pair_moments(*values, np.zeros(2000)))
    r = np.corrcoef(e[:, 0], t[:, 0])[0, 1]
    usual = stats.pearsonr(e[:, 0], t[:, 0]).pvalue
    found = robust_p_values(np.full((7, 5), r), influence)
    assert found[0, 0] == pytest.approx(usual, rel=0.3)
    # The same person filmed ten times is still one person.
    often = np.repeat(values[0], 10, axis=0), np.repeat(values[1], 10, axis=0)
    repeated = relations(*often, numbered(20_000, 10))
    assert repeated.p_value[0, 0] == pytest.approx(min(1.0, 35 * found[0, 0]), rel=1e-6)


@pytest.mark.parametrize("planted", [True, False])
def test_planted_relations_are_found_in_sign_and_order_and_none_without(tmp_path, planted):
    paths = make_demo_features(tmp_path, clips=2000, seed=11, relations=planted)
    corpus = Corpus.read(paths["corpus"])
    rows = corpus.select(split="train")
    found = relations(
        corpus.emotion_targets()[rows],
        corpus.trait_values[rows],
        np.array(corpus.source_ids)[rows].tolist(),
    )
    happy, sad = EMOTIONS.index("happiness"), EMOTIONS.index("sadness")
    order = ordering(found)
    if not planted:
        assert not found.significant.any() and not found.mean_significant.any()
        assert all(entry["goes_with"] is None for entry in order)
        return
    assert (found.correlation[happy] > 0).all() and (found.correlation[sad] < 0).all()
    assert set(np.nonzero(found.significant)[0]) == {happy, sad}
    assert (order[0]["emotion"], order[0]["goes_with"]) == ("happiness", "higher")
    assert (order[-1]["emotion"], order[-1]["goes_with"]) == ("sadness", "lower")


def look_alike(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unrelated emotions and traits that a model takes for one another: both leak into both."""
    random = np.random.default_rng(seed)
    emotion = (random.random((count, 7)) < 0.4).astype(float)
    traits = random.normal(0.5, 0.1, (count, 5))
    seen = emotion.mean(axis=1) + traits.mean(axis=1) + random.normal(0, 0.05, count)
    probabilities = np.clip(0.4 + 0.6 * (seen - 0.9)[:, None] + 0.2 * (emotion - 0.4), 0.01, 0.99)
    scores = 0.5 + 0.2 * (seen - 0.9)[:, None] + 0.5 * (traits - 0.5)
    return emotion, traits, probabilities, scores


def test_predictions_of_things_that_look_alike_correlate_and_rectified_ones_do_not():
    emotion, traits, probabilities, scores = look_alike(1200, 7)
    emotion[::2] = np.nan
    sources, corpus = numbered(1200), np.zeros(1200, dtype=int)
    assert relations(probabilities, scores, sources).significant.all()
    found = rectified_relations((emotion, traits), (probabilities, scores), sources, corpus)
    assert not found.significant.any()
    assert found.n.max() == 600


def test_rectified_is_narrower_than_labels_alone_and_still_right():
    random = np.random.default_rng(8)
    count = 3000
    z = random.standard_normal((count, 1))
    emotion = (0.8 * z + 0.6 * random.standard_normal((count, 7)) > 0.5).astype(float)
    traits = 0.5 + 0.1 * (0.8 * z + 0.6 * random.standard_normal((count, 5)))
    # Predictions that follow the labels closely, and tell much of the rows without labels.
    probabilities = np.clip(emotion + random.normal(0, 0.1, emotion.shape), 0.01, 0.99)
    scores = traits + random.normal(0, 0.01, traits.shape)
    truth = relations(emotion, traits, numbered(count)).correlation
    labels = emotion.copy(), traits.copy()
    labels[0][300:] = np.nan
    sources, corpus = numbered(count), np.zeros(count, dtype=int)
    alone = relations(*labels, sources)
    found = rectified_relations(labels, (probabilities, scores), sources, corpus)
    width = [np.diff(value.interval, axis=-1).mean() for value in (alone, found)]
    assert width[1] < 0.7 * width[0]
    assert np.abs(found.correlation - truth).mean() < np.abs(alone.correlation - truth).mean()


def test_rectified_with_nothing_else_is_labels_and_without_both_is_nothing():
    emotion, traits, probabilities, scores = look_alike(400, 9)
    sources, corpus = numbered(400), np.zeros(400, dtype=int)
    both = rectified_relations((emotion, traits), (probabilities, scores), sources, corpus)
    np.testing.assert_allclose(
        both.correlation, relations(emotion, traits, sources).correlation, atol=1e-12
    )
    emotion[:200], traits[200:] = np.nan, np.nan
    assert rectified_relations((emotion, traits), (probabilities, scores), sources, corpus) is None


def test_the_possible_range_holds_the_truth_and_closes_where_all_is_known():
    emotion, traits, _, _ = look_alike(4000, 10)
    truth = relations(emotion, traits, numbered(4000)).correlation
    known = possible_range(emotion, traits, traits.var(axis=0))
    np.testing.assert_allclose(known, np.stack([truth, truth], axis=-1), atol=1e-9)
    # Calibrated predictions: means of labels given what is seen.
    constant = np.tile(emotion.mean(axis=0), (4000, 1)), np.tile(traits.mean(axis=0), (4000, 1))
    nothing = possible_range(*constant, traits.var(axis=0))
    np.testing.assert_allclose(nothing, np.broadcast_to([-1.0, 1.0], (7, 5, 2)), atol=1e-9)


def test_answers_that_differ_are_named():
    random = np.random.default_rng(12)
    emotion, traits = random_labels(800, 12)
    first = relations(emotion, traits + emotion[:, [1]], numbered(800))
    second = relations(emotion, traits - emotion[:, [1]], numbered(800))
    weaker = relations(emotion, traits + 0.15 * emotion[:, [1]], numbered(800))
    noisy = relations(emotion, traits + 0.01 * random.random(traits.shape), numbered(800))
    named = disagreements({"labels": first, "predictions": second})
    assert {(entry["emotion"], entry["how"]) for entry in named} == {("anger", "opposite")}
    assert len(named) == 5 and named[0]["r"][0] > 0 > named[0]["r"][1]
    hows = {entry["how"] for entry in disagreements({"labels": first, "predictions": weaker})}
    assert hows == {"weaker"}
    same = {"labels": relations(emotion, traits, numbered(800)), "predictions": noisy}
    assert disagreements(same) == []
