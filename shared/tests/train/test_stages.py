"""Stages 1 and 2 and exports, on synthetic features that carry the labels."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from mepr_shared.config import build
from mepr_shared.contract import Export, FrameStore, FrameStoreWriter
from mepr_shared.contract.verify import verify
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError, ContractError, DataError
from mepr_shared.labels import EmotionScale
from mepr_shared.train.clips import gather, load_batch, shuffled_batches, steps_per_epoch
from mepr_shared.train.cross_task_fit import hide_labels
from mepr_shared.train.evaluate_run import evaluate_run
from mepr_shared.train.export_run import export_run, newest_export_of
from mepr_shared.train.folds import train_folds
from mepr_shared.train.inference import fit_temperature
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import Stage1Settings, Stage2Settings
from mepr_shared.train.stages import HeldOut, fold_of, train_stage1, train_stage2

WIDTH = 12
SPEC = {"encoder": "synthetic", "revision": "", "weights_sha256": "0", "settings": {}, "schema": 1}
TINY = build(
    Stage1Settings,
    {
        "model": {"width": 16, "feedforward": 32, "dropout": 0.0},
        "fit": {"epochs": 12, "batch_size": 32, "learning_rate": 1e-2},
    },
)
TINY2 = build(
    Stage2Settings,
    {"model": {"width": 16, "dropout": 0.0}, "fit": {"epochs": 2, "learning_rate": 1e-3}},
)


class Synthetic:
    """Stands for a modality: only its name is read here."""

    name = "synthetic"
    distribution = "mepr-shared"


def make(folder, name, *, task, kind="single_label", clips=240, seed=0, shuffle=False):
    """A corpus of `clips` clips from 40 sources, and a store whose frames carry the labels."""
    random = np.random.default_rng(seed)
    feeling = random.integers(0, 7, clips)
    level = random.uniform(0.2, 0.8, (clips, 5))
    splits = np.array(["train"] * 28 + ["val"] * 7 + ["test"] * 5, dtype=object)
    source = np.arange(clips) % 40
    emotion = [None] * clips
    traits = [None] * clips
    if task == "emotion":
        values = np.eye(7, dtype=np.float32)[feeling]
        if kind == "multi_label":
            second = np.eye(7, dtype=np.float32)[(feeling + 1) % 7]
            values = np.maximum(values, second * (random.random((clips, 1)) < 0.3))
            values[:, 0] = 0
        emotion = list(random.permutation(values) if shuffle else values)
    else:
        traits = list(level.astype(np.float32))
    columns = {
        "sample_id": [f"{name}-{i:03d}" for i in range(clips)],
        "split": splits[source].tolist(),
        "source_id": [f"{name}-s{s}" for s in source],
        "text": [f"{name} {i}" for i in range(clips)],
        "emotion": emotion,
        "traits": traits,
    }
    meta = CorpusMeta(name=name, scale=EmotionScale(kind))
    corpus = Corpus.build(meta, columns).write(folder / f"{name}.parquet")
    by_id = {sample_id: i for i, sample_id in enumerate(columns["sample_id"])}
    with FrameStoreWriter(folder / "store", name, "synthetic", SPEC) as writer:
        for sample_id in corpus.sample_ids:
            i = by_id[sample_id]
            signal = np.concatenate([np.eye(7)[feeling[i]], level[i]])
            if i % 40 == 39:
                writer.add(sample_id, input_sha256="x", frames=None, status="no_text", reason="-")
                continue
            frames = signal + 0.1 * random.normal(size=(1 + i % 9, WIDTH))
            writer.add(sample_id, input_sha256="x", frames=frames.astype(np.float32))
    return corpus, FrameStore.open(writer.path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two corpora of one task each, both stages over their union."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("stages")
    feelings, feelings_store = make(root, "feelings", task="emotion")
    people, people_store = make(root, "people", task="traits", seed=1)
    data = ([feelings, people], [feelings_store, people_store])
    emotion = train_stage1(
        Synthetic(), "emotion", [feelings], [feelings_store], TINY, root / "emotion"
    )
    traits = train_stage1(Synthetic(), "traits", [people], [people_store], TINY, root / "traits")
    both = train_stage2(Synthetic(), emotion, traits, *data, TINY2, root / "both")
    return {"root": root, "data": data, "emotion": emotion, "traits": traits, "both": both}


def score(run, world, index, split="val"):
    corpora, stores = world["data"]
    return evaluate_run(run, corpora[index], stores[index], split)


def test_both_stages_learn_what_the_frames_carry(world):
    assert score(world["emotion"], world, 0)["emotion"]["uar"] > 0.9
    assert score(world["traits"], world, 1)["traits"]["ccc"] > 0.7
    assert score(world["both"], world, 0)["emotion"]["uar"] > 0.9
    assert score(world["both"], world, 1)["traits"]["ccc"] > 0.7


def test_the_report_has_n_dropped_baseline_interval_and_figures(world):
    record = score(world["both"], world, 0)
    assert record["n"] == 42 - record["n_dropped"] and record["dropped"] == {}
    test = score(world["both"], world, 0, "test")
    assert test["dropped"] == {"no_text": 6} and test["n"] == 24
    assert record["baseline"]["emotion"]["uar"] == pytest.approx(1 / 7)
    report = (world["both"].path / "report.md").read_text()
    assert "constant" in report and "Dropped from feelings val: 0" in report
    names = {path.name for path in (world["both"].path / "figures").iterdir()}
    assert names == {"curves.png", "confusion-feelings.png", "traits.png"}


def test_nothing_is_learned_from_shuffled_labels(tmp_path):
    corpus, store = make(tmp_path, "noise", task="emotion", shuffle=True, clips=400)
    run = train_stage1(Synthetic(), "emotion", [corpus], [store], TINY, tmp_path / "run")
    assert evaluate_run(run, corpus, store, "test")["emotion"]["uar"] < 0.3


def test_multi_label_corpora_get_thresholds_and_sigmoid(tmp_path):
    corpus, store = make(tmp_path, "several", task="emotion", kind="multi_label")
    run = train_stage1(Synthetic(), "emotion", [corpus], [store], TINY, tmp_path / "run")
    reading = run.metrics["emotion_outputs"]
    assert reading["default"] == "sigmoid" and len(reading["sigmoid"]["thresholds"]) == 7
    assert max(reading["sigmoid"]["prior_shift"]) > 0
    record = evaluate_run(run, corpus, store, "val")
    assert record["emotion"]["mwacc"] > 0.85
    assert record["baseline"]["emotion"]["mwacc"] == pytest.approx(0.5)


def test_stage2_holds_its_stage1_models_unchanged(world):
    from safetensors.torch import load_file

    whole = load_file(world["both"].weights_path)
    for task, prefix in (("emotion", "emotion_model."), ("traits", "trait_model.")):
        part = load_file(world[task].weights_path)
        assert all(torch.equal(whole[prefix + name], value) for name, value in part.items())


def test_an_interrupted_stage2_resumes_to_the_same_bytes(world, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    arguments = (Synthetic(), world["emotion"], world["traits"], *world["data"], TINY2)
    with pytest.raises(KeyboardInterrupt):
        train_stage2(*arguments, tmp_path / "run", on_epoch=stop)
    run = train_stage2(*arguments, tmp_path / "run", resume=True)
    assert run.weights_path.read_bytes() == world["both"].weights_path.read_bytes()
    assert [r["val"] for r in run.log] == [r["val"] for r in world["both"].log]


def test_an_interrupted_semi_supervised_stage2_resumes_to_the_same_bytes(world, tmp_path):
    given = {
        "model": {"width": 16, "dropout": 0.2},
        "ssl": True,
        "weighting": "gradnorm",
        "gradnorm": {"first_steps": 2},
        "semi": {"positive": 0.4, "negative": 0.2},
        "hidden_labels": 0.3,
        "fit": {"epochs": 4, "batch_size": 32, "patience": 0, "precision": "float32"},
    }
    semi = build(Stage2Settings, given)
    arguments = (Synthetic(), world["emotion"], world["traits"], *world["data"], semi)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train_stage2(*arguments, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_stage2(*arguments, tmp_path / "parts", on_epoch=stop)
    parts = train_stage2(*arguments, tmp_path / "parts", resume=True)
    assert parts.weights_path.read_bytes() == whole.weights_path.read_bytes()
    logs = [[{**record, "seconds": 0} for record in run.log] for run in (whole, parts)]
    assert logs[0] == logs[1]
    for epoch in (1, 2, 3, 4):
        name = f"steps/epoch-{epoch:04d}.parquet"
        assert (parts.path / name).read_bytes() == (whole.path / name).read_bytes()
    first, last = whole.log[0]["train"], whole.log[-1]["train"]
    assert "loss/emotion_semi" not in first and "pseudo/emotion_rate" not in first
    for term in ("emotion", "traits", "emotion_semi", "traits_semi"):
        for kind in ("loss", "weight", "gradient_norm"):
            assert np.isfinite(last[f"{kind}/{term}"])
    assert last["weight/emotion"] + last["weight/traits"] == pytest.approx(2, rel=1e-5)
    assert last["pseudo/emotion_agreement"] > 0.8  # the frames carry the labels


def test_the_same_labels_are_hidden_with_and_without_ssl_and_none_counts(world):
    clips = gather(*world["data"], split="train")
    plain, semi = (
        hide_labels(clips, build(Stage2Settings, {"hidden_labels": 0.5, "ssl": ssl}))
        for ssl in (False, True)
    )
    assert len(semi[0]) == len(clips) > len(plain[0])
    position = {name: row for row, name in enumerate(semi[0].sample_ids)}
    rows = [position[name] for name in plain[0].sample_ids]
    for task, targets in (("emotion", "emotion_targets"), ("traits", "trait_targets")):
        whole, visible = getattr(clips, targets), getattr(semi[0], targets)
        np.testing.assert_array_equal(getattr(plain[0], targets), visible[rows])
        # What is hidden and what is left make up the labels, without overlap.
        hidden = semi[1][task]
        np.testing.assert_array_equal(np.where(np.isnan(visible), hidden, visible), whole)
        assert (np.isnan(visible) | np.isnan(hidden)).all() and not np.isnan(hidden).all()
    with pytest.raises(ConfigError, match="hidden_labels = 1.0"):
        hide_labels(clips, build(Stage2Settings, {"hidden_labels": 1.0}))


def test_swapped_or_foreign_stage1_runs_are_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="is not a stage-1 emotion run"):
        train_stage2(
            Synthetic(), world["traits"], world["emotion"], *world["data"], TINY2, tmp_path / "a"
        )
    other = Run.load(world["emotion"].path)
    other.config["encoder"] = {**SPEC, "encoder": "another"}
    with pytest.raises(ConfigError, match="another encoder"):
        train_stage2(Synthetic(), other, world["traits"], *world["data"], TINY2, tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_task_without_labels_is_refused_before_anything_is_written(world, tmp_path):
    corpora, stores = world["data"]
    with pytest.raises(DataError, match="no usable clips with traits labels in the train split"):
        train_stage1(Synthetic(), "traits", corpora[:1], stores[:1], TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- exports -------------------------------------------------------------------------------------


def export(world, index, out, **options):
    corpora, stores = world["data"]
    return export_run(
        options.pop("run", world["both"]),
        corpora[index],
        stores[index],
        out,
        distribution="mepr-shared",
        module="mepr_shared",
        **options,
    )


def test_an_export_has_every_sample_and_is_the_same_however_it_is_cut(world, tmp_path):
    path, already = export(world, 0, tmp_path)
    assert not already and verify(path, deep=True) == []
    found = Export.open(path)
    assert list(found.sample_ids) == world["data"][0][0].sample_ids
    absent = found.status == "no_text"
    assert absent.sum() == 6 and np.isnan(found.emotion_logits[absent]).all()
    parts, _ = export(world, 0, tmp_path / "parts", part_rows=50)
    np.testing.assert_allclose(Export.open(parts).emotion_logits, found.emotion_logits, atol=1e-5)
    assert export(world, 0, tmp_path) == (path, True)


def test_out_of_fold_rows_come_from_models_that_never_saw_their_source(world, tmp_path):
    corpora, stores = world["data"]
    runs = train_folds(world["both"], Synthetic(), corpora, stores, 2)
    for fold, run in enumerate(runs):
        for name, sources in run.metrics["train_sources"].items():
            assert sources and (fold_of(np.array(sources, dtype=object), 2) != fold).all(), name
    full = Export.open(export(world, 0, tmp_path)[0])
    path, _ = export(world, 0, tmp_path, fold_runs=runs)
    held_out = Export.open(path)
    assert held_out.manifest.train_rows == "out_of_fold"
    usable = full.status == "ok"
    train = usable & (corpora[0].splits == "train")
    rest = usable & ~train
    np.testing.assert_array_equal(held_out.emotion_logits[rest], full.emotion_logits[rest])
    assert (held_out.emotion_logits[train] != full.emotion_logits[train]).any(axis=1).all()
    np.testing.assert_array_equal(
        held_out.emotion_embedding[usable], full.emotion_embedding[usable]
    )
    again = train_folds(world["both"], Synthetic(), corpora, stores, 2)
    assert [r.path for r in again] == [r.path for r in runs]


def test_folds_need_two_groups_and_all_training_corpora(world):
    corpora, stores = world["data"]
    with pytest.raises(ConfigError, match="at least 2"):
        train_folds(world["both"], Synthetic(), corpora, stores, 1)
    with pytest.raises(ConfigError, match="missing: people"):
        train_folds(world["both"], Synthetic(), corpora[:1], stores[:1], 2)


def test_groups_do_not_depend_on_what_else_there_is():
    sources = np.array([f"s{i}" for i in range(1000)], dtype=object)
    groups = fold_of(sources, 5)
    np.testing.assert_array_equal(fold_of(sources[::-3], 5), groups[::-3])
    assert np.bincount(groups, minlength=5).min() > 150
    assert HeldOut(2, 5).contains(sources).sum() == (groups == 2).sum()


def test_update_takes_over_unchanged_rows(world, tmp_path):
    corpora, _ = world["data"]
    export(world, 0, tmp_path)
    older = newest_export_of(world["both"], corpora[0], tmp_path)
    assert older is not None
    path, already = export(world, 0, tmp_path, reuse=older)
    assert already and path == older.path


def test_samples_that_were_never_extracted_are_an_error(world, tmp_path):
    corpora, stores = world["data"]
    extra = corpora[0].take(np.arange(10))
    renamed = extra.table.set_column(
        extra.table.schema.get_field_index("sample_id"),
        "sample_id",
        [[f"new-{i}" for i in range(10)]],
    )
    corpus = Corpus(dataclasses.replace(extra.meta, name="feelings"), renamed)
    with pytest.raises(ContractError, match="10 samples of feelings are not in.*run extract"):
        export_run(
            world["both"], corpus, stores[0], tmp_path, distribution="d", module="mepr_shared"
        )
    assert not list(tmp_path.glob("feelings/*/*/manifest.json"))


def test_a_stage1_run_exports_its_task_and_nulls(world, tmp_path):
    path, _ = export(world, 0, tmp_path, run=world["emotion"])
    assert verify(path, deep=True) == []
    found = Export.open(path)
    assert found.manifest.stage == "stage1"
    usable = found.status == "ok"
    assert np.isfinite(found.emotion_logits[usable]).all()
    assert np.isfinite(found.emotion_embedding[usable]).all()
    assert found.trait_scores.shape[1] == 0 or np.isnan(found.trait_scores).all()
    assert found.manifest.width("trait_embedding") in (None, 0)
    for fold, run in enumerate(train_folds(world["emotion"], Synthetic(), *world["data"], 2)):
        sources = np.array(run.metrics["train_sources"]["feelings"], dtype=object)
        assert run.kind == "stage1" and len(sources) and (fold_of(sources, 2) != fold).all()


def test_an_unfinished_run_cannot_be_exported(world, tmp_path):
    run = Run.create(tmp_path / "run", kind="stage1", config=world["emotion"].config, resume=False)
    with pytest.raises(ConfigError, match="not a finished"):
        export(world, 0, tmp_path, run=run)


# --- batches and calibration ---------------------------------------------------------------------


def test_an_epoch_holds_every_clip_once_and_follows_seed_and_epoch(world):
    clips = gather(*world["data"], split="train")
    orders = [
        [b.indices.tolist() for b in shuffled_batches(clips, 16, seed=s, epoch=e)]
        for s, e in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert orders[0] == orders[1] and orders[0] != orders[2] and orders[0] != orders[3]
    assert sorted(index for batch in orders[0] for index in batch) == list(range(len(clips)))
    assert len(orders[0]) == steps_per_epoch(clips, 16)


def test_a_batch_over_two_stores_holds_each_clip_as_alone(world):
    clips = gather(*world["data"], split="val")
    chosen = np.array([0, len(clips) - 1, 5])
    batch = load_batch(clips, chosen)
    for row, index in enumerate(chosen):
        alone = load_batch(clips, np.array([index]))
        length = int(alone.mask.sum())
        assert torch.equal(batch.frames[row, :length], alone.frames[0])
        assert batch.mask[row].sum() == length and not batch.frames[row, length:].any()


@pytest.mark.parametrize("multi_label", [True, False])
def test_temperature_recovers_the_scale_of_overconfident_logits(multi_label):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20000, 7))
    if multi_label:
        targets = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    else:
        chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        drawn = (chance.cumsum(1) < random.random((len(logits), 1))).sum(1)
        targets = np.eye(7)[drawn]
    assert fit_temperature(3 * logits, targets, multi_label) == pytest.approx(3, rel=0.05)


def test_a_run_says_what_it_was_made_of(world):
    content = json.loads((world["both"].path / "config.json").read_text())
    assert content["encoder"] == SPEC and content["labels"]["emotion"][0] == "neutral"
    assert {c["name"] for c in content["corpora"]} == {"feelings", "people"}
    assert content["stage1"]["emotion"]["best_epoch"] == world["emotion"].metrics["best_epoch"]
