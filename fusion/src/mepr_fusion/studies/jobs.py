"""Many trainings of stage 3: one after the other, or spread over processes.

A worker that dies (out of memory, a signal) costs the job it was at, not the others. Nothing here
needs torch before a job runs.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mepr_fusion.inputs import Inputs
from mepr_shared.contract.living import resolve
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, DataError, MeprError

# What a job leaves behind when it cannot be done, beside its run.
PROBLEM = "problem.txt"

# (modality, corpus name) -> export id
Pins = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Source:
    """Where runs get their data: corpora, and one pinned export per modality and corpus."""

    corpora: tuple[Path, ...]
    exports_root: Path
    pins: Pins
    min_coverage: float = 0.0

    @classmethod
    def of(cls, inputs: Inputs, root: Path, min_coverage: float = 0.0) -> Source:
        """What `mepr_fusion.inputs.choose` found, pinned."""
        paths = tuple(corpus.path.resolve() for corpus in inputs.corpora if corpus.path)
        pins = {place: export.export_id for place, export in inputs.exports.items()}
        return cls(paths, root.resolve(), pins, min_coverage)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, sorted as the joined table sorts them."""
        return tuple(sorted({modality for modality, _ in self.pins}))

    def open(self, modalities: Sequence[str] | None = None) -> Inputs:
        """Corpora and exports of some modalities; a corpus without any of them is left out.

        Raises:
            MeprError: something is gone, or no corpus has any of the modalities.
        """
        wanted = self.modalities if modalities is None else modalities
        corpora = tuple(Corpus.read(path) for path in self.corpora)
        exports = {
            (modality, corpus): resolve(self.exports_root, corpus, modality, export_id)
            for (modality, corpus), export_id in self.pins.items()
            if modality in wanted and corpus in {c.name for c in corpora}
        }
        covered = {corpus for _, corpus in exports}
        if not covered:
            raise DataError(f"no corpus has an export of {' or '.join(wanted)}")
        return Inputs(tuple(c for c in corpora if c.name in covered), exports)

    def described(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "corpora": [str(path) for path in self.corpora],
            "exports_root": str(self.exports_root),
            "exports": {f"{m}:{c}": self.pins[m, c] for m, c in sorted(self.pins)},
            "min_coverage": self.min_coverage,
        }


@dataclass(frozen=True)
class Job:
    """One run to train and what is done with it then.

    Attributes:
        name: for people, unique among the jobs.
        source: data.
        modalities: those that are read; None for all.
        settings: complete stage-3 settings as nested mappings.
        run: directory of the run; what an interrupted training left there goes on.
        splits: whose predictions are written beside the run (`answers.py`).
    """

    name: str
    source: Source
    modalities: tuple[str, ...] | None
    settings: dict[str, Any]
    run: Path
    splits: tuple[str, ...] = ("val",)


# Trains one job on a device; importable by a worker process.
Work = Callable[[Job, str], None]


def run_jobs(
    work: Work,
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    devices: Sequence[str] = ("cpu",),
    on_done: Callable[[Job, str | None], None] | None = None,
) -> dict[str, str]:
    """Do all jobs; one that fails does not end the others.

    With one worker they are done in this process, else in `workers` spawned ones that share the
    cores evenly; worker `i` computes on `devices[i % len(devices)]`.

    Args:
        work: does one job.
        jobs: in this order, as workers become free.
        workers: how many at once.
        devices: torch devices.
        on_done: is told each finished job and, where it failed, why.

    Returns:
        Name of each failed job -> reason.

    Raises:
        ConfigError: fewer than one worker.
        KeyboardInterrupt: after the workers were ended; finished runs stay.
    """
    if workers < 1:
        raise ConfigError(f"--workers takes a number of at least 1, got {workers}")
    failed: dict[str, str] = {}

    def done(job: Job, problem: str | None) -> None:
        if problem is not None:
            failed[job.name] = problem
        if on_done:
            on_done(job, problem)

    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            done(job, attempt(work, job, devices[0]))
    else:
        _spread(work, list(jobs), min(workers, len(jobs)), devices, done)
    return failed


def attempt(work: Work, job: Job, device: str) -> str | None:
    """Do a job; the reason in one line where that fails, with the trace in `PROBLEM`."""
    # An earlier process may have died before the run had its first file.
    if job.run.exists() and not (job.run / "config.json").exists():
        shutil.rmtree(job.run)
    note = job.run.parent / f"{job.run.name}-{PROBLEM}"
    note.unlink(missing_ok=True)
    try:
        work(job, device)
    except Exception as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(traceback.format_exc(), "utf-8")
        known = isinstance(error, MeprError)
        first = (str(error).splitlines() or [""])[0]
        return first if known else f"{type(error).__name__}: {first}"
    return None


def _spread(
    work: Work,
    waiting: list[Job],
    workers: int,
    devices: Sequence[str],
    done: Callable[[Job, str | None], None],
) -> None:
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = [_Worker(work, devices[i % len(devices)], threads) for i in range(workers)]
    try:
        while True:
            for worker in pool:
                if worker.job is None and waiting:
                    worker.start(waiting.pop(0))
            busy = {worker.connection: worker for worker in pool if worker.job is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                done(*busy[connection].finished())  # type: ignore[index]
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    """A spawned process that does one job after the other; started anew where it died."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        self.work, self.device, self.threads = work, device, threads
        self.process: multiprocessing.process.BaseProcess | None = None
        self.job: Job | None = None
        self.connection: Connection

    def start(self, job: Job) -> None:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(
                target=_serve, args=(theirs, self.work, self.device), daemon=True
            )
            # Read when the child's libraries are loaded, so it is set before and put back after.
            before = os.environ.get("OMP_NUM_THREADS")
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
            try:
                self.process.start()
            finally:
                if before is None:
                    del os.environ["OMP_NUM_THREADS"]
                else:
                    os.environ["OMP_NUM_THREADS"] = before
            theirs.close()
        self.job = job
        self.connection.send(job)

    def finished(self) -> tuple[Job, str | None]:
        """The job that ended and why it failed, if it did."""
        job, self.job = self.job, None
        assert job is not None and self.process is not None
        try:
            return job, self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code, self.process = self.process.exitcode, None
            return job, f"its process ended with code {code}" + (
                ", killed: perhaps out of memory" if code == -9 else ""
            )

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.join()


def _serve(connection: Connection, work: Work, device: str) -> None:
    # Ctrl-C reaches the whole group; the parent alone decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(attempt(work, job, device))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they must not go on writing to runs that
    are perhaps resumed already."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
