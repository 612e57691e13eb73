"""Batches and training statistics of a joined table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mepr_fusion import data as data_module
from mepr_fusion.answers import answer
from mepr_fusion.data import FusionBatch, fit_statistics, moments, resident, standardise
from mepr_fusion.join import Joined
from mepr_fusion.model import FusionModel


def make_batch(count: int = 40) -> FusionBatch:
    random = torch.Generator().manual_seed(0)
    present = torch.rand(count, 2, generator=random) < 0.7
    present[:, 0] |= ~present.any(dim=1)
    features = {
        "face": torch.randn(count, 4, generator=random) * 3 + 100,
        "text": torch.randn(count, 6, generator=random),
    }
    features["face"][::5, 2:] = torch.nan  # half of the features: one embedding is missing
    emotion = torch.randn(count, 2, 7, generator=random)
    traits = torch.rand(count, 2, 5, generator=random)
    for index, values in enumerate(features.values()):
        values[~present[:, index]] = torch.nan
    emotion[~present] = torch.nan
    traits[~present] = torch.nan
    none = torch.full((count, 7), torch.nan)
    kinds = torch.zeros(count, dtype=torch.bool)
    corpus = torch.arange(count) % 3
    return FusionBatch(features, emotion, traits, present, none, none[:, :5], kinds, corpus)


@pytest.mark.parametrize("chunk", [1 << 24, 10])
def test_moments_are_those_of_numpy_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(data_module, "CHUNK_VALUES", chunk)
    # Far from zero: a difference of squares in float32 would lose every digit.
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) + 1e4
    values[::3, 1] = torch.nan
    values[:, 3] = torch.nan
    rows = torch.arange(0, 50, 2)
    mean, std = moments(values, rows)
    chosen = values[rows].double().numpy()[:, :3]
    np.testing.assert_allclose(mean[:3], np.nanmean(chosen, axis=0), rtol=1e-6)
    np.testing.assert_allclose(std[:3], np.nanstd(chosen, axis=0), rtol=1e-4)
    assert mean[3] == 0 and std[3] == 0


def test_statistics_are_of_the_given_rows_where_the_modality_is_present():
    batch = make_batch()
    model = FusionModel({"face": 4, "text": 6}, width=8, heads=2)
    rows = torch.arange(30)
    fit_statistics(model, batch, rows)
    for index, (name, values) in enumerate(batch.features.items()):
        chosen = values[rows][batch.present[rows, index]].numpy()
        found = model.projector.projectors[name].standardise
        np.testing.assert_allclose(found.mean, np.nanmean(chosen, axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.std, np.nanstd(chosen, axis=0), rtol=1e-5)
    averages = np.nanmean(batch.emotion_predictions[rows].numpy(), axis=1)
    centre = model.emotion.predict_projector.standardise
    np.testing.assert_allclose(centre.mean, averages.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(centre.std, averages.std(axis=0), rtol=1e-4)


def test_statistics_travel_with_the_weights():
    batch = make_batch()
    model = FusionModel({"face": 4, "text": 6}, width=8, heads=2)
    fit_statistics(model, batch, torch.arange(40))
    other = FusionModel({"face": 4, "text": 6}, width=8, heads=2)
    other.load_state_dict(model.state_dict())
    mean = other.projector.projectors["face"].standardise.mean
    assert mean.mean() > 50


def test_a_model_over_half_missing_features_stays_finite():
    batch = make_batch()
    model = FusionModel({"face": 4, "text": 6}, width=8, heads=2).eval()
    fit_statistics(model, batch, torch.arange(40))
    output = model(*batch.inputs)
    assert torch.isfinite(output.emotion_logits).all() and torch.isfinite(output.trait_scores).all()


def test_rows_of_a_batch_stay_together():
    batch = make_batch()
    rows = torch.tensor([7, 3])
    some = batch[rows]
    assert len(some) == 2 and some.corpus.tolist() == [1, 0]
    torch.testing.assert_close(some.present, batch.present[rows])
    torch.testing.assert_close(some.features["text"], batch.features["text"][rows], equal_nan=True)
    torch.testing.assert_close(
        some.trait_predictions, batch.trait_predictions[rows], equal_nan=True
    )


@pytest.mark.parametrize("chunk", [1 << 14, 7])
def test_samples_standardised_once_answer_as_raw_ones(chunk, monkeypatch):
    monkeypatch.setattr(data_module, "CHUNK_ROWS", chunk)
    raw, batch = make_batch(), make_batch()
    model = FusionModel({"face": 4, "text": 6}, width=8, heads=2).eval()
    fit_statistics(model, raw, torch.arange(40))
    done = standardise(model, batch)
    assert done.standardised and not raw.standardised
    for index, values in enumerate(done.features.values()):
        assert torch.isfinite(values).all() and (values[~done.present[:, index]] == 0).all()
    rows = torch.tensor([5, 0, 21])
    for first, second in zip(
        answer(model, raw[rows])[:5], answer(model, done[rows])[:5], strict=True
    ):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("halves", "chosen"), [("emotion", [0, 1]), ("traits", [2]), ("both", [0, 1, 2])]
)
def test_only_the_chosen_halves_are_features(halves, chosen):
    features = {"face": np.arange(12, dtype=np.float32).reshape(4, 3)}
    joined = Joined(
        modalities=("face",),
        widths={"face": (2, 1)},
        corpora=("films",),
        corpus_of=np.zeros(4, np.int32),
        rows=np.arange(4),
        splits=np.array(["train"] * 4, dtype=object),
        source_ids=np.array(list("abcd"), dtype=object),
        features=features,
        emotion_predictions=np.zeros((4, 1, 7), np.float32),
        trait_predictions=np.zeros((4, 1, 5), np.float32),
        present=np.ones((4, 1), bool),
        emotion_targets=np.zeros((4, 7), np.float32),
        trait_targets=np.zeros((4, 5), np.float32),
        multi_label=np.zeros(4, bool),
        prior_shift=np.zeros((1, 7), np.float32),
    )
    found = resident(joined, "cpu", halves=halves).features["face"]
    np.testing.assert_array_equal(found.numpy(), features["face"][:, chosen])
