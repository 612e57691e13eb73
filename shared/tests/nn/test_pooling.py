"""Pooling: over valid steps, and over nothing else."""

from __future__ import annotations

import pytest
import torch

from mepr_shared.errors import ConfigError
from mepr_shared.nn.pooling import POOLINGS, AttentivePooling, build_pooling, masked_mean


def test_masked_mean_is_the_mean_of_the_valid_steps() -> None:
    x = torch.randn(3, 7, 4)
    mask = torch.rand(3, 7) < 0.6
    mask[:, 0] = True
    expected = torch.stack([row[valid].mean(0) for row, valid in zip(x, mask, strict=True)])
    torch.testing.assert_close(masked_mean(x, mask), expected)


@pytest.mark.parametrize("kind", POOLINGS)
def test_masked_steps_do_not_matter_not_even_nan(kind: str) -> None:
    pooling = build_pooling(kind, 4)
    x = torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    expected = pooling(x, mask)
    assert torch.equal(pooling(x.masked_fill(~mask.unsqueeze(-1), torch.nan), mask), expected)


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_row_without_a_valid_step_gives_zeros_not_nan(kind: str) -> None:
    pooled = build_pooling(kind, 4)(torch.randn(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(pooled, torch.zeros(1, 4))


def test_masked_mean_of_many_half_precision_steps_keeps_its_precision() -> None:
    x = torch.ones(1, 4096, 1, dtype=torch.bfloat16)
    mean = masked_mean(x, torch.ones(1, 4096, dtype=torch.bool))
    assert mean.dtype is torch.bfloat16
    assert mean.item() == 1.0


def test_attention_starts_as_the_mean_and_its_weights_sum_to_one() -> None:
    pooling = AttentivePooling(4)
    x = torch.randn(2, 6, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 1]], dtype=torch.bool)
    torch.testing.assert_close(pooling(x, mask), masked_mean(x, mask))
    torch.nn.init.normal_(pooling.score.weight)
    weights = pooling.weights(x, mask)
    assert not weights[~mask].any()
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert not torch.allclose(pooling(x, mask), masked_mean(x, mask), atol=1e-3)


def test_an_unknown_pooling_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="attention"):
        build_pooling("atention", 4)
