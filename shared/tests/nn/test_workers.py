"""A batch over threads: the same numbers, and nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mepr_shared.nn.workers import over_batch


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(x @ weight + bias)


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_values_and_gradients_are_those_of_a_direct_call(batch: int) -> None:
    shapes = ((batch, 5), (5, 4), (4,))
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    expected, found = affine(*inputs), over_batch(affine, *inputs)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    for direct, split in zip(
        torch.autograd.grad(expected, inputs, weight),
        torch.autograd.grad(found, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(split, direct)


def test_a_retained_graph_can_be_used_again() -> None:
    inputs = [torch.randn(*s, requires_grad=True) for s in ((7, 5), (5, 4), (4,))]
    y = over_batch(affine, *inputs)
    first = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
    second = torch.autograd.grad(2 * y.sum(), inputs)
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(two, 2 * one)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), inputs)


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight = torch.randn(4, 5), torch.randn(5, 4)
    bias = torch.zeros(4, requires_grad=True)
    over_batch(affine, x, weight, bias).sum().backward()
    assert bias.grad is not None
    assert x.grad is None
    assert weight.grad is None


def test_without_gradients_no_graph_is_built() -> None:
    tracked: list[bool] = []

    def record(x: Tensor, weight: Tensor) -> Tensor:
        tracked.append((x * weight).requires_grad)
        return x * weight

    with torch.no_grad():
        y = over_batch(record, torch.randn(6), torch.ones((), requires_grad=True))
    assert not y.requires_grad
    assert tracked == [False] * 3


def test_parts_run_on_workers_that_keep_to_one_core() -> None:
    seen: list[tuple[bool, int, int]] = []

    def record(x: Tensor) -> Tensor:
        name = threading.current_thread().name
        seen.append((name.startswith("mepr-nn"), torch.get_num_threads(), len(x)))
        return x

    x = torch.randn(7)
    assert torch.equal(over_batch(record, x), x)
    assert sorted(seen) == [(True, 1, 1), (True, 1, 3), (True, 1, 3)]


def test_torch_keeps_its_number_of_threads_here_and_in_new_threads() -> None:
    over_batch(torch.sin, torch.randn(6))
    found = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [3, 3]


def test_autocast_reaches_the_workers() -> None:
    x, weight = torch.randn(4, 5), torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert over_batch(torch.matmul, x, weight).dtype is torch.bfloat16
    assert over_batch(torch.matmul, x, weight).dtype is torch.float32


def test_repeated_runs_agree_to_the_bit() -> None:
    inputs = [torch.randn(*s, requires_grad=True) for s in ((50, 40), (40, 30), (30,))]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(over_batch(affine, *inputs).sum(), inputs)

    first = gradients()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, gradients(), strict=True))


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("no such clip")

    with pytest.raises(RuntimeError, match="no such clip"):
        over_batch(fail, torch.zeros(6))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_gets_workers_of_its_own() -> None:
    over_batch(torch.neg, torch.zeros(6))
    child = os.fork()
    if child == 0:
        result = over_batch(torch.neg, torch.ones(6))
        os._exit(0 if result.tolist() == [-1.0] * 6 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
