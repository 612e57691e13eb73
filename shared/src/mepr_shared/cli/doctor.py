"""`mepr modalities` and `mepr doctor`: what is installed, and does it work here?

The doctor tries things instead of looking at version numbers. Each check gives one finding:
`ok`, `warn` (something is slower or missing that not everybody needs) or `fail`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mepr_shared import __version__, config
from mepr_shared.cli.output import emit, say
from mepr_shared.errors import DataError, MeprError, MissingDependency, require
from mepr_shared.plugin import Discovered, discover

SCARCE_BYTES, NEEDED_BYTES = 10 << 30, 1 << 30
TRAIN = "mepr-shared[train]"
OPTIONAL = {
    "matplotlib": ("figures in reports", TRAIN),
    "tensorboard": ("training curves", TRAIN),
    "optuna": ("search for settings", "mepr-shared[search]"),
    "h5py": ("import of .csd files", "mepr-shared[csd]"),
}


@dataclass(frozen=True)
class Check:
    """What one check found; `advice` says what to do unless it is `ok`."""

    check: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def run_modalities(arguments: argparse.Namespace) -> int:
    """`mepr modalities`: every installed modality package, or why one does not load."""
    found = discover()
    records = [
        {
            "name": entry.name,
            "distribution": entry.distribution,
            "version": entry.version,
            "inputs": ", ".join(entry.modality.inputs) if entry.modality else None,
            "profiles": ", ".join(entry.modality.profiles) if entry.modality else None,
            "problem": entry.problem or None,
        }
        for entry in found
    ]
    if records:
        emit(arguments, records, list(records[0]))
    else:
        say("no modality package is installed; e.g. pip install mepr-text")
    return 0


def run_doctor(arguments: argparse.Namespace) -> int:
    """`mepr doctor`: 1 if something does not work."""
    if not arguments.path.is_dir():
        raise DataError(f"no such folder: {arguments.path}")
    checks = list(examine(arguments.path))
    emit(arguments, [asdict(check) for check in checks], ("check", "result", "detail", "advice"))
    failed = sum(check.result == "fail" for check in checks)
    warned = sum(check.result == "warn" for check in checks)
    say(f"{len(checks)} checks: {failed} failed, {warned} warnings")
    return 1 if failed else 0


def examine(path: Path) -> Iterator[Check]:
    """All checks, in the order in which their subjects are needed.

    Args:
        path: folder in which stores, exports and runs will lie.
    """
    yield Check("python", "ok", f"{platform.python_version()}, mepr-shared {__version__}")
    yield _disk(path)
    yield _attempt("frame store", partial(_store_round_trip, path))
    try:
        torch = require("torch", extra=TRAIN)
    except MissingDependency as error:
        detail = "without torch there is no extraction and no training; corpora and exports work"
        yield Check("torch", "warn", detail, error.hint or "")
    else:
        yield _attempt("torch", partial(_torch, torch))
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            yield _attempt(f"bf16 on {device}", partial(_bf16, torch, device))
            yield _attempt(f"mamba scan on {device}", partial(_scan, torch, device))
    for module, (purpose, extra) in OPTIONAL.items():
        yield _optional(module, purpose, extra)
    modalities = discover()
    if not modalities:
        detail = "no modality package is installed"
        yield Check("modalities", "warn", detail, "e.g. pip install mepr-text")
    for entry in modalities:
        yield _plugin(entry)
        if entry.modality is not None:
            yield _attempt(f"{entry.name} encoder", partial(_encoder, entry))


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except MeprError as error:
        return Check(name, "fail", error.message, error.hint or "")
    except Exception as error:  # whatever goes wrong is what the doctor is asked to find
        return Check(name, "fail", f"{type(error).__name__}: {_first_line(error)}")


def _disk(path: Path) -> Check:
    free = shutil.disk_usage(path).free
    detail = f"{free / 2**30:.1f} GiB free in {path.resolve()}"
    if free >= SCARCE_BYTES:
        return Check("disk space", "ok", detail)
    advice = "frame stores take a few GiB per corpus and modality: choose another --path"
    return Check("disk space", "fail" if free < NEEDED_BYTES else "warn", detail, advice)


def _store_round_trip(path: Path) -> Check:
    """Write, flush, lock and map: what network file systems are known to refuse."""
    import numpy as np

    from mepr_shared.contract.frames import FrameStore, FrameStoreWriter

    frames = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    with tempfile.TemporaryDirectory(dir=path, prefix=".mepr-doctor-") as root:
        with FrameStoreWriter(root, "doctor", "text", {"encoder": "none"}) as writer:
            writer.add("clip", input_sha256="0" * 64, frames=frames)
        store = FrameStore.find(root, "doctor", "text")
        same = np.array_equal(store.read(0), frames.astype(np.float16))
    if not same:
        advice = "choose a --path on another disk"
        return Check("frame store", "fail", "what was read is not what was written", advice)
    return Check("frame store", "ok", f"written, locked, mapped and read in {path.resolve()}")


def _torch(torch: Any) -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    detail = f"{torch.__version__}, {threads} threads on {usable} usable cores"
    if torch.cuda.is_available():
        detail += f", {torch.cuda.get_device_name()} (--device cuda)"
    if usable and threads > usable:
        return Check("torch", "warn", detail, f"export OMP_NUM_THREADS={usable}")
    return Check("torch", "ok", detail)


def _bf16(torch: Any, device: str) -> Check:
    """Is what `precision = "auto"` chooses also the faster one here?"""
    from mepr_shared.train.loop import uses_bf16

    seconds = {dtype: _product_s(torch, device, dtype) for dtype in ("float32", "bfloat16")}
    ratio = seconds["float32"] / seconds["bfloat16"]
    chosen = "bf16" if uses_bf16("auto", device) else "float32"
    compared = f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    detail = f"matrix products in bf16 are {compared} than in float32; `auto` is {chosen}"
    name = f"bf16 on {device}"
    if chosen == "bf16" and ratio < 0.8:
        return Check(name, "warn", detail, "--set fit.precision=float32 will be faster")
    if chosen == "float32" and ratio > 1.5:
        return Check(name, "warn", detail, "--set fit.precision=bf16 may be faster")
    return Check(name, "ok", detail)


def _product_s(torch: Any, device: str, dtype: str, size: int = 384, repeats: int = 3) -> float:
    """Seconds of the fastest of some matrix products, as wide as a small encoder's."""
    matrix = torch.ones(size, size, device=device, dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        # Reading a value waits for the accelerator.
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - start)
    return best


def _scan(torch: Any, device: str) -> Check:
    from mepr_shared.nn.backend import probe, scan_backend

    backend = scan_backend(torch.device(device))
    problem = probe(backend.scan, torch.device(device))
    name, detail = f"mamba scan on {device}", f"{backend.name}: {backend.reason}"
    if problem is not None:
        return Check(name, "fail", f"{backend.name}: {problem}", "train Transformers instead")
    if device == "cuda" and backend.name != "mamba_ssm":
        return Check(name, "warn", detail, "pip install mamba-ssm for a faster Mamba")
    return Check(name, "ok", detail)


def _optional(module: str, purpose: str, extra: str) -> Check:
    try:
        found = require(module, extra=extra)
    except MissingDependency as error:
        return Check(module, "warn", f"not installed: no {purpose}", error.hint or "")
    return Check(module, "ok", f"{getattr(found, '__version__', 'installed')} ({purpose})")


def _plugin(entry: Discovered) -> Check:
    what = f"{entry.distribution} {entry.version}"
    if entry.modality is not None:
        return Check(entry.name, "ok", f"{what} loads")
    advice = f"pip install --force-reinstall {entry.distribution}"
    return Check(entry.name, "fail", f"{what} does not load: {entry.problem}", advice)


def _encoder(entry: Discovered) -> Check:
    """Are the weights of the small profile here? It is the one that needs no download."""
    weights = importlib.import_module("mepr_shared.extract.weights")
    assert entry.modality is not None
    table = config.read_toml(entry.modality.profiles["small"]).get("encoder", {})
    settings: Any = config.build(entry.modality.encoder_settings, table, where="encoder")
    folder = weights.resolve(
        settings.id,
        revision=getattr(settings, "revision", ""),
        needs=getattr(settings, "needs", ""),
    )
    return Check(f"{entry.name} encoder", "ok", f"{folder.id} ({folder.revision or 'local'})")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else "no message"
