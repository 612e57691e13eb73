"""Training by several processes, as torchrun starts them, with the result of one.

    torchrun --nproc-per-node N -m mepr_fusion.cli train ... --device cuda

Every process holds all weights and takes its slice of each batch. Model outputs, which are small,
are gathered before the loss, so that every loss is that of the whole batch whatever its form (a
concordance correlation is no mean over samples); gradients are then summed. Without torchrun
everything here does nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from mepr_shared.errors import ConfigError
from mepr_shared.train.runs import Run

SEED_STEP = 7919  # between the random numbers of two processes: their samples differ
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def start(device: str) -> str:
    """Join the other processes, if torchrun started this one; gives the device of this one.

    Args:
        device: `cpu`, or `cuda` for one GPU per process.

    Raises:
        ConfigError: the environment is not torchrun's, the device has a number, or there are
            fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return device
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is set, {' and '.join(missing)} not",
            hint="torchrun --nproc-per-node N -m mepr_fusion.cli train ...",
        )
    if device not in ("cpu", "cuda"):
        raise ConfigError(
            f"--device {device} with several processes", hint="--device cuda: one GPU each"
        )
    if device == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise ConfigError(
                f"process {local} of this machine has no GPU: there are {there}",
                hint=f"torchrun --nproc-per-node {max(1, there)}, or --device cpu",
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if not distributed.is_initialized():
        backend = "gloo" if device == "cpu" else "nccl"
        distributed.init_process_group(backend)
    return device


def finish() -> None:
    """Leave the other processes."""
    if size() > 1:
        distributed.destroy_process_group()


def size() -> int:
    """Number of processes; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; the first one writes and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own(count: int) -> slice:
    """This process's part of `count` samples; parts differ by one sample at most."""
    share, more = divmod(count, size())
    begin = rank() * share + min(rank(), more)
    return slice(begin, begin + share + (rank() < more))


def wait() -> None:
    """Until every process has come here."""
    if size() > 1:
        distributed.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the body, then the others do."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


@contextmanager
def own_run(run: Run) -> Iterator[Run]:
    """The run itself for the first process; for the others a copy in a temporary folder, which is
    removed, so that each can read and write what the loop reads and writes."""
    if rank() == 0:
        yield run
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in run.path.iterdir():
            if file.is_file() and not file.name.startswith("."):
                shutil.copy(file, folder)
        yield Run(Path(folder), run.config)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum of the gradients over the processes, in place; one message for all."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(
        gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]
    )


def broadcast(values: Tensor) -> Tensor:
    """The first process's values, written over this one's."""
    if size() > 1:
        distributed.broadcast(values, src=0)
    return values


def gather_rows(values: Tensor, count: int, dim: int = 0) -> Tensor:
    """The parts of all processes put together along `dim`, `count` long, in float32.

    The gradient of this process's part is what arrives at it: all processes compute the same loss
    of the whole, so nothing is to be summed here.
    """
    return _Gather.apply(values, count, dim) if size() > 1 else values


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, count: int, dim: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.dim, ctx.dtype = dim, values.dtype
        shape = list(values.shape)
        shape[dim] = count
        # Parts may differ in length: each is added to zeros. NaN stays NaN.
        whole = values.new_zeros(shape, dtype=torch.float32)
        part = own(count)
        whole.narrow(dim, part.start, part.stop - part.start).copy_(values)
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        part = own(gradient.shape[ctx.dim])
        chosen = gradient.narrow(ctx.dim, part.start, part.stop - part.start)
        return chosen.to(ctx.dtype), None, None
