"""The fast scan against the plain one: outputs, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mepr_shared.nn import scan, tiles

NAMES = ("x", "dt", "A", "B", "C", "D", "gate")


def draw(
    batch: int, steps: int, channels: int, states: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch + steps)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    wide, narrow = (batch, steps, channels), (batch, steps, states)
    tensors = [normal(*wide), normal(*wide), -normal(channels, states).exp(), normal(*narrow)]
    tensors += [normal(*narrow), normal(channels), normal(*wide)]
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("steps", [1, 2, scan.CHUNK, scan.CHUNK + 1, 3 * scan.CHUNK + 5])
@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_and_gradients_are_those_of_the_plain_scan(batch: int, steps: int) -> None:
    inputs = draw(batch, steps, channels=6, states=4)
    expected = scan.selective_scan_reference(*inputs)
    found = scan.selective_scan_chunked(*inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    pairs = zip(
        NAMES,
        torch.autograd.grad(expected, inputs, weight),
        torch.autograd.grad(found, inputs, weight),
        strict=True,
    )
    for name, plain, fast in pairs:
        assert (fast - plain).norm() <= 1e-5 * plain.norm(), name


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = draw(3, scan.CHUNK + 3, channels=2, states=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(scan.selective_scan_chunked, inputs, fast_mode=True)


def test_without_gradients_the_result_is_the_same() -> None:
    inputs = draw(2, 40, channels=6, states=4)
    expected = scan.selective_scan_chunked(*inputs)
    with torch.no_grad():
        assert torch.equal(scan.selective_scan_chunked(*inputs), expected)


def test_a_batch_beyond_one_tile_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = draw(5, 30, channels=6, states=4)

    def value_and_gradients() -> list[Tensor]:
        y = scan.selective_scan_chunked(*inputs)
        return [y, *torch.autograd.grad(y.square().sum(), inputs)]

    whole = value_and_gradients()
    monkeypatch.setattr(tiles, "TILE", 2 * 6 * 4)  # two clips at a time
    for one, other in zip(whole, value_and_gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_strided_inputs_are_read_in_place() -> None:
    inputs = draw(2, 20, channels=6, states=4)
    both = torch.cat((inputs[0], inputs[6]), dim=-1).detach()
    strided = [both[..., :6], *inputs[1:6], both[..., 6:]]
    expected = scan.selective_scan_chunked(*inputs)
    torch.testing.assert_close(scan.selective_scan_chunked(*strided), expected)


def test_half_precision_is_computed_in_float32() -> None:
    rounded = [tensor.detach().bfloat16() for tensor in draw(2, 50, channels=6, states=4)]
    inputs = [tensor.clone().requires_grad_() for tensor in rounded]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scan.selective_scan_chunked(*inputs)
        y.float().sum().backward()
    assert y.dtype is torch.bfloat16
    expected = scan.selective_scan_reference(*(tensor.float() for tensor in rounded))
    torch.testing.assert_close(y, expected.bfloat16())
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


def test_extreme_steps_forget_or_keep_everything_without_nan() -> None:
    x, dt, A, B, C, D, gate = draw(1, 40, channels=3, states=2)
    for size in (-200.0, 200.0):
        inputs = (x, torch.full_like(dt, size).requires_grad_(), A, B, C, D, gate)
        y = scan.selective_scan_chunked(*inputs)
        torch.testing.assert_close(y, scan.selective_scan_reference(*inputs))
        assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), inputs))


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(item, Tensor):
                self.numel = max(self.numel, item.numel())
        return result


def test_the_states_of_all_steps_never_exist_at_once() -> None:
    batch, steps, channels, states = 2, 8 * scan.CHUNK, 8, 16
    inputs = draw(batch, steps, channels, states)
    with LargestTensor() as largest:
        scan.selective_scan_chunked(*inputs).sum().backward()
    recomputed = batch * (scan.CHUNK + 1) * channels * states
    assert largest.numel <= recomputed < batch * steps * channels * states / 4
