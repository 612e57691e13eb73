"""Losses count where labels are, batches follow from seed and epoch, validation selects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mepr_fusion.data import resident
from mepr_fusion.join import Joined
from mepr_fusion.model import FusionModel
from mepr_fusion.settings import FusionEmotionLossSettings, FusionSettings
from mepr_fusion.task import FusionTask, Objectives, balanced_draw, labelled, predict
from mepr_fusion.train import build_objectives
from mepr_shared.errors import DataError
from mepr_shared.labels import EmotionScale
from mepr_shared.metrics import single_label_scores, trait_scores
from mepr_shared.objectives.emotion import EmotionObjective
from mepr_shared.objectives.traits import TraitObjective

SCALES = {"films": EmotionScale(), "talks": EmotionScale()}


def make_joined(count: int = 60) -> Joined:
    """Films have emotions, talks have traits, some samples have neither; modalities are missing."""
    random = np.random.default_rng(0)
    corpus_of = np.repeat([0, 1], [count // 3, count - count // 3]).astype(np.int32)
    present = random.uniform(size=(count, 2)) < 0.7
    present[:, 1] |= ~present.any(axis=1)
    emotion = np.eye(7, dtype=np.float32)[np.arange(count) % 7]
    emotion[corpus_of == 1] = np.nan
    traits = random.uniform(size=(count, 5)).astype(np.float32)
    traits[corpus_of == 0] = np.nan
    emotion[:3], traits[-3:] = np.nan, np.nan
    features = {
        name: random.normal(size=(count, 4)).astype(np.float32) for name in ("face", "text")
    }
    logits = random.normal(size=(count, 2, 7)).astype(np.float32)
    scores = random.uniform(size=(count, 2, 5)).astype(np.float32)
    for index, values in enumerate(features.values()):
        values[~present[:, index]] = np.nan
    logits[~present], scores[~present] = np.nan, np.nan
    return Joined(
        modalities=("face", "text"),
        widths={"face": (2, 2), "text": (2, 2)},
        corpora=("films", "talks"),
        corpus_of=corpus_of,
        rows=np.arange(count),
        splits=np.array(["train", "train", "val"] * (count // 3), dtype=object),
        source_ids=np.array([f"s{i // 2}" for i in range(count)], dtype=object),
        features=features,
        emotion_predictions=logits,
        trait_predictions=scores,
        present=present,
        emotion_targets=emotion,
        trait_targets=traits,
        multi_label=np.zeros(count, dtype=bool),
    )


def make_task(joined: Joined, **options) -> FusionTask:
    torch.manual_seed(0)
    model = FusionModel({"face": 4, "text": 4}, width=8, heads=2, dropout=0.0)
    return FusionTask(
        model,
        resident(joined, "cpu"),
        joined,
        SCALES,
        Objectives(EmotionObjective(), TraitObjective("mse"), 1.0, 2.0),
        **{"batch_size": 8, "seed": 0, **options},
    )


def test_an_epoch_holds_every_labelled_training_sample_once_and_only_those():
    joined = make_joined()
    task = make_task(joined)
    seen = torch.cat([batch.features["text"].nan_to_num() for batch in task.batches(1)])
    assert len(list(task.batches(1))) == task.steps_per_epoch
    rows = labelled(joined, "train")
    assert set(joined.splits[rows]) == {"train"}
    known = ~np.isnan(joined.emotion_targets).any(1) | ~np.isnan(joined.trait_targets).all(1)
    assert set(rows) == set(np.flatnonzero(known & (joined.splits == "train")))
    wanted = np.nan_to_num(joined.features["text"][rows])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_batches_follow_from_seed_and_epoch_alone():
    joined = make_joined()

    def order(seed, epoch):
        batches = make_task(joined, seed=seed).batches(epoch)
        return torch.cat([batch.features["text"].nan_to_num()[:, 0] for batch in batches])

    assert torch.equal(order(0, 1), order(0, 1))
    assert not torch.equal(order(0, 1), order(0, 2))
    assert not torch.equal(order(0, 1), order(1, 1))


def test_each_loss_is_over_the_samples_with_its_label():
    joined = make_joined()
    task = make_task(joined)
    task.model.eval()
    batch = task.data[torch.from_numpy(task.train_rows)]
    total, terms = task.loss(batch)
    outputs = predict(task.model, task.data, task.train_rows)
    emotion = joined.emotion_targets[task.train_rows]
    known = ~np.isnan(emotion).any(axis=1)
    logits = outputs.emotion_logits[known].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    cross_entropy = -(log_p * emotion[known]).sum(axis=1).mean()
    traits = joined.trait_targets[task.train_rows]
    square = np.nanmean((outputs.trait_scores - traits) ** 2)
    assert terms["emotion_loss"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert terms["trait_loss"].item() == pytest.approx(square, rel=1e-5)
    assert total.item() == pytest.approx(cross_entropy + 2 * square, rel=1e-5)


def test_a_task_without_a_label_in_the_batch_leaves_its_branch_alone():
    joined = make_joined()
    task = make_task(joined)
    rows = task.train_rows[joined.corpus_of[task.train_rows] == 0]
    task.loss(task.data[torch.from_numpy(rows)])[0].backward()
    model = task.model
    assert all(p.grad is None or (p.grad == 0).all() for p in model.traits.parameters())
    assert any((p.grad != 0).any() for p in model.emotion.parameters())


def test_validation_scores_are_the_metrics_of_the_validation_rows():
    joined = make_joined()
    task = make_task(joined)
    found = task.validate()
    films = labelled(joined, "val")
    films, talks = (films[joined.corpus_of[films] == number] for number in (0, 1))
    logits = predict(task.model, task.data, films).emotion_logits
    uar = single_label_scores(joined.emotion_targets[films], logits)["uar"]
    scores = predict(task.model, task.data, talks).trait_scores
    traits = trait_scores(joined.trait_targets[talks], scores)
    assert found["films/uar"] == pytest.approx(uar)
    assert found["talks/ccc"] == pytest.approx(traits["ccc"])
    assert found["talks/macc"] == pytest.approx(traits["macc"])
    classes = len(np.unique(joined.emotion_targets[films].argmax(axis=1)))
    gain = (uar - 1 / classes) / (1 - 1 / classes)
    assert found["score"] == pytest.approx((gain + traits["ccc"]) / 2)


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
def test_a_split_without_labels_is_refused(split):
    joined = make_joined()
    joined.splits[joined.splits == split] = "test"
    with pytest.raises(DataError, match=f"split '{split}'"):
        make_task(joined)


def test_class_weights_have_the_shift_as_their_optimum_and_mean_one():
    joined = make_joined()
    shift = {"softmax": np.array([0.0, 1, 2, 0, 0.5, 0, 3], np.float32), "sigmoid": np.full(7, 0.7)}
    settings = FusionSettings(emotion_loss=FusionEmotionLossSettings(label_smoothing=0.0))
    emotion = build_objectives(settings, joined, shift, "cpu").emotion
    found = emotion.prior_shift(False).numpy()
    np.testing.assert_allclose(found - found[0], shift["softmax"], atol=1e-5)
    np.testing.assert_allclose(emotion.prior_shift(True).numpy(), shift["sigmoid"], atol=1e-5)
    targets = joined.emotion_targets[labelled(joined, "train")]
    targets = targets[~np.isnan(targets).any(axis=1)]
    assert (targets @ emotion.class_weight.numpy()).mean() == pytest.approx(1, rel=1e-5)
