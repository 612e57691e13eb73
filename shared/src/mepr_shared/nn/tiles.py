"""A chain of in-place operations on a few clips at a time, so that they stay in cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Values per operation: a few arrays of this size fit the caches, and the cost of calling an
# operation is small beside that of computing it.
TILE = 1 << 17


def run_tiles(function: Callable[[slice], None], x: Tensor, clip_values: int) -> None:
    """Call `function` on slices that together cover the batch of `x [B, ...]`.

    It runs without autograd and without autocast. On devices other than a CPU, whose caches are
    another matter, the whole batch is one slice.

    Args:
        function: fills those rows of its output tensors, in place.
        x: gives batch size and device.
        clip_values: values per clip in the largest operand of `function`'s operations.
    """
    rows = max(1, TILE // clip_values) if x.device.type == "cpu" else len(x)
    with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
        for start in range(0, len(x), rows):
            function(slice(start, min(start + rows, len(x))))
