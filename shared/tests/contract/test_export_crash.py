"""A writer that dies at any step leaves no readable export, and resuming gives the same bytes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mepr_shared.contract.living import export_folders
from mepr_shared.contract.verify import verify
from mepr_shared.contract.writer import ExportWriter
from mepr_shared.errors import ContractError

STEPS = ("fsync", "replace", "rename")


class Killed(BaseException):
    """Stands for the end of the process: no handler of ours catches it."""


def parts_of(export: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((export / "samples").iterdir())}


def fail_from(
    monkeypatch: pytest.MonkeyPatch, step: int, error: Callable[[], BaseException]
) -> Callable[[], int]:
    """Every fsync and rename from number `step` on fails; gives how many there were."""
    calls = 0

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls > step:
                raise error()
            real(*arguments)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    return lambda: calls


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "caught", "message"),
    [(disk_full, ContractError, "free some space"), (Killed, Killed, None)],
)
def test_a_writer_that_fails_at_any_step_leaves_nothing_to_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    corpus: Any,
    write_export: Callable[..., Path],
    error: Callable[[], BaseException],
    caught: type[BaseException],
    message: str | None,
) -> None:
    with monkeypatch.context() as patch:
        steps = fail_from(patch, 10**9, error)
        whole = write_export(tmp_path / "whole", corpus)
    assert steps() > 20
    for step in range(steps()):
        root = tmp_path / str(step)
        with monkeypatch.context() as patch:
            fail_from(patch, step, error)
            with pytest.raises(caught, match=message):
                write_export(root, corpus)
        # The very last call makes the finished export's name durable.
        for found in export_folders(root):
            assert step == steps() - 1
            assert verify(found, deep=True) == []
        resumed = write_export(root, corpus)
        assert resumed.name == whole.name
        assert parts_of(resumed) == parts_of(whole)
        assert verify(resumed, deep=True, corpus=corpus) == []
        assert [path.name for path in resumed.parent.iterdir()] == [resumed.name]


def test_finished_parts_are_not_asked_for_again(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    index, ids = writer.pending()[1]
    writer.write_part(index, columns(ids))
    resumed = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    assert [index for index, _ in resumed.pending()] == [0, 2]


def test_a_staged_part_that_was_damaged_is_written_again(
    tmp_path: Path, corpus: Any, info: Callable[..., Any], columns: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    for index, ids in writer.pending():
        writer.write_part(index, columns(ids))
    staged = sorted(tmp_path.rglob("part-*.parquet"))
    staged[1].write_bytes(staged[1].read_bytes()[:-1])
    resumed = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    assert [index for index, _ in resumed.pending()] == [1]


def test_two_processes_do_not_write_the_same_export(
    tmp_path: Path, corpus: Any, info: Callable[..., Any]
) -> None:
    writer = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8)
    done = subprocess.run(
        [sys.executable, "-c", script_for(tmp_path, corpus)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "another process is writing" in done.stderr
    assert len(writer.pending()) == 3


def script_for(root: Path, corpus: Any) -> str:
    """A program that writes the export of these tests, one part after another."""
    here = Path(__file__).with_name("conftest.py")
    return textwrap.dedent(f"""
        import importlib.util, sys, time
        spec = importlib.util.spec_from_file_location("helpers", {str(here)!r})
        helpers = importlib.util.module_from_spec(spec)
        sys.modules["helpers"] = helpers
        spec.loader.exec_module(helpers)
        corpus = helpers.StandInCorpus("demo", {corpus.sample_ids!r}, {corpus.splits!r})
        info = helpers.export_info()
        writer = helpers.ExportWriter({str(root)!r}, corpus=corpus, info=info, part_rows=8)
        for index, ids in writer.pending():
            writer.write_part(index, helpers.columns_for(ids))
            print(index, flush=True)
            time.sleep(0.2)
        writer.commit()
    """)


def test_kill_and_resume(
    tmp_path: Path, corpus: Any, write_export: Callable[..., Path], info: Callable[..., Any]
) -> None:
    script = script_for(tmp_path, corpus)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert export_folders(tmp_path) == []
    pending = ExportWriter(tmp_path, corpus=corpus, info=info(), part_rows=8).pending()
    assert 1 <= len(pending) < 3
    whole = write_export(tmp_path / "whole", corpus)
    resumed = write_export(tmp_path, corpus)
    assert resumed.name == whole.name
    assert parts_of(resumed) == parts_of(whole)
