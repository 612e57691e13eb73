"""The Mamba block against transformers' MambaMixer, and what its encoder does with masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mepr_shared.nn.mamba import Mamba, MambaEncoder

WIDTH, BATCH, STEPS = 32, 4, 41


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pair() -> tuple[Mamba, nn.Module]:
    """Our block and transformers' with the same weights, away from their initial values."""
    modeling = pytest.importorskip(
        "transformers.models.mamba.modeling_mamba", reason="transformers is not installed"
    )
    config = modeling.MambaConfig(
        hidden_size=WIDTH, state_size=16, expand=2, conv_kernel=4, num_hidden_layers=1
    )
    torch.manual_seed(0)
    theirs: Any = modeling.MambaMixer(config, layer_idx=0).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = Mamba(WIDTH, state_size=16, expand=2, conv_width=4)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def right_padded() -> Tensor:
    lengths = torch.tensor([STEPS, 17, 1, 30])
    return torch.arange(STEPS) < lengths[:, None]


@pytest.mark.parametrize("mask", [None, right_padded()], ids=["unmasked", "right-padded"])
def test_outputs_and_all_gradients_are_those_of_mamba_mixer(
    pair: tuple[Mamba, nn.Module], mask: Tensor | None
) -> None:
    ours, theirs = pair
    valid = torch.ones(BATCH, STEPS, dtype=torch.bool) if mask is None else mask
    data = torch.randn(BATCH, STEPS, WIDTH)
    weight = torch.randn(BATCH, STEPS, WIDTH) * valid.unsqueeze(-1)
    inputs = [data.clone().requires_grad_() for _ in range(2)]
    found = ours(inputs[0])
    expected = theirs(inputs[1], attention_mask=mask)
    assert (found - expected)[valid].abs().max() <= 1e-5
    for y in (found, expected):
        (y * weight).sum().backward()
    gradients = {"input": (inputs[0].grad, inputs[1].grad)}
    reference = dict(theirs.named_parameters())
    gradients |= {name: (p.grad, reference[name].grad) for name, p in ours.named_parameters()}
    assert len(gradients) == 10
    for name, (ours_, theirs_) in gradients.items():
        assert ours_ is not None
        assert theirs_ is not None
        assert (ours_ - theirs_).norm() <= 1e-5 * theirs_.norm(), name


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    shapes = {name: tuple(p.shape) for name, p in Mamba(64).named_parameters()}
    assert shapes == {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (4 + 2 * 16, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }


def test_it_starts_with_s4d_decays_and_steps_between_a_thousandth_and_a_tenth() -> None:
    block = Mamba(64)
    torch.testing.assert_close(block.A_log.exp(), torch.arange(1.0, 17.0).expand(128, 16))
    step = nn.functional.softplus(block.dt_proj.bias)
    assert step.min() >= 1e-3 * 0.99
    assert step.max() <= 1e-1 * 1.01


def test_no_step_depends_on_a_later_one_and_every_step_on_the_first() -> None:
    block = Mamba(WIDTH)
    x = torch.randn(2, 20, WIDTH, requires_grad=True)
    y = block(x)
    for t in (0, 7, 19):
        (gradient,) = torch.autograd.grad(y[:, t].square().sum(), x, retain_graph=t < 19)
        reached = gradient.abs().amax(dim=(0, 2))
        assert (reached[: t + 1] > 0).all()
        assert not reached[t + 1 :].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_prediction_gives_what_training_sees(mode: Any) -> None:
    block, x = Mamba(WIDTH), torch.randn(3, 20, WIDTH)
    expected = block(x)
    with mode():
        assert torch.equal(block(x), expected)
        assert torch.equal(block(x.clone()), expected)


def test_it_works_in_double_precision() -> None:
    block = Mamba(8, state_size=2).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


def encoder(*, bidirectional: bool) -> MambaEncoder:
    torch.manual_seed(0)
    return MambaEncoder(
        input_width=6, width=16, layers=2, dropout=0.0, bidirectional=bidirectional
    ).eval()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_masked_steps_anywhere_are_as_if_cut_out(bidirectional: bool) -> None:
    model = encoder(bidirectional=bidirectional)
    x = torch.randn(3, 12, 6)
    mask = torch.rand(3, 12) < 0.6
    mask[:, 5] = True
    mask[0, 0] = mask[1, 11] = False
    encoded = model(x, mask)
    assert not encoded[~mask].any()
    for row in range(3):
        kept = x[row, mask[row]].unsqueeze(0)
        alone = model(kept, torch.ones(kept.shape[:2], dtype=torch.bool)).squeeze(0)
        torch.testing.assert_close(encoded[row, mask[row]], alone, atol=1e-5, rtol=0)


def test_masked_steps_get_no_gradient_and_valid_ones_do() -> None:
    x = torch.randn(2, 9, 6, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 1, 0, 0, 0]]).bool()
    encoder(bidirectional=False)(x, mask).square().sum().backward()
    assert x.grad is not None
    assert not x.grad[~mask].any()
    assert (x.grad[mask].abs().sum(-1) > 0).all()


def test_the_backward_block_sees_what_comes_later_and_has_weights_of_its_own() -> None:
    forward_only, both = encoder(bidirectional=False), encoder(bidirectional=True)
    x = torch.randn(1, 8, 6, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]]).bool()
    seen = [
        torch.autograd.grad(m(x, mask)[0, 2].square().sum(), x)[0][0].abs().sum(-1) > 0
        for m in (forward_only, both)
    ]
    assert seen[0].tolist() == [True] * 3 + [False] * 5
    assert seen[1].tolist() == [True] * 6 + [False] * 2
    names = {name for name, _ in both.named_parameters()}
    assert "layers.0.backward_block.in_proj.weight" in names
    assert len(names) > len(list(forward_only.parameters()))
