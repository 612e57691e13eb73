"""The fast causal convolution against torch's."""

from __future__ import annotations

import pytest
import torch

from mepr_shared.nn import convolution


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize(
    "steps", [1, 2, 3, 4, convolution.CHUNK, convolution.CHUNK + 2, 2 * convolution.CHUNK + 9]
)
def test_outputs_and_gradients_are_those_of_conv1d(steps: int, taps: int) -> None:
    shapes = ((3, steps, 6), (6, 1, taps), (6,))
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    expected = convolution.causal_conv_silu_reference(*inputs)
    found = convolution.causal_conv_silu(*inputs)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    for plain, fast in zip(
        torch.autograd.grad(expected, inputs, weight),
        torch.autograd.grad(found, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(fast, plain)


def test_gradients_are_those_of_finite_differences() -> None:
    shapes = ((2, 7, 3), (3, 1, 4), (3,))
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(convolution.causal_conv_silu, inputs)


def test_half_precision_is_computed_in_float32() -> None:
    x, weight, bias = (torch.randn(*s).bfloat16() for s in ((2, 9, 6), (6, 1, 4), (6,)))
    found = convolution.causal_conv_silu(x, weight, bias)
    expected = convolution.causal_conv_silu_reference(x.float(), weight.float(), bias.float())
    torch.testing.assert_close(found, expected.bfloat16())
