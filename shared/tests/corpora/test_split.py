"""No group straddles, labels spread alike, the seed decides and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.corpora.split import deal, fold_corpus, split_corpus
from mepr_shared.errors import DataError


def corpus(groups: list[str | None], seed: int = 0) -> Corpus:
    random = np.random.default_rng(seed)
    shares = [0.5, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05]
    emotion = np.eye(7)[random.choice(7, size=len(groups), p=shares)]
    emotion[::5] = np.nan
    columns = {
        "sample_id": [f"s{row:05d}" for row in range(len(groups))],
        "source_id": groups,
        "split": ["train"] * len(groups),
        "emotion": emotion,
        "traits": random.random((len(groups), 5)),
    }
    return Corpus.build(CorpusMeta("many"), columns)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=80),
    st.integers(2, 6),
    st.integers(0, 3),
)
def test_no_group_ever_straddles(numbers: list[int | None], folds: int, seed: int) -> None:
    groups = [None if number is None else f"g{number}" for number in numbers]
    distinct = len({g for g in groups if g}) + groups.count(None)
    if distinct < folds or not any(groups):
        with pytest.raises(DataError):
            fold_corpus(corpus(groups), folds, seed=seed)
        return
    result = fold_corpus(corpus(groups), folds, seed=seed)
    where: dict[str, set[int]] = {}
    for source, fold in zip(result.column("source_id"), result.column("fold"), strict=True):
        if source is not None:
            where.setdefault(source, set()).add(fold)
    assert all(len(found) == 1 for found in where.values())
    assert set(result.column("fold")) == set(range(folds))  # no part is empty


def test_shares_and_labels_are_met_as_far_as_groups_allow() -> None:
    groups = [f"g{row // 4}" for row in range(2000)]
    result = split_corpus(corpus(groups))
    counts = result.meta.counts["split"]
    assert counts["train"] == pytest.approx(1400, abs=15)
    assert counts["val"] == pytest.approx(300, abs=15)
    overall = np.nanmean(result.emotion_values, axis=0)
    for split in ("train", "val", "test"):
        rows = result.select(split=split)
        np.testing.assert_allclose(
            np.nanmean(result.emotion_values[rows], axis=0), overall, atol=0.02
        )
        np.testing.assert_allclose(result.trait_values[rows].mean(axis=0), 0.5, atol=0.05)


def test_the_seed_decides() -> None:
    many = corpus([f"g{row // 3}" for row in range(300)])
    first = split_corpus(many, seed=1).splits.tolist()
    assert first == split_corpus(many, seed=1).splits.tolist()
    assert first != split_corpus(many, seed=2).splits.tolist()


def test_folds_leave_splits_alone_and_say_what_was_done() -> None:
    many = corpus([f"g{row // 3}" for row in range(300)])
    result = fold_corpus(many, 5, name="many_folds")
    assert result.splits.tolist() == many.splits.tolist()
    assert result.name == "many_folds"
    assert result.meta.notes[-1] == "5 folds by source_id; seed 0"
    assert result.hashes.labels_sha256 == many.hashes.labels_sha256
    assert split_corpus(result, fractions={"train": 0.5, "test": 0.5}).column("fold")[0] is not None


def test_one_large_group_cannot_be_cut() -> None:
    result = split_corpus(corpus(["big"] * 90 + ["a"] * 5 + ["b"] * 5))
    assert result.meta.counts["split"] == {"train": 90, "val": 5, "test": 5}


def test_dealing_is_linear_in_groups() -> None:
    groups = np.repeat(np.arange(5000), 2)
    part = deal(groups, np.ones((10000, 1)), np.array([0.5, 0.5]), 0)
    assert np.bincount(part).tolist() == [5000, 5000]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: split_corpus(c, fractions={"train": 0.7, "dev": 0.3}), "no shares of"),
        (lambda c: split_corpus(c, fractions={"train": 0.7, "val": 0.1}), "sum to 1"),
        (lambda c: split_corpus(c, fractions={"train": 1.2, "val": -0.2}), "positive"),
        (lambda c: split_corpus(c, by="speaker_id"), "has no speaker_id"),
        (lambda c: split_corpus(c, by="colour"), "no column 'colour'"),
        (lambda c: fold_corpus(c, 1), "at least 2"),
        (lambda c: fold_corpus(c, 50), "cannot fill 50 parts"),
    ],
)
def test_what_cannot_be_split_is_refused(call, said: str) -> None:
    with pytest.raises(DataError, match=said):
        call(corpus([f"g{row // 3}" for row in range(30)]))
