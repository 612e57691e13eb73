"""Standardised features: the training split's statistics, kept with the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mepr_shared.nn.spec_augment import SpecAugmentedEncoder
from mepr_shared.nn.standardise import StandardisedEncoder


class Passing(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x * mask.unsqueeze(-1)


def test_features_get_mean_zero_and_spread_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 50, 3) * torch.tensor([100.0, 1.0, 0.01]) + torch.tensor([5.0, 0.0, -7.0])
    encoder = StandardisedEncoder(Passing(), 3)
    encoder.set_statistics(x.mean(dim=(0, 1)), x.std(dim=(0, 1), correction=0))
    out = encoder(x, torch.ones(4, 50, dtype=torch.bool))
    torch.testing.assert_close(out.mean(dim=(0, 1)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_constant_dimension_stays_finite_and_statistics_travel_with_the_weights() -> None:
    encoder = StandardisedEncoder(Passing(), 2)
    encoder.set_statistics(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0]))
    copy = StandardisedEncoder(Passing(), 2)
    copy.load_state_dict(encoder.state_dict())
    x, mask = torch.full((1, 4, 2), 3.0), torch.ones(1, 4, dtype=torch.bool)
    assert torch.isfinite(encoder(x, mask)).all()
    torch.testing.assert_close(copy(x, mask), encoder(x, mask), rtol=0, atol=0)


@pytest.mark.parametrize(("time_mask", "feature_mask"), [(10, 0), (0, 20), (10, 20)])
def test_spec_augment_blanks_spans_in_training_only(time_mask: int, feature_mask: int) -> None:
    pytest.importorskip("torchaudio", reason="needs mepr-shared[augment]")
    encoder = SpecAugmentedEncoder(Passing(), time_mask=time_mask, feature_mask=feature_mask)
    x, mask = torch.ones(32, 100, 40), torch.ones(32, 100, dtype=torch.bool)
    torch.manual_seed(0)
    blank = encoder.train()(x, mask) == 0
    frames, features = blank.all(dim=2), blank.all(dim=1)
    assert frames.any() == bool(time_mask) and features.any() == bool(feature_mask)
    assert frames.sum(dim=1).max() <= time_mask and features.sum(dim=1).max() <= feature_mask
    # Whole frames and whole dimensions, nothing else; another span for every clip.
    assert (blank == (frames[:, :, None] | features[:, None])).all()
    assert len({tuple(row.tolist()) for row in blank.flatten(1)}) > 16
    assert not (encoder.eval()(x, mask) == 0).any()
