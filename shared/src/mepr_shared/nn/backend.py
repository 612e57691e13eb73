"""Which code runs the selective scan on a device, and why."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mepr_shared.nn.scan import selective_scan_chunked, selective_scan_reference

# float32 sums in another order differ by less; a wrong kernel differs by far more.
PROBE_TOLERANCE = 1e-4


class ScanBackend(NamedTuple):
    """`name` is `"mamba_ssm"` or `"chunked"`; `reason` is for people; `scan` runs it."""

    name: str
    reason: str
    scan: Callable[..., Tensor]


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, gate: Tensor
) -> Tensor:
    """The selective scan on the best backend of `x`'s device.

    Arguments and result are those of `mepr_shared.nn.scan.selective_scan_reference`.
    """
    return scan_backend(x.device).scan(x, dt, A, B, C, D, gate)


def scan_backend(device: torch.device) -> ScanBackend:
    """What runs the scan on `device`: mamba_ssm's CUDA kernel where it is installed and a probe
    finds its results and gradients right, otherwise the chunked scan, which runs anywhere."""
    if device.type != "cuda":
        return _chunked(f"the kernel of mamba_ssm needs CUDA, this is {device.type}")
    return _cuda_backend(device)


@cache
def _cuda_backend(device: torch.device) -> ScanBackend:
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except (ImportError, OSError) as error:
        # OSError: a build for another CUDA or torch fails when its library is loaded.
        return _chunked(f"mamba_ssm cannot be imported: {error}")
    scan = _adapt(module.selective_scan_fn)
    problem = probe(scan, device)
    if problem is not None:
        return _chunked(f"mamba_ssm is installed, but {problem}")
    return ScanBackend("mamba_ssm", "its results and gradients agree with the plain scan", scan)


def probe(scan: Callable[..., Tensor], device: torch.device) -> str | None:
    """Run `scan` forward and backward on a small case, compare with the plain scan.

    Returns:
        None if output and all gradients agree, else what is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    batch, steps, channels, states = 2, 19, 8, 16

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    inputs = [draw(batch, steps, channels), draw(batch, steps, channels)]
    inputs += [-draw(channels, states).exp(), draw(batch, steps, states)]
    inputs += [draw(batch, steps, states), draw(channels), draw(batch, steps, channels)]
    weight = draw(batch, steps, channels)
    try:
        found = _value_and_gradients(scan, inputs, weight)
    except (RuntimeError, TypeError, ValueError) as error:
        return f"it fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    expected = _value_and_gradients(selective_scan_reference, inputs, weight)
    names = ("output", *(f"gradient of {n}" for n in ("x", "dt", "A", "B", "C", "D", "gate")))
    for name, ours, theirs in zip(names, expected, found, strict=True):
        difference = float((theirs - ours).norm() / ours.norm())
        if not difference <= PROBE_TOLERANCE:
            return f"its {name} differs from the plain scan by {difference:.1e}"
    return None


def _value_and_gradients(
    scan: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor
) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        y = scan(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, weight)]


def _adapt(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`mamba_ssm`'s function takes time last, one dtype for what varies with time, no float64."""

    def scan(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, gate: Tensor
    ) -> Tensor:
        if x.dtype is torch.float64:
            return selective_scan_chunked(x, dt, A, B, C, D, gate)
        dt, B, C, gate = (tensor.to(x.dtype).mT for tensor in (dt, B, C, gate))
        y = kernel(x.mT, dt, A.float(), B, C, D=D.float(), z=gate, delta_softplus=True)
        return y.mT

    return scan


def _chunked(reason: str) -> ScanBackend:
    return ScanBackend("chunked", reason, selective_scan_chunked)
