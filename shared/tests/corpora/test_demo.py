"""The text demo: frozen, its relations planted or not, its best answer known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.corpora import demo_text
from mepr_shared.corpora.demo import make_demo, oracle
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.corpora.split import split_corpus
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS
from mepr_shared.metrics import single_label_scores, trait_scores


def read(folder: Path, **options) -> dict[str, Corpus]:
    return {name: Corpus.read(path) for name, path in make_demo(folder, **options).items()}


def labelled(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Rows with an emotion, rows with all traits."""
    emotion = ~np.isnan(corpus.emotion_values).any(axis=1)
    return np.flatnonzero(emotion), np.flatnonzero(~np.isnan(corpus.trait_values).any(axis=1))


def test_the_generator_is_frozen(tmp_path: Path) -> None:
    # If this fails the generator changed: give it a new version, or undo the change.
    corpora = read(tmp_path, clips=90, seed=3)
    everything = [
        [c.sample_ids, c.splits.tolist(), c.source_ids.tolist(), c.texts] for c in corpora.values()
    ]
    labels = b"".join(
        np.round(np.nan_to_num(values, nan=-1), 4).tobytes()
        for corpus in corpora.values()
        for values in (corpus.emotion_values, corpus.trait_values)
    )
    digest = hashlib.sha256(repr(everything).encode() + labels).hexdigest()
    assert digest[:16] == "2b517fb5c7cad4c2"


def test_the_seed_decides(tmp_path: Path) -> None:
    first = read(tmp_path / "a", clips=90, seed=1)["demo_emotion"]
    again = read(tmp_path / "b", clips=90, seed=1)["demo_emotion"]
    other = read(tmp_path / "c", clips=90, seed=2)["demo_emotion"]
    assert first.hashes == again.hashes
    assert first.hashes.inputs_sha256 != other.hashes.inputs_sha256


def test_corpora_are_heterogeneous_as_in_real_life(tmp_path: Path) -> None:
    corpora = read(tmp_path, clips=600)
    emotion, traits, both = (corpora[f"demo_{part}"] for part in ("emotion", "traits", "both"))
    assert (emotion.meta.counts["emotion"], emotion.meta.counts["traits"]) == (600, 0)
    assert (traits.meta.counts["emotion"], traits.meta.counts["traits"]) == (0, 600)
    assert 120 < both.meta.counts["emotion"] < 200 and 120 < both.meta.counts["traits"] < 200
    for corpus in corpora.values():
        assert 0 < corpus.table["text"].null_count < 0.1 * len(corpus)
        assert set(corpus.meta.counts["split"]) == {"train", "val", "test"}
        assert corpus.meta.counts["split"]["train"] == pytest.approx(0.7 * len(corpus), rel=0.1)
        where: dict[str, set[str]] = {}
        for source, split in zip(corpus.source_ids, corpus.splits, strict=True):
            where.setdefault(source, set()).add(split)
        assert all(len(splits) == 1 for splits in where.values())
        assert 3 * len(where) <= len(corpus) + 3
    partly = np.isnan(traits.trait_values).any(axis=1)
    assert 0 < partly.sum() < 60


def test_the_text_determines_the_content() -> None:
    banks = list(demo_text.banks().values())
    everything = [sentence for bank in banks for sentence in bank]
    assert len(set(everything)) == len(everything)


def _relation(corpus: Corpus, emotion: str) -> float:
    rows = np.intersect1d(*labelled(corpus))
    present = corpus.emotion_values[rows, EMOTIONS.index(emotion)]
    return float(np.corrcoef(present, corpus.trait_values[rows].mean(axis=1))[0, 1])


def test_relations_are_planted_unless_asked_not_to(tmp_path: Path) -> None:
    planted = read(tmp_path / "with", clips=3000)["demo_both"]
    assert _relation(planted, "happiness") > 0.2 and _relation(planted, "sadness") < -0.2
    free = read(tmp_path / "without", clips=3000, relations=False)["demo_both"]
    shuffled = read(tmp_path / "shuffled", clips=3000, shuffle_labels=True)["demo_both"]
    for corpus in (free, shuffled):
        assert abs(_relation(corpus, "happiness")) < 0.12
        assert abs(_relation(corpus, "sadness")) < 0.12


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_the_oracle_knows_the_rates(tmp_path: Path, kind: str) -> None:
    """Among labels said to have probability p, a share of p is present."""
    corpus = read(tmp_path, clips=3000, emotion_kind=kind)["demo_emotion"]
    expected = oracle(corpus).emotion_probability
    said = np.array([text is not None for text in corpus.texts])
    for probability in np.unique(np.round(expected[said, 1:], 6)):
        chosen = np.isclose(expected[:, 1:], probability, atol=1e-6) & said[:, None]
        present = corpus.emotion_values[:, 1:][chosen].mean()
        assert present == pytest.approx(probability, abs=4 * 0.5 / np.sqrt(chosen.sum()))
    if kind == "single_label":
        np.testing.assert_allclose(expected.sum(axis=1), 1)
    neutral = corpus.emotion_values[said, 0].mean()
    assert expected[said, 0].mean() == pytest.approx(neutral, abs=0.03)


def test_the_oracle_beats_a_constant_and_has_unbiased_errors(tmp_path: Path) -> None:
    corpora = read(tmp_path, clips=1500)
    corpus = corpora["demo_emotion"]
    targets = corpus.emotion_targets()
    best = single_label_scores(targets, oracle(corpus).emotion_probability)
    constant = single_label_scores(targets, np.tile(targets.mean(axis=0), (len(targets), 1)))
    assert best["uar"] > 0.8 and constant["uar"] < 0.2
    corpus = corpora["demo_traits"]
    _, rows = labelled(corpus)
    values, expected = corpus.trait_values[rows], oracle(corpus).trait_mean[rows]
    best = trait_scores(values, expected)
    constant = trait_scores(values, np.tile(values.mean(axis=0), (len(rows), 1)))
    assert best["ccc"] > 0.8 and constant["ccc"] == pytest.approx(0, abs=1e-6)
    assert best["macc"] > constant["macc"] + 0.03
    assert (values - expected).mean() == pytest.approx(0, abs=0.005)
    errors = (values - expected).ravel()
    assert abs(np.corrcoef(errors, expected.ravel())[0, 1]) < 0.04


def test_shuffled_labels_leave_nothing_to_know(tmp_path: Path) -> None:
    corpora = read(tmp_path, clips=300, shuffle_labels=True)
    expected = oracle(corpora["demo_emotion"]).emotion_probability
    assert np.ptp(expected, axis=0).max() == 0
    honest = read(tmp_path / "honest", clips=300)["demo_emotion"]
    shuffled = corpora["demo_emotion"]
    assert not (honest.emotion_values == shuffled.emotion_values).all()


def test_the_oracle_follows_a_new_split(tmp_path: Path) -> None:
    corpus = read(tmp_path, clips=90)["demo_emotion"]
    part = split_corpus(corpus).take(np.arange(10, 20))
    np.testing.assert_array_equal(
        oracle(part).emotion_probability, oracle(corpus).emotion_probability[10:20]
    )


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot fill three splits"):
        make_demo(tmp_path, clips=60)
    with pytest.raises(DataError, match="not intensity"):
        make_demo(tmp_path, emotion_kind="intensity")
    assert not list(tmp_path.iterdir())
    make_demo(tmp_path, clips=90)
    with pytest.raises(DataError, match="exists"):
        make_demo(tmp_path, clips=90)
    with pytest.raises(DataError, match="was not made by demo generator"):
        oracle(Corpus.build(CorpusMeta("mine"), {"sample_id": ["a"]}))
