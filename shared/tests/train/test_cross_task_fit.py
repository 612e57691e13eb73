"""Stage 2 with labels missing: who gets a pseudo-label, and what a hidden label can never do."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mepr_shared.cli.modality import run as run_cli
from mepr_shared.config import build
from mepr_shared.contract.frames import FrameStore
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EMOTIONS, TASKS, EmotionScale
from mepr_shared.objectives.emotion import EmotionObjective
from mepr_shared.objectives.pseudo_labels import published_trait_labels
from mepr_shared.objectives.traits import TraitObjective
from mepr_shared.testing.toy_modalities import ToyTextModality
from mepr_shared.testing.toy_stages import toy_corpus, toy_run
from mepr_shared.train.clip_task import Objectives
from mepr_shared.train.clips import ClipSet, gather
from mepr_shared.train.cross_task_fit import CrossTaskFit, hide_labels
from mepr_shared.train.frozen import answer_frozen, frozen_clips
from mepr_shared.train.limits import check_joint
from mepr_shared.train.models import build_cross_task, build_unimodal
from mepr_shared.train.runs import Run
from mepr_shared.train.settings import CrossTaskSettings, ModelSettings, Stage2Settings

WIDTH = 6
SEMI = {"positive": 0.2, "negative": 0.4, "warmup": 1, "dropout_passes": 3}
SSL = {"ssl": True, "hidden_labels": 0.5, "fit": {"batch_size": 16}}
CORPORA = ("films", "talks")


class Store:
    """Frames in memory."""

    width = WIDTH

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self.frames[rows]
        return found, np.ones(found.shape[:2], dtype=bool)


def clips(count: int, seed: int) -> ClipSet:
    """Every second clip is multi-label; one in five has no trait label to begin with."""
    random = np.random.default_rng(seed)
    emotion = np.eye(7, dtype=np.float32)[random.integers(0, 7, count)]
    traits = random.uniform(0.2, 0.8, (count, 5)).astype(np.float32)
    traits[::5] = np.nan
    number = np.arange(count)
    return ClipSet(
        [Store(random.normal(size=(count, 3, WIDTH)).astype(np.float32))] * 2,
        list(CORPORA),
        number % 2,
        number,
        np.full(count, 3),
        [f"c{i}" for i in number],
        np.array([f"s{i}" for i in number], dtype=object),
        emotion,
        traits,
        number % 2 == 1,
    )


def make_fit(folder, *, positive_weight: float = 1.0, **options) -> CrossTaskFit:
    """Random stage-1 models, 96 training and 40 validation clips; the teacher is no copy."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = build(Stage2Settings, {**SSL, "semi": SEMI}, options)
    shape = ModelSettings(width=8, heads=2, feedforward=16)
    parts = [build_unimodal(shape, input_width=WIDTH, task=task) for task in TASKS]
    with torch.no_grad():
        for part in parts:
            part.head[-1].weight.normal_(std=0.5)
    model = build_cross_task(CrossTaskSettings(width=8, heads=2, dropout=0.3), *parts)
    here = {"batch_size": 32, "device": "cpu"}
    train, val = (frozen_clips(model, clips(n, s), folder, **here) for n, s in ((96, 0), (40, 1)))
    weight = np.geomspace(1, positive_weight, 7).astype(np.float32)
    objectives = Objectives(
        EmotionObjective(pos_weight=weight, class_weight=weight), TraitObjective("mae")
    )
    scales = [EmotionScale(), EmotionScale("multi_label")]
    fit = CrossTaskFit(model, train, val, scales, objectives, settings, "cpu")
    if fit.joint.teacher is not None:
        with torch.no_grad():
            for parameter in fit.joint.teacher.averaged:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return fit


def taught(fit: CrossTaskFit, epoch: int = 2):
    """Every batch of an epoch with its pseudo-labels, their log, and the teacher's raw answer."""
    torch.manual_seed(0)
    for batch in fit.batches(epoch):
        with torch.no_grad():
            answer = answer_frozen(fit.joint.teacher.model, batch)
        yield batch, *fit._pseudo_labels(batch), answer


def odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


@pytest.mark.parametrize("positive_weight", [1.0, 50.0])
def test_emotion_labels_are_by_thresholds_on_probabilities_without_the_weights_shift(
    tmp_path, positive_weight
):
    fit = make_fit(tmp_path, positive_weight=positive_weight)
    shift = np.log(np.geomspace(1, positive_weight, 7))
    seen = 0
    for batch, emotion, _, _, answer in taught(fit):
        logits = answer.emotion_logits.double().numpy() - shift
        chance = 1 / (1 + np.exp(-logits))
        by_class = np.where(chance > 0.2, 1.0, np.where(chance < 0.4, 0.0, np.nan))
        soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        sure = soft.max(1, keepdims=True) > 0.2
        one_hot = np.where(sure, soft == soft.max(1, keepdims=True), np.nan)
        expected = np.where(batch.multi_label.numpy()[:, None], by_class, one_hot)
        np.testing.assert_array_equal(emotion.numpy(), expected)
        seen += len(batch.indices)
    assert seen == len(fit.rows)


def test_trait_labels_are_rescaled_scores_where_passes_with_dropout_agree(tmp_path):
    fit = make_fit(tmp_path)
    kept = total = 0
    for _, _, traits, _, answer in taught(fit):
        scale, scores = fit.scale, answer.trait_scores
        stretched = (scores - scale.teacher_mean) / scale.teacher_std * scale.label_std
        expected = (stretched + scale.label_mean).clamp(0, 1)
        sure = ~traits.isnan()
        torch.testing.assert_close(traits[sure], expected[sure])
        kept, total = kept + sure.sum().item(), total + sure.numel()
    assert 0.3 < kept / total < 0.7  # the limit is the validation median
    labels = fit.trait_clips.trait_targets
    np.testing.assert_allclose(fit.scale.label_mean, labels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fit.scale.label_std, labels.std(0), rtol=1e-4)


def test_the_published_rule_for_traits(tmp_path):
    for _, _, traits, _, answer in taught(make_fit(tmp_path, pseudo="published")):
        expected = published_trait_labels(answer.trait_scores)
        torch.testing.assert_close(traits, expected, equal_nan=True)


def test_a_row_with_a_label_has_no_part_in_the_semi_supervised_term(tmp_path):
    fit = make_fit(tmp_path)
    given = []
    total = fit.joint.total

    def watched(terms):
        given.append(terms)
        return total(terms)

    fit.joint.total = watched
    for batch in fit.batches(2):
        fit.loss(batch)
        terms = given[-1]
        for task, targets in (("emotion", batch.emotion), ("traits", batch.traits)):
            labelled = ~targets.isnan().all(1)
            assert torch.equal(terms[task].rows, labelled)
            assert not (terms[task + "_semi"].rows & labelled).any()
    for task in TASKS:
        assert any(terms[task + "_semi"].rows.any() for terms in given)


@pytest.mark.parametrize("share", [0.0, 0.25, 9.0])
def test_clips_without_any_label_are_capped_and_drawn_anew(tmp_path, share):
    fit = make_fit(tmp_path, semi={**SEMI, "unlabelled": share})
    epochs = []
    for epoch in (1, 2):
        batches = list(fit.batches(epoch))
        rows = np.concatenate([fit.rows[batch.indices] for batch in batches])
        assert len(batches) == fit.steps_per_epoch and len(set(rows)) == len(rows)
        assert set(fit.labelled) <= set(rows)
        epochs.append(set(rows) - set(fit.labelled))
        most = int(share * len(fit.labelled))
        assert len(epochs[-1]) == min(most, len(fit.unlabelled))
    assert (epochs[0] == epochs[1]) == (share != 0.25)


@pytest.mark.parametrize("options", [{"pseudo": "off"}, {"semi": {**SEMI, "weight": 0.0}}])
def test_without_pseudo_labels_no_clip_is_drawn_in_vain(tmp_path, options):
    fit = make_fit(tmp_path, **options)
    drawn = {int(row) for _ in fit.batches(2) for row in fit.rows}
    assert drawn == set(fit.labelled) and len(fit.unlabelled)


def test_before_the_warm_up_is_over_there_is_no_pseudo_label(tmp_path):
    fit = make_fit(tmp_path, semi={**SEMI, "warmup": 2})
    for epoch, expected in ((1, False), (2, False), (3, True)):
        for batch in fit.batches(epoch):
            _, log = fit.loss(batch)
            assert ("pseudo/emotion_rate" in log) == expected
            assert expected or log["loss/emotion_semi"].isnan()


def test_a_hidden_label_reaches_the_log_and_nothing_else(tmp_path):
    def losses(change: bool) -> tuple[list[float], list[float]]:
        fit = make_fit(tmp_path)
        if change:
            fit.hidden = {name: 1 - values for name, values in fit.hidden.items()}
        torch.manual_seed(0)
        found = [fit.loss(batch) for batch in fit.batches(2)]
        return [loss.item() for loss, _ in found], [
            log["pseudo/emotion_agreement"].item() for _, log in found
        ]

    first, second = losses(False), losses(True)
    assert first[0] == second[0]
    assert not np.array_equal(first[1], second[1], equal_nan=True)


def test_the_same_labels_are_hidden_with_and_without_ssl(tmp_path):
    first, second = make_fit(tmp_path), make_fit(tmp_path, ssl=False)
    names = [fit.train_clips.sample_ids for fit in (first, second)]
    kept = [names[0].index(name) for name in names[1]]
    assert set(kept) == set(first.labelled)
    for task in ("emotion_targets", "trait_targets"):
        ours, theirs = (getattr(fit.train_clips, task) for fit in (first, second))
        np.testing.assert_array_equal(ours[kept], theirs)


def test_the_share_of_each_emotion_is_logged_beside_that_among_labels(tmp_path):
    fit = make_fit(tmp_path)
    visible = fit.train_clips.emotion_targets
    known = visible[~np.isnan(visible).any(1)]
    assert len(known) < 60  # half are hidden
    for batch, emotion, _, log, _ in taught(fit):
        free = batch.emotion.isnan().any(1).numpy()
        given = emotion.numpy()[free]
        for number, name in enumerate(EMOTIONS):
            labels = given[:, number][~np.isnan(given[:, number])]
            expected = labels.mean() if len(labels) else np.nan
            found = log[f"pseudo/positive_{name}"].item()
            assert found == pytest.approx(expected, nan_ok=True)
            assert log[f"pseudo/labelled_{name}"].item() == pytest.approx(known[:, number].mean())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weighting": "gradnorm", "gradnorm": {"floor": 1.5}}, "gradnorm.floor = 1.5"),
        (
            {"weighting": "gradnorm", "gradnorm": {"floor": 0.5}, "ssl": True},
            r"gradnorm.floor = 0.5 is not in \[1e-09, 0.4\]",
        ),
        ({"weighting": "gradnorm", "gradnorm": {"first_steps": 0}}, "is not 1 or more"),
        ({"ssl": True, "semi": {"dropout_passes": 1}}, "is not 2 or more"),
        ({"ssl": True, "semi": {"negative": 0.7}}, "semi.negative"),
        ({"ssl": True, "semi": {"unlabelled": -1.0}}, "semi.unlabelled"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        check_joint(build(Stage2Settings, given))


def test_limits_that_are_not_read_do_not_matter():
    check_joint(build(Stage2Settings, {"semi": {"dropout_passes": 1}, "gradnorm": {"floor": 9.0}}))


def test_hiding_every_label_is_refused(tmp_path):
    with pytest.raises(DataError, match="no training clip has a label left"):
        make_fit(tmp_path, hidden_labels=0.999999)


def test_through_the_command_line(tmp_path, capsys):
    """`train stage2 --set ssl=on weighting=gradnorm`; constants are of the labels that are left."""
    torch.set_num_threads(1)
    profile = tmp_path / "small.toml"
    profile.write_text("[encoder]\n")
    modality = ToyTextModality("text", profiles={"small": profile})
    corpora = [
        toy_corpus(tmp_path, "films"),
        toy_corpus(tmp_path, "talks", multi_label=True, traits=False),
    ]
    data = ["--store", str(tmp_path / "store")]
    for name in CORPORA:
        data += ["--corpus", str(tmp_path / f"{name}.parquet")]
    assert run_cli(modality, "0", ["extract", *data]) == 0
    for task in TASKS:
        stage1 = toy_run(tmp_path / task, modality, task=task)
        stage1.finish({**stage1.metrics, "best_epoch": 1, "constants": {}})
    train = ["train", "stage2", *data, *(f"--{task}-run={tmp_path / task}" for task in TASKS)]
    options = ("ssl=on", "weighting=gradnorm", "gradnorm.first_steps=1", "hidden_labels=0.4")
    quick = ("fit.epochs=2", "fit.batch_size=8", "model.width=8", "model.heads=2")
    where = ["--run", str(tmp_path / "run")]
    assert run_cli(modality, "0", [*train, *where, "--set", *options, *quick]) == 0
    run = Run.load(tmp_path / "run")
    settings = build(Stage2Settings, run.config["settings"])
    assert settings.ssl and settings.weighting == "gradnorm"
    steps = pq.read_table(run.path / "steps" / "epoch-0002.parquet")
    terms = ("emotion", "traits", "emotion_semi", "traits_semi")
    wanted = {f"{kind}/{name}" for kind in ("loss", "weight", "gradient_norm") for name in terms}
    assert wanted | {"pseudo/emotion_rate", "pseudo/positive_anger"} <= set(steps.column_names)
    weights = steps["weight/emotion"].to_numpy() + steps["weight/traits"].to_numpy()
    np.testing.assert_allclose(weights, 2, rtol=1e-5)
    stores = [FrameStore.find(tmp_path / "store", name, "text") for name in CORPORA]
    every = gather(corpora, stores, split="train", labelled_for=())
    visible, _ = hide_labels(every, settings)
    left = np.nanmean(visible.trait_targets, axis=0)
    assert not np.allclose(left, np.nanmean(every.trait_targets, axis=0))
    np.testing.assert_allclose(run.metrics["constants"]["trait_mean"], left, rtol=1e-5)
    # What cannot work is refused before there is a run.
    refused = ["--run", str(tmp_path / "no"), "--set", "weighting=gradnorm", "gradnorm.floor=3"]
    assert run_cli(modality, "0", [*train, *refused]) == 2
    assert "gradnorm.floor = 3" in capsys.readouterr().err and not (tmp_path / "no").exists()
