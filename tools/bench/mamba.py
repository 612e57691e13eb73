"""Forward and backward of one Mamba block on the CPU, beside mambapy's parallel scan.

    python tools/bench/mamba.py

Batch 32, width 256, expand 2, state 16, two threads, float32. Every measurement is a process of
its own; ours and mambapy's take turns, so that a busy machine slows both. Memory is the peak of
the resident set over what the process held before the first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, WIDTH, THREADS, ROUNDS = 32, 256, 2, 3
# Steps per clip -> timed iterations per process.
LENGTHS = {30: 7, 750: 1}


def run() -> list[dict[str, Any]]:
    """Rows `name, value, unit, reference, ratio`; the ratio says how many times less we need."""
    rows = []
    for steps, iterations in LENGTHS.items():
        found: dict[str, list[dict[str, float]]] = {"ours": [], "mambapy": []}
        for _ in range(ROUNDS):
            for which, results in found.items():
                results.append(_in_process(which, steps, iterations))
        for quantity, unit in (("seconds", "s"), ("megabytes", "MB")):
            ours, theirs = (
                statistics.median(result[quantity] for result in found[which])
                for which in ("ours", "mambapy")
            )
            rows.append(
                {
                    "name": f"Mamba block, {steps} steps, forward and backward",
                    "value": ours,
                    "unit": unit,
                    "reference": theirs,
                    "ratio": theirs / ours,
                }
            )
    return rows


def _in_process(which: str, steps: int, iterations: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", which, str(steps), str(iterations)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(which: str, steps: int, iterations: int) -> dict[str, float]:
    """Median seconds per iteration and peak memory, here and now."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    block = _block(which)

    def draw(batch: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (batch, steps, WIDTH)
        return torch.randn(shape, requires_grad=True), torch.randn(shape)

    def iterate(x: torch.Tensor, gradient: torch.Tensor) -> None:
        block(x).backward(gradient)

    # Libraries allocate and start threads on first use; that is nobody's working memory.
    iterate(*draw(2, 8))
    inputs = draw(BATCH, steps)
    before = _memory("VmRSS")
    seconds = []
    for _ in range(iterations):
        start = time.perf_counter()
        iterate(*inputs)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(seconds),
        "megabytes": _memory("VmHWM") - before,
    }


def _block(which: str) -> Any:
    if which == "ours":
        from mepr_shared.nn.mamba import Mamba

        return Mamba(WIDTH)
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=WIDTH, n_layers=1))


def _memory(field: str) -> float:
    """A field of `/proc/self/status` in MB. (`ru_maxrss` would include the parent's memory.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=3, metavar=("WHICH", "STEPS", "ITERATIONS"))
    arguments = parser.parse_args()
    if arguments.measure:
        which, steps, iterations = arguments.measure
        print(json.dumps(measure(which, int(steps), int(iterations))))
        return
    print(f"{'':50} {'ours':>10} {'mambapy':>10}    ratio")
    for row in run():
        value, reference = f"{row['value']:.3g}", f"{row['reference']:.3g}"
        print(
            f"{row['name']:50} {value:>7} {row['unit']:2} {reference:>7} {row['unit']:2}", end=" "
        )
        print(f"{row['ratio']:7.1f}x")


if __name__ == "__main__":
    main()
