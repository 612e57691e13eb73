"""The cluster bootstrap: coverage, determinism, pairing, and when there is no interval."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_shared.additive import confusion_statistics, single_label_scores_from
from mepr_shared.errors import DataError
from mepr_shared.intervals import (
    Resampling,
    cluster_bootstrap,
    cluster_sums,
    clusters,
    paired_cluster_bootstrap,
    per_cluster_scores,
)
from mepr_shared.metrics import single_label_scores

HOW = Resampling(resamples=400)


def mean_from(sums: np.ndarray) -> dict[str, np.ndarray]:
    """A mean as a score of the additive statistics (1, x)."""
    return {"mean": sums[..., 1] / sums[..., 0]}


def ones_and(values: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(values), values], axis=1)


def clustered(seed: int, clusters_: int = 60, size: int = 5) -> tuple[np.ndarray, list[str]]:
    """Values that share most of their noise within a source; their true mean is 0."""
    generator = np.random.default_rng(seed)
    shared = np.repeat(generator.standard_normal(clusters_), size)
    values = shared + 0.3 * generator.standard_normal(clusters_ * size)
    return values, [f"source {i // size}" for i in range(clusters_ * size)]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    trials, covered, covered_by_clips = 200, 0, 0
    for seed in range(trials):
        values, sources = clustered(seed)
        how = Resampling(resamples=200, seed=seed)
        by_source = cluster_bootstrap(ones_and(values), sources, mean_from, how)
        clips = [str(i) for i in range(len(values))]
        by_clip = cluster_bootstrap(ones_and(values), clips, mean_from, how)
        assert by_source is not None and by_clip is not None
        covered += by_source["mean"][0] <= 0 <= by_source["mean"][1]
        covered_by_clips += by_clip["mean"][0] <= 0 <= by_clip["mean"][1]
    assert 0.89 <= covered / trials <= 0.99
    assert covered_by_clips / trials < 0.75  # what clips taken as independent would claim


def test_the_level_widens_the_interval() -> None:
    values, sources = clustered(1)
    widths = []
    for level in (0.5, 0.95):
        found = cluster_bootstrap(ones_and(values), sources, mean_from, Resampling(400, level))
        assert found is not None
        widths.append(np.ptp(found["mean"]))
    assert 2 < widths[1] / widths[0] < 4  # 1.96 / 0.67 = 2.9 for a normal


def test_the_seed_decides_the_interval_and_the_order_of_samples_does_not() -> None:
    values, sources = clustered(2)
    shuffle = np.random.default_rng(0).permutation(len(values))
    intervals = [
        cluster_bootstrap(ones_and(values[rows]), [sources[i] for i in rows], mean_from, how)
        for rows, how in (
            (np.arange(len(values)), HOW),
            (np.arange(len(values)), HOW),
            (shuffle, HOW),
            (np.arange(len(values)), Resampling(resamples=400, seed=1)),
        )
    ]
    first, again, shuffled, other_seed = (found["mean"] for found in intervals if found)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, shuffled, rtol=1e-12)
    assert (first != other_seed).any()


def test_a_resample_equals_scoring_the_drawn_sources_with_repetition() -> None:
    """The matrix product against the plain loop: draw sources, gather their clips, score."""
    generator = np.random.default_rng(3)
    n, count = 150, 25
    sources = [f"s{i:02d}" for i in generator.integers(0, count, n)]
    targets = np.eye(7)[generator.integers(0, 7, n)]
    probabilities = generator.random((n, 7)) + 0.5 * targets
    names, index = clusters(sources)
    how = Resampling(resamples=50, seed=9)

    drawn = np.random.default_rng(9).integers(0, len(names), (50, len(names)))
    uar = []
    for resample in drawn:
        rows = np.concatenate([np.flatnonzero(index == source) for source in resample])
        uar.append(single_label_scores(targets[rows], probabilities[rows])["uar"])
    found = cluster_bootstrap(
        confusion_statistics(targets, probabilities), sources, single_label_scores_from, how
    )
    assert found is not None
    np.testing.assert_allclose(found["uar"], np.quantile(uar, [0.025, 0.975]), rtol=1e-12)


def test_blocks_of_resamples_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    values, sources = clustered(4)
    whole = cluster_bootstrap(ones_and(values), sources, mean_from, HOW)
    monkeypatch.setattr("mepr_shared.intervals._BLOCK", 60 * 7)
    in_blocks = cluster_bootstrap(ones_and(values), sources, mean_from, HOW)
    assert whole is not None and in_blocks is not None
    np.testing.assert_array_equal(whole["mean"], in_blocks["mean"])


def test_the_paired_interval_is_narrower_than_that_of_two_separate_ones() -> None:
    values, sources = clustered(5)
    better = values + 0.1 + 0.05 * np.random.default_rng(6).standard_normal(len(values))
    paired = paired_cluster_bootstrap(ones_and(values), ones_and(better), sources, mean_from, HOW)
    separate = [cluster_bootstrap(ones_and(v), sources, mean_from, HOW) for v in (values, better)]
    assert paired is not None
    assert paired["mean"][0] < 0.1 < paired["mean"][1]
    assert paired["mean"][0] > 0  # a difference the separate intervals cannot see
    widths = [np.ptp(found["mean"]) for found in separate if found]
    assert np.ptp(paired["mean"]) < 0.25 * np.hypot(*widths)
    back = paired_cluster_bootstrap(ones_and(better), ones_and(values), sources, mean_from, HOW)
    assert back is not None
    np.testing.assert_allclose(back["mean"], -paired["mean"][::-1], atol=1e-12)


def test_a_model_does_not_differ_from_itself() -> None:
    values, sources = clustered(6)
    found = paired_cluster_bootstrap(ones_and(values), ones_and(values), sources, mean_from, HOW)
    assert found is not None and found["mean"].tolist() == [0, 0]


def test_pairing_demands_the_same_samples() -> None:
    values, sources = clustered(7)
    with pytest.raises(DataError, match="same samples: 300 and 299"):
        paired_cluster_bootstrap(ones_and(values), ones_and(values[:-1]), sources, mean_from, HOW)


def test_with_fewer_than_twenty_sources_there_is_no_interval_but_a_value_for_each() -> None:
    values, sources = clustered(8, clusters_=19)
    statistics = ones_and(values)
    assert cluster_bootstrap(statistics, sources, mean_from, HOW) is None
    assert paired_cluster_bootstrap(statistics, statistics, sources, mean_from, HOW) is None
    each = per_cluster_scores(statistics, sources, mean_from)
    assert len(each) == 19
    assert each["source 3"]["mean"] == pytest.approx(values[15:20].mean())
    values, sources = clustered(8, clusters_=20)
    assert cluster_bootstrap(ones_and(values), sources, mean_from, HOW) is not None


def test_a_score_that_no_resample_defines_has_no_interval() -> None:
    def undefined(sums: np.ndarray) -> dict[str, np.ndarray]:
        mean = mean_from(sums)["mean"]
        every_other = np.where(np.arange(len(mean)) % 2, mean, np.nan)
        return {"never": np.full(len(mean), np.nan), "half": every_other, "mean": mean}

    values, sources = clustered(9)
    found = cluster_bootstrap(ones_and(values), sources, undefined, HOW)
    assert found is not None
    assert np.isnan(found["never"]).all()
    assert np.isfinite(found["half"]).all()
    np.testing.assert_allclose(found["half"], found["mean"], atol=0.1)


def test_sums_per_cluster_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(10)
    index = np.concatenate([np.arange(6), generator.integers(0, 6, 30)])
    statistics = generator.random((36, 2, 3))
    expected = [statistics[index == cluster].sum(axis=0) for cluster in range(6)]
    np.testing.assert_allclose(cluster_sums(statistics, index, 6), expected)


def test_a_sample_without_a_source_is_refused() -> None:
    with pytest.raises(DataError, match="source_id"):
        clusters(["a", None])  # type: ignore[list-item]
