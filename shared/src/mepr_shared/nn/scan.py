"""The selective scan of Mamba (Gu & Dao 2023, section 3.2): a plain form and a fast one.

`selective_scan_reference` is the recurrence as it is written. `selective_scan_chunked` gives the
same numbers and gradients (tested against each other) in a fraction of the time and memory:

* the state of all steps, `[B, T, D, N]`, never exists. Forward keeps one state and stores it at
  every `CHUNK`-th step; backward recomputes the steps between two stored ones;
* a few clips at a time go through all steps, in place, so that their states stay in cache. How
  the batch is spread over threads is the caller's matter (`mepr_shared.nn.workers`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mepr_shared.nn.tiles import run_tiles

# Steps between stored states. Memory for stored states falls with it, for recomputed ones grows.
CHUNK = 16
LOG2_E = math.log2(math.e)


def selective_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, gate: Tensor
) -> Tensor:
    """The recurrence as it is written, one step after the other.

    `h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t`, `y_t = (C_t h_t + D x_t) silu(gate_t)`, where
    `dt_t` has gone through softplus and `h_0 = 0`.

    Args:
        x: input `[B, T, D]`.
        dt: step sizes before softplus `[B, T, D]`.
        A: decay rates `[D, N]`, negative.
        B: what enters the state `[B, T, N]`.
        C: what is read from the state `[B, T, N]`.
        D: direct path from input to output `[D]`.
        gate: `[B, T, D]`, before SiLU.

    Returns:
        y `[B, T, D]`.
    """
    dt = functional.softplus(dt)
    state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * A)
        state = decay * state + (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    return (torch.stack(outputs, dim=1) + D * x) * functional.silu(gate)


def selective_scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, gate: Tensor
) -> Tensor:
    """`selective_scan_reference`, fast: same arguments, same result and gradients.

    Half-precision inputs are computed in float32; the result has the dtype of `x`.
    Gradients of gradients are not available here (use the reference).
    """
    compute = torch.promote_types(x.dtype, torch.float32)
    inputs = [tensor.to(compute) for tensor in (x, dt, A, B, C, D, gate)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        y = _SelectiveScan.apply(*inputs)
    else:
        y, _, _ = _forward(*inputs, keep=False)
    return y.to(x.dtype)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        y, ungated, states = _forward(*inputs, keep=True)
        ctx.save_for_backward(*inputs, ungated, states)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        *inputs, ungated, states = ctx.saved_tensors
        return _backward(*inputs, ungated=ungated, states=states, grad=grad)


def _forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, gate: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output `[B, T, D]`, and what backward needs if `keep` (else of no use): the output
    before the gate, and the state `[chunks, B, N, D]` at the start of each chunk."""
    batch, steps, channels = x.shape
    # Channels come last everywhere: they are the long axis. exp2 is twice as fast as exp.
    rates = (A.t() * LOG2_E).contiguous()
    y = torch.empty_like(dt)
    ungated = torch.empty_like(dt) if keep else y
    chunks = _chunks(steps)
    states = x.new_empty(len(chunks) if keep else 0, batch, *rates.shape)

    def run(rows: slice) -> None:
        state = x.new_zeros(rows.stop - rows.start, *rates.shape)
        decay = torch.empty_like(state)
        for index, chunk in enumerate(chunks):
            here = (rows, chunk)
            if keep:
                states[index, rows] = state
            step = functional.softplus(dt[here])
            step_, inflow_ = _each(step, 2), _each(step * x[here], 2)
            B_, C_ = _each(B[here], 3), _each(C[here], 2)
            read = x.new_empty(len(step_), len(state), 1, channels)
            for t, read_t in enumerate(read.unbind(0)):
                torch.mul(step_[t], rates, out=decay).exp2_()
                state.mul_(decay).addcmul_(B_[t], inflow_[t])
                torch.bmm(C_[t], state, out=read_t)
            out = torch.addcmul(_batch_first(read), D, x[here])
            if keep:
                ungated[here] = out
            torch.mul(out, functional.silu(gate[here]), out=y[here])

    run_tiles(run, x, rates.numel())
    return y, ungated, states


def _backward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    gate: Tensor,
    *,
    ungated: Tensor,
    states: Tensor,
    grad: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of the seven inputs, from that of the output `[B, T, D]`.

    With `a_t = exp(dt_t A)`, `e_t` the gradient before the gate and `g_t` that at the state:
    `g_t = C_t e_t + a_(t+1) g_(t+1)`, and from it the gradients of C (`h_t e_t`), of B
    (`g_t dt_t x_t`), of `dt_t x_t` (`B_t g_t`) and of the exponent `dt_t A` (`g_t a_t h_(t-1)`).
    """
    batch, steps, channels = x.shape
    A = A.t().contiguous()
    rates = A * LOG2_E
    grad_x, grad_dt, grad_gate = (torch.empty_like(dt) for _ in range(3))
    grad_B, grad_C = torch.empty_like(B), torch.empty_like(C)
    # One per clip, summed at the end: adding up long sums in parts keeps them exact.
    grad_A, grad_D = x.new_zeros(batch, *A.shape), x.new_zeros(batch, channels)

    def run(rows: slice) -> None:
        count = rows.stop - rows.start
        state = x.new_empty(CHUNK + 1, count, *A.shape).unbind(0)
        decay = x.new_empty(CHUNK, count, *A.shape).unbind(0)
        adjoint = x.new_zeros(count, *A.shape)
        from_exponent = grad_A[rows]
        for index, chunk in reversed(list(enumerate(_chunks(steps)))):
            here = (rows, chunk)
            error, grad_gate[here] = _through_gate(gate[here], ungated[here], grad[here])
            step = functional.softplus(dt[here])
            inflow = step * x[here]
            step_, inflow_, error_ = _each(step, 2), _each(inflow, 2), _each(error, 2)
            B_, C_ = _each(B[here], 3), _each(C[here], 3)
            length = len(step_)
            to_B, to_C = x.new_empty(2, length, count, 1, A.shape[0])
            to_inflow = x.new_empty(length, count, 1, channels)
            to_step = x.new_empty(length, count, 1, channels)

            state[0].copy_(states[index, rows])
            for t, to_C_t in enumerate(to_C.unbind(0)):
                torch.mul(step_[t], rates, out=decay[t]).exp2_()
                torch.mul(state[t], decay[t], out=state[t + 1]).addcmul_(B_[t], inflow_[t])
                torch.bmm(error_[t], state[t + 1].mT, out=to_C_t)
            to_B_, to_inflow_, to_step_ = (part.unbind(0) for part in (to_B, to_inflow, to_step))
            for t in reversed(range(length)):
                adjoint.addcmul_(C_[t], error_[t])
                torch.bmm(inflow_[t], adjoint.mT, out=to_B_[t])
                torch.bmm(B_[t].mT, adjoint, out=to_inflow_[t])
                adjoint.mul_(decay[t])
                to_exponent = torch.mul(adjoint, state[t], out=decay[t])
                from_exponent.addcmul_(to_exponent, step_[t])
                torch.sum(to_exponent.mul_(A), dim=1, keepdim=True, out=to_step_[t])

            grad_B[here], grad_C[here] = _batch_first(to_B), _batch_first(to_C)
            from_inflow = _batch_first(to_inflow)
            torch.addcmul(from_inflow * step, D, error, out=grad_x[here])
            from_step = torch.addcmul(_batch_first(to_step), from_inflow, x[here])
            torch.mul(from_step, torch.sigmoid(dt[here]), out=grad_dt[here])
            grad_D[rows] += (error * x[here]).sum(dim=1)

    run_tiles(run, x, A.numel())
    return grad_x, grad_dt, grad_A.sum(0).t(), grad_B, grad_C, grad_D.sum(0), grad_gate


def _through_gate(gate: Tensor, ungated: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `ungated` and `gate` in `ungated * silu(gate)`."""
    opened = torch.sigmoid(gate)
    passed = gate * opened
    slope = torch.addcmul(opened, passed, 1.0 - opened)
    return grad * passed, slope.mul_(grad).mul_(ungated)


def _each(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The steps of `x [B, T, K]`, each with a new axis at `axis - 1` for broadcasting."""
    return x.unsqueeze(axis).unbind(1)


def _batch_first(x: Tensor) -> Tensor:
    """`[T, B, 1, K]` -> `[B, T, K]`."""
    return x.squeeze(2).transpose(0, 1)


def _chunks(steps: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, steps)) for start in range(0, steps, CHUNK)]
