"""What every sequence encoder promises, with every pooling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mepr_shared.errors import ConfigError, DataError
from mepr_shared.nn.pooling import POOLINGS
from mepr_shared.nn.sequence import SEQUENCE_ENCODERS, build_sequence_encoder
from mepr_shared.nn.unimodal import UnimodalModel

VARIANTS: dict[str, dict[str, Any]] = {
    "mamba": {"kind": "mamba"},
    "mamba, both ways": {"kind": "mamba", "bidirectional": True},
    "transformer": {"kind": "transformer"},
    "transformer, learned positions": {"kind": "transformer", "positions": "learned"},
    "transformer, no positions": {"kind": "transformer", "positions": "none"},
}
LENGTHS = (19, 7, 1, 12)


def build(
    variant: str, pooling: str = "mean", *, dropout: float = 0.0, head_layers: int = 1
) -> UnimodalModel:
    torch.manual_seed(0)
    arguments = dict(VARIANTS[variant])
    encoder = build_sequence_encoder(
        arguments.pop("kind"),
        input_width=10,
        width=16,
        layers=2,
        dropout=dropout,
        input_dropout=dropout,
        **arguments,
    )
    return UnimodalModel(
        encoder, width=16, outputs=5, pooling=pooling, dropout=dropout, head_layers=head_layers
    )


def batch() -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    x = torch.randn(len(LENGTHS), max(LENGTHS), 10)
    return x.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def test_the_variants_cover_the_registry() -> None:
    assert {arguments["kind"] for arguments in VARIANTS.values()} == set(SEQUENCE_ENCODERS)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("variant", VARIANTS)
class TestEveryEncoder:
    def test_a_padded_batch_equals_the_clips_one_by_one(self, variant: str, pooling: str) -> None:
        model = build(variant, pooling).eval()
        x, mask = batch()
        together = model(x, mask)
        for row, length in enumerate(LENGTHS):
            alone = model(x[row : row + 1, :length], mask[row : row + 1, :length])
            assert (together.logits[row] - alone.logits[0]).abs().max() <= 1e-5
            assert (together.embedding[row] - alone.embedding[0]).abs().max() <= 1e-5
            assert (together.sequence[row, :length] - alone.sequence[0]).abs().max() <= 1e-5

    def test_what_stands_in_masked_steps_does_not_matter(self, variant: str, pooling: str) -> None:
        model = build(variant, pooling)
        x, mask = batch()
        mask[0, 4] = False  # a missing frame inside a clip
        clean, filled = (
            model(x.masked_fill(~mask.unsqueeze(-1), value), mask) for value in (0.0, torch.nan)
        )
        assert torch.equal(clean.logits, filled.logits)
        assert not clean.sequence[~mask].any()

    def test_permuting_the_batch_permutes_the_output(self, variant: str, pooling: str) -> None:
        model = build(variant, pooling).eval()
        x, mask = batch()
        order = torch.tensor([2, 0, 3, 1])
        expected = model(x, mask).logits[order]
        torch.testing.assert_close(model(x[order], mask[order]).logits, expected)

    def test_every_parameter_gets_a_gradient(self, variant: str, pooling: str) -> None:
        model = build(variant, pooling, head_layers=2)
        if pooling == "attention":  # starts at zero, where what is below it gets no gradient
            torch.nn.init.normal_(model.pooling.get_parameter("score.weight"))
        model(*batch()).logits.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_bf16_autocast_is_finite_and_close(self, variant: str, pooling: str) -> None:
        model = build(variant, pooling)
        x, mask = batch()
        expected = model(x, mask).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(x, mask).logits.float()
            found.square().sum().backward()
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    def test_a_clip_with_every_step_masked_is_refused(self, variant: str, pooling: str) -> None:
        x, mask = batch()
        mask[1] = False
        with pytest.raises(DataError, match=r"clips \[1\]"):
            build(variant, pooling)(x, mask)

    def test_a_saved_model_loads_into_a_new_one(self, variant: str, pooling: str) -> None:
        model, other = build(variant, pooling).eval(), build(variant, pooling).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        x, mask = batch()
        assert not torch.equal(model(x, mask).logits, other(x, mask).logits)
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(x, mask).logits, other(x, mask).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_live_in_training_and_dead_in_eval(variant: str) -> None:
    model = build(variant, dropout=0.5)
    x, mask = batch()
    assert not torch.equal(model(x, mask).logits, model(x, mask).logits)
    model.eval()
    assert torch.equal(model(x, mask).logits, model(x, mask).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_steps_matters_unless_positions_are_none(variant: str) -> None:
    x = torch.randn(1, 6, 10)
    mask = torch.ones(1, 6, dtype=torch.bool)
    model = build(variant).eval()
    difference = (model(x, mask).logits - model(x.flip(1), mask).logits).abs().max()
    if variant == "transformer, no positions":
        assert difference <= 1e-5
    else:
        assert difference > 1e-4


def test_a_clip_longer_than_the_learned_positions_is_refused_with_what_to_do() -> None:
    encoder = build_sequence_encoder(
        "transformer",
        input_width=4,
        width=8,
        layers=1,
        dropout=0.0,
        positions="learned",
        max_positions=5,
    )
    with pytest.raises(DataError, match="max_positions"):
        encoder(torch.randn(1, 6, 4), torch.ones(1, 6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("lstm", {}, "known: mamba, transformer"),
        ("mambo", {}, "did you mean 'mamba'"),
        ("transformer", {"positions": "sinusoid"}, "did you mean 'sinusoidal'"),
        ("transformer", {"heads": 3}, "not a multiple of heads 3"),
    ],
)
def test_what_cannot_be_built_is_refused(kind: str, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_sequence_encoder(kind, input_width=4, width=8, layers=1, dropout=0.0, **arguments)


def test_a_head_needs_a_layer() -> None:
    with pytest.raises(ConfigError, match="head_layers"):
        build("mamba", head_layers=0)
