"""The outer join against the corpus index: what is found, what is missing, what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from mepr_fusion.baselines import MEAN, decision_shift, unimodal_outputs
from mepr_fusion.calibrate import comparable
from mepr_fusion.join import NO_ROW, Joined, join, multi_label_by_corpus
from mepr_shared.contract import EmotionOutput, Export, ExportInfo, ExportWriter
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ContractError, DataError
from mepr_shared.labels import EmotionScale

IDS = [f"clip{i}" for i in range(8)]
SPLITS = ["train"] * 4 + ["val"] * 2 + ["test", None]


def make_corpus(name="films", *, ids=IDS, splits=SPLITS, kind="single_label", emotion=True):
    values = np.eye(7, dtype=np.float32)[np.arange(len(ids)) % 7]
    values[1] = np.nan
    traits = np.full((len(ids), 5), 0.5, dtype=np.float32)
    traits[2, 3] = np.nan
    columns = {"sample_id": ids, "split": splits, "source_id": [i[:4] for i in ids]}
    columns |= {"traits": traits} | ({"emotion": values} if emotion else {})
    return Corpus.build(CorpusMeta(name, EmotionScale(kind)), columns)


def make_export(root, corpus, modality, *, statuses=None, widths=(3, 2), seed=0, **output):
    """An export of random numbers; samples whose status has no data have none."""
    writer = ExportWriter(
        root,
        corpus=corpus,
        info=ExportInfo(
            modality,
            "stage2",
            emotion_output=EmotionOutput(**{"kind": "softmax", **output}),
        ),
    )
    random = np.random.default_rng(seed)
    for index, ids in writer.pending():
        status = [(statuses or {}).get(key, "ok") for key in ids]
        absent = np.array([word != "ok" for word in status])

        def values(width, scale=1.0, absent=absent):
            drawn = (random.uniform(size=(len(absent), width)) * scale).astype(np.float32)
            drawn[absent] = np.nan
            return drawn

        writer.write_part(
            index,
            {
                "status": status,
                "emotion_logits": values(7, 4.0),
                "trait_scores": values(5),
                "emotion_embedding": values(widths[0]) if widths[0] else None,
                "trait_embedding": values(widths[1]) if widths[1] else None,
            },
        )
    return Export.open(writer.commit())


def join_all(corpora, exports, **options) -> Joined:
    return join(
        corpora,
        {(export.modality, export.corpus_name): export for export in exports},
        **{
            "prior_shift": {},
            "multi_label": multi_label_by_corpus(corpora),
            **options,
        },
    )


def test_every_sample_finds_its_own_rows_and_nobody_elses(tmp_path):
    corpus = make_corpus()
    text = make_export(tmp_path, corpus, "text", statuses={"clip3": "no_text", "clip5": "no_text"})
    face = make_export(tmp_path, corpus, "face", statuses={"clip5": "no_face"}, seed=1)
    joined = join_all([corpus], [text, face])
    assert joined.modalities == ("face", "text")
    assert [corpus.sample_ids[row] for row in joined.rows] == [i for i in IDS if i != "clip5"]
    for place, row in enumerate(joined.rows):
        for index, export in enumerate((face, text)):
            at = int(export.row_of([corpus.sample_ids[row]])[0])
            there = export.status[at] == "ok"
            assert joined.present[place, index] == there
            wanted = np.concatenate([export.emotion_embedding[at], export.trait_embedding[at]])
            np.testing.assert_array_equal(joined.features[export.modality][place], wanted)
            np.testing.assert_array_equal(
                joined.trait_predictions[place, index], export.trait_scores[at]
            )
    np.testing.assert_array_equal(joined.emotion_targets, corpus.emotion_targets()[joined.rows])
    np.testing.assert_array_equal(joined.trait_targets, corpus.trait_values[joined.rows])


def test_coverage_adds_up_and_the_dropped_have_their_reasons(tmp_path):
    corpus = make_corpus()
    text = make_export(tmp_path, corpus, "text", statuses={"clip0": "no_text", "clip5": "no_text"})
    face = make_export(tmp_path, corpus, "face", statuses={"clip5": "no_face"})
    joined = join_all([corpus], [text, face])
    for modality in ("text", "face"):
        entries = [entry for entry in joined.coverage if entry.modality == modality]
        per_split = Counter()
        for entry in entries:
            per_split[entry.split] += entry.samples
        assert per_split == {"train": 4, "val": 2, "test": 1, "none": 1}
    assert ("films", "text", "train", "no_text", 1) in map(dataclasses.astuple, joined.coverage)
    assert joined.dropped == {("films", "val", "no_face+no_text"): 1}


def test_corpora_of_different_kinds_are_united_and_keep_their_sources_apart(tmp_path):
    films, talks = make_corpus(), make_corpus("talks", kind="multi_label")
    silent = make_corpus("silent", emotion=False)
    exports = [make_export(tmp_path, films, "text")]
    exports += [make_export(tmp_path, talks, "text", kind="sigmoid")]
    exports += [make_export(tmp_path, silent, "face", widths=(4, 4))]
    joined = join_all([films, talks, silent], exports)
    assert len(joined) == 24
    by_corpus = [joined.multi_label[joined.corpus_of == n] for n in range(3)]
    # One without emotion labels follows the others; of two kinds, softmax.
    assert not by_corpus[0].any() and by_corpus[1].all() and not by_corpus[2].any()
    assert joined.modalities == ("face", "text")
    assert joined.present.sum(axis=0).tolist() == [8, 16]
    sources = [set(joined.source_ids[joined.corpus_of == n]) for n in range(3)]
    assert not (sources[0] & sources[1]) and not (sources[1] & sources[2])
    assert np.isnan(joined.emotion_targets[joined.corpus_of == 2]).all()
    assert joined.select(split="val", corpus="talks").tolist() == [12, 13]


def test_a_single_modality_decides_as_its_own_model_whatever_the_corpus_shift(tmp_path):
    corpus = make_corpus()
    shift = [0.0, 1.0, 0.0, 3.0, 0.0, 0.5, 0.0]
    export = make_export(tmp_path, corpus, "text", prior_shift=shift, temperature=1.5)
    common = np.full(7, 0.3, np.float32)
    common[2] = 5.0
    other = make_corpus("talks")
    exports = [export, make_export(tmp_path, other, "text", seed=3)]
    joined = join_all([other, corpus], exports, prior_shift={"films": common})
    rows = joined.select(split="train", corpus="films")
    alone = unimodal_outputs(joined, "text", rows)
    raw = export.emotion_logits[
        export.row_of([corpus.sample_ids[row] for row in joined.rows[rows]])
    ]
    own = decision_shift(joined, "text", rows)
    np.testing.assert_allclose(own, np.tile(np.array(shift) / 1.5, (len(rows), 1)), rtol=1e-6)
    assert ((alone.emotion_logits + own).argmax(1) == raw.argmax(1)).all()
    # What is joined is calibrated: it decides otherwise, and the corpus's shift is kept apart.
    assert (joined.emotion_predictions[rows, 0].argmax(1) != raw.argmax(1)).any()
    calibrated = comparable(raw, export.manifest.emotion_output, multi_label=False)
    np.testing.assert_array_equal(joined.emotion_predictions[rows, 0], calibrated)
    np.testing.assert_array_equal(joined.prior_shift, [np.zeros(7), common])
    for name in (MEAN, "fusion"):
        np.testing.assert_array_equal(decision_shift(joined, name, rows), [common] * len(rows))
    rest = joined.select(split="train", corpus="talks")
    assert (decision_shift(joined, "text", rest) == 0).all()


def test_dropping_samples_leaves_the_shifts_of_the_corpora_in_place(tmp_path):
    films, talks = make_corpus(), make_corpus("talks")
    exports = [make_export(tmp_path, films, "text", statuses={"clip0": "no_text"})]
    exports += [make_export(tmp_path, talks, "text")]
    shifts = {"films": np.full(7, 1.0, np.float32), "talks": np.full(7, 2.0, np.float32)}
    joined = join_all([films, talks], exports, prior_shift=shifts)
    assert len(joined) == 15
    np.testing.assert_array_equal(joined.prior_shift, [shifts["films"], shifts["talks"]])


def test_mean_of_the_modalities_is_over_those_that_answer(tmp_path):
    corpus = make_corpus()
    text = make_export(tmp_path, corpus, "text", statuses={"clip0": "no_text"})
    face = make_export(tmp_path, corpus, "face", seed=1)
    joined = join_all([corpus], [text, face])
    mean = unimodal_outputs(joined, MEAN, np.arange(len(joined)))
    np.testing.assert_allclose(mean.trait_scores[0], face.trait_scores[0])
    both = (face.trait_scores[1:] + text.trait_scores[1:]) / 2
    np.testing.assert_allclose(mean.trait_scores[1:], both, rtol=1e-6)


def test_one_embedding_is_enough_and_the_other_half_is_nan(tmp_path):
    corpus = make_corpus()
    export = make_export(tmp_path, corpus, "gaze", widths=(3, 0))
    joined = join_all([corpus], [export])
    assert joined.present.all() and joined.features["gaze"].shape == (8, 3)
    with pytest.raises(ContractError, match="has no embedding"):
        join_all([corpus], [make_export(tmp_path / "b", corpus, "gaze", widths=(0, 0))])


def test_clips_newer_than_the_export_are_uncovered_and_warned_about(tmp_path):
    old = make_corpus(ids=IDS[:6], splits=SPLITS[:6])
    export, corpus = make_export(tmp_path, old, "text"), make_corpus()
    joined = join_all([corpus], [export])
    assert len(joined) == 6
    assert joined.dropped == {("films", "test", NO_ROW): 1, ("films", "none", NO_ROW): 1}
    assert any("no row" in warning for warning in joined.warnings)


def test_an_export_that_lacks_rows_it_must_have_is_refused(tmp_path):
    old, corpus = make_corpus(ids=IDS[:6], splits=SPLITS[:6]), make_corpus()
    export = make_export(tmp_path, old, "text")
    # It claims to be of this very sample list.
    claimed = dataclasses.replace(
        export.manifest.corpus, samples_sha256=corpus.hashes.samples_sha256
    )
    forged = Export(export.path, dataclasses.replace(export.manifest, corpus=claimed))
    with pytest.raises(ContractError, match=r"lacks rows it must have: 'clip6' and 1 more"):
        join_all([corpus], [forged])


def test_a_changed_split_is_refused_with_both_values(tmp_path):
    export = make_export(tmp_path, make_corpus(), "text")
    moved = make_corpus(splits=["val", *SPLITS[1:]])
    with pytest.raises(ContractError, match="'clip0' is 'train' .* 'val'"):
        join_all([moved], [export])


def test_no_common_sample_is_refused(tmp_path):
    export = make_export(tmp_path, make_corpus(ids=[f"other{i}" for i in range(8)]), "text")
    with pytest.raises(ContractError, match="no sample in common"):
        join_all([make_corpus()], [export])


def test_changed_labels_are_a_warning(tmp_path):
    export = make_export(tmp_path, make_corpus(), "text")
    relabelled = make_corpus(kind="multi_label")
    joined = join_all([relabelled], [export])
    assert any("labels of films changed" in warning for warning in joined.warnings)


def test_widths_of_one_modality_must_agree_between_corpora(tmp_path):
    films, talks = make_corpus(), make_corpus("talks")
    exports = [
        make_export(tmp_path, films, "text"),
        make_export(tmp_path, talks, "text", widths=(4, 2)),
    ]
    with pytest.raises(ContractError, match=r"talks have widths \(4, 2\), those of films \(3, 2\)"):
        join_all([films, talks], exports)


def test_two_corpora_of_one_name_are_refused(tmp_path):
    corpus = make_corpus()
    with pytest.raises(DataError, match="same name"):
        join_all([corpus, corpus], [make_export(tmp_path, corpus, "text")])


def test_coverage_below_the_minimum_is_refused_with_the_statuses(tmp_path):
    corpus = make_corpus()
    export = make_export(tmp_path, corpus, "text", statuses={"clip0": "no_text"})
    assert len(join_all([corpus], [export], min_coverage=7 / 8)) == 7
    with pytest.raises(DataError, match=r"text covers 87.5% of films.*no_text 1"):
        join_all([corpus], [export], min_coverage=0.9)


def test_nothing_present_anywhere_is_refused(tmp_path):
    corpus = make_corpus()
    export = make_export(tmp_path, corpus, "text", statuses=dict.fromkeys(IDS, "no_text"))
    with pytest.raises((DataError, ContractError), match="no sample has any modality|no embedding"):
        join_all([corpus], [export])


def test_a_trained_model_keeps_its_order_of_modalities(tmp_path):
    corpus = make_corpus()
    exports = [make_export(tmp_path, corpus, name, seed=i) for i, name in enumerate("ab")]
    joined = join_all([corpus], exports, modalities=["b", "a"])
    assert joined.modalities == ("b", "a")
    np.testing.assert_array_equal(joined.trait_predictions[:, 0], exports[1].trait_scores)
