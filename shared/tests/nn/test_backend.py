"""The CUDA kernel is used only after it has been right, and only where it can run.

A stand-in for `mamba_ssm` with its signature (time last) runs on the CPU here.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from mepr_shared.nn import backend
from mepr_shared.nn.scan import selective_scan_chunked, selective_scan_reference

CPU = torch.device("cpu")


def kernel(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_softplus: bool,
) -> Tensor:
    assert delta_softplus
    assert u.dtype == delta.dtype == B.dtype == C.dtype == z.dtype != torch.float64
    y = selective_scan_reference(u.mT, delta.mT, A, B.mT, C.mT, D, z.mT).mT
    return y.to(u.dtype)


def wrong_gradient(u: Tensor, *args: Tensor, **kwargs: Tensor) -> Tensor:
    right = kernel(u, *args, **kwargs)  # type: ignore[arg-type]
    return right + (u - u.detach()) * 0.01


def failing(*args: Tensor, **kwargs: Tensor) -> Tensor:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Tensor]], None]]:
    def put(function: Callable[..., Tensor]) -> None:
        interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
        interface.selective_scan_fn = function  # type: ignore[attr-defined]
        for name in ("mamba_ssm", "mamba_ssm.ops"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, interface.__name__, interface)

    backend._cuda_backend.cache_clear()
    yield put
    backend._cuda_backend.cache_clear()


def test_on_a_cpu_the_chunked_scan_runs_whatever_is_installed(
    install: Callable[[Callable[..., Tensor]], None],
) -> None:
    install(kernel)
    found = backend.scan_backend(CPU)
    assert found.name == "chunked"
    assert "needs CUDA" in found.reason


def test_a_kernel_that_agrees_is_used_and_its_layout_adapted(
    install: Callable[[Callable[..., Tensor]], None],
) -> None:
    install(kernel)
    found = backend._cuda_backend(CPU)
    assert found.name == "mamba_ssm"
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 9, 4), (2, 9, 4), (4, 3), (2, 9, 3), (2, 9, 3), (4,), (2, 9, 4))
    inputs = [torch.randn(*s, generator=generator) for s in shapes]
    inputs[2] = -inputs[2].exp()
    torch.testing.assert_close(found.scan(*inputs), selective_scan_reference(*inputs))
    mixed = [inputs[0].bfloat16(), *inputs[1:]]
    assert found.scan(*mixed).dtype is torch.bfloat16
    double = [tensor.double() for tensor in inputs]
    torch.testing.assert_close(found.scan(*double), selective_scan_reference(*double))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda *args, **kwargs: kernel(*args, **kwargs) * 1.01, "its output differs"),
        (wrong_gradient, "its gradient of x differs"),
        (failing, "it fails: RuntimeError: no kernel image is available"),
        (lambda *args, **kwargs: kernel(*args, **kwargs) * torch.nan, "its output differs"),
    ],
)
def test_a_kernel_that_is_wrong_or_fails_is_not_used(
    function: Callable[..., Tensor],
    reason: str,
    install: Callable[[Callable[..., Tensor]], None],
) -> None:
    install(function)
    found = backend._cuda_backend(CPU)
    assert found.name == "chunked"
    assert found.scan is selective_scan_chunked
    assert reason in found.reason


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    backend._cuda_backend.cache_clear()
    found = backend._cuda_backend(CPU)
    backend._cuda_backend.cache_clear()
    assert found.name == "chunked"
    assert "mamba_ssm" in found.reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_backend_says_why() -> None:
    found = backend.scan_backend(torch.device("cuda"))
    assert found.name in ("mamba_ssm", "chunked")
    assert backend.probe(found.scan, torch.device("cuda")) is None
