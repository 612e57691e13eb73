"""A function over a batch, split once over threads that each keep to one core.

Torch by itself splits every operation over all threads and waits for the slowest, each time. For
long chains of small operations it is better to split the batch once and to let each thread run
its clips from start to end: no waiting in between (on a busy machine that is most of the time),
and a core keeps its part of the data in its cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor


def over_batch(function: Callable[..., Tensor], x: Tensor, *weights: Tensor) -> Tensor:
    """`function(x, *weights)`, with the batch split over threads on a CPU, gradients included.

    Args:
        function: maps `[B, ...]` and weights to `[B, ...]`, each clip by itself. It draws no
            random numbers, whose order would depend on timing, and reads no other tensor that
            needs a gradient.
        x: `[B, ...]`.
        weights: shared by all clips.
    """
    if x.device.type != "cpu" or torch.get_num_threads() == 1 or len(x) == 1:
        return function(x, *weights)
    return _OverBatch.apply(function, torch.is_grad_enabled(), x, *weights)


class _Part(NamedTuple):
    """Some clips' own small graph: its leaves (their `x`, then the weights) and its output."""

    leaves: list[Tensor]
    output: Tensor


class _OverBatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], graph: bool, x: Tensor, *weights: Tensor
    ) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        ctx.again = partial(_run_parts, function, autocast, graph)
        ctx.save_for_backward(x, *weights)
        parts = ctx.again(x, *weights)
        ctx.parts = parts if graph else None
        joined = _pool(torch.get_num_threads()).submit(torch.cat, [part.output for part in parts])
        return joined.result().detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        # The parts' graphs serve once, which frees their memory on the way. A second backward
        # (`retain_graph=True`) is rare and builds them anew.
        parts = ctx.again(*saved) if ctx.parts is None else ctx.parts
        ctx.parts = None

        def run(part: _Part, grad: Tensor) -> list[Tensor | None]:
            wanted = [leaf for leaf in part.leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(part.output, wanted, grad))
            return [next(found) if leaf.requires_grad else None for leaf in part.leaves]

        pool = _pool(torch.get_num_threads())
        gradients = list(pool.map(run, parts, grad.split(len(parts[0].output))))
        return None, None, *pool.submit(_join, gradients).result()


def _run_parts(
    function: Callable[..., Tensor],
    autocast: tuple[bool, torch.dtype],
    graph: bool,
    x: Tensor,
    *weights: Tensor,
) -> list[_Part]:
    """`function` on one part of the batch per thread, whose modes are those of the caller."""
    enabled, dtype = autocast

    def run(clips: Tensor) -> _Part:
        leaves = [t.detach().requires_grad_(t.requires_grad) for t in (clips, *weights)]
        with torch.set_grad_enabled(graph), torch.autocast("cpu", dtype, enabled):
            return _Part(leaves, function(*leaves))

    threads = torch.get_num_threads()
    return list(_pool(threads).map(run, x.split(-(-len(x) // threads))))


def _join(gradients: list[list[Tensor | None]]) -> list[Tensor | None]:
    """The parts' gradients of `x` and of the weights, as those of the whole batch."""
    from_x, *from_weights = zip(*gradients, strict=True)
    grad_x = None if from_x[0] is None else torch.cat(from_x)
    # Summed in the order of the clips, so that a run can be repeated to the bit.
    return [grad_x, *(None if parts[0] is None else sum(parts) for parts in from_weights)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mepr-nn", initializer=_use_one_core)
    everyone = threading.Barrier(threads)
    for future in [pool.submit(everyone.wait) for _ in range(threads)]:
        future.result()
    # New threads start with the number last set anywhere; from here on that is the caller's.
    torch.set_num_threads(threads)
    return pool


def _use_one_core() -> None:
    # The number of torch threads belongs to the thread that sets it. Torch fills it in at its
    # first use, which would undo what is set before: so it is read first.
    torch.get_num_threads()
    torch.set_num_threads(1)


# A forked child (a data loader's worker) has the pool object but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
