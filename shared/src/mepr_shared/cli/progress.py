"""Progress bars on stderr, with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(label: str, unit: str = "clips") -> Iterator[Callable[[int, int], None]]:
    """A bar that is fed with (done, total).

    Off a terminal a line is printed at each tenth instead, so that logs stay readable.
    """
    if not sys.stderr.isatty():
        yield _tenths(label, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[task].speed
            rate = f"{speed:.0f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


def _tenths(label: str, unit: str) -> Callable[[int, int], None]:
    last = -1

    def update(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(1, total)
        if tenth > last:
            last = tenth
            print(f"{label}: {done}/{total} {unit}", file=sys.stderr, flush=True)

    return update
