"""The causal depthwise convolution of a Mamba block, with its SiLU: a plain and a fast form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mepr_shared.nn.tiles import run_tiles

# Steps handled at once; with a few clips they fit a core's cache.
CHUNK = 64


def causal_conv_silu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`silu(bias + sum_k weight_k x_(t-K+1+k))`: a step sees itself and the K-1 before it.

    Args:
        x: `[B, T, D]`.
        weight: `[D, 1, K]`, as `nn.Conv1d(D, D, K, groups=D)` holds it.
        bias: `[D]`.

    Returns:
        `[B, T, D]`.
    """
    padded = functional.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0))
    return functional.silu(functional.conv1d(padded, weight, bias, groups=len(weight))).mT


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv_silu_reference`, fast on a CPU: same arguments, result and gradients.

    There half-precision inputs are computed in float32, the result has the dtype of `x`, and
    gradients of gradients are not available. Other devices have a good convolution of their own.
    """
    if x.device.type != "cpu":
        return causal_conv_silu_reference(x, weight, bias)
    compute = torch.promote_types(x.dtype, torch.float32)
    return _CausalConvSilu.apply(x.to(compute), weight.to(compute), bias.to(compute)).to(x.dtype)


class _CausalConvSilu(torch.autograd.Function):
    """Keeps only its inputs: the convolution is cheaper to repeat than to store."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        taps = _by_lag(weight)
        y = x.new_empty(x.shape)

        def run(rows: slice) -> None:
            for start in range(0, x.shape[1], CHUNK):
                convolved = _convolve(x[rows], taps, bias, start)
                y[rows, start : start + CHUNK] = functional.silu(convolved, inplace=True)

        run_tiles(run, x, CHUNK * x.shape[2])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias = ctx.saved_tensors
        taps = _by_lag(weight)
        grad_x = x.new_empty(x.shape)
        grad_taps = torch.zeros_like(taps)
        grad_bias = torch.zeros_like(bias)

        def run(rows: slice) -> None:
            for start in range(0, x.shape[1], CHUNK):
                convolved = _convolve(x[rows], taps, bias, start)
                opened = torch.sigmoid(convolved)
                # d silu(v) / dv = s + v s (1 - s) with s = sigmoid(v)
                slope = torch.addcmul(opened, convolved.mul_(opened), 1.0 - opened)
                error = slope.mul_(grad[rows, start : start + CHUNK])
                grad_bias.add_(error.sum(dim=(0, 1)))
                # Lag 0 comes first and writes; the others add, to the chunk before as well.
                torch.mul(error, taps[0], out=grad_x[rows, start : start + CHUNK])
                for lag in range(len(taps)):
                    target, source = _shift(lag, start, error.shape[1])
                    grad_taps[lag] += (error[:, target] * x[rows, source]).sum(dim=(0, 1))
                    if lag:
                        grad_x[rows, source].addcmul_(error[:, target], taps[lag])

        run_tiles(run, x, CHUNK * x.shape[2])
        return grad_x, grad_taps.flip(0).t().unsqueeze(1), grad_bias


def _convolve(x: Tensor, taps: Tensor, bias: Tensor, start: int) -> Tensor:
    """Steps `start` to `start + CHUNK` of the convolution of `x [B, T, D]`, before SiLU."""
    convolved = torch.addcmul(bias, x[:, start : start + CHUNK], taps[0])
    for lag in range(1, len(taps)):
        target, source = _shift(lag, start, convolved.shape[1])
        convolved[:, target].addcmul_(x[:, source], taps[lag])
    return convolved


def _shift(lag: int, start: int, length: int) -> tuple[slice, slice]:
    """Where in a chunk, and from which steps of the clip, a value `lag` steps old is read."""
    target = slice(min(max(lag - start, 0), length), length)
    return target, slice(start + target.start - lag, start + length - lag)


def _by_lag(weight: Tensor) -> Tensor:
    """`[D, 1, K]` as `[K, D]`, the weight of the current step first."""
    return weight.squeeze(1).t().flip(0).contiguous()
