"""The journal gives back what was written, and nothing that was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mepr_shared.errors import DataError
from mepr_text.journal import Journal, Record

SPOKEN = Record(
    "a",
    "input-a",
    "model-1",
    "ok",
    "",
    "Grüße, 你好\n",
    "de",
    0.75,
    0.5,
    ((0.0, 1.25, "Grüße,"), (1.25, 2.0, "你好")),
)
SILENT = Record("b", "input-b", "model-1", "no_text", "no speech was found")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "y.asr.jsonl"
    with Journal(path) as journal:
        journal.describe("model-1", {"model": "tiny"})
        journal.add([SPOKEN, SILENT])
    return path


def test_what_was_written_is_found(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.find("input-a", "model-1") == SPOKEN
        assert journal.find("input-b", "model-1") == SILENT
        assert journal.find("input-a", "model-2") is None
        assert journal.find("input-c", "model-1") is None


def test_a_model_is_described_once(path: Path) -> None:
    for _ in range(2):
        with Journal(path) as journal:
            journal.describe("model-1", {"model": "tiny"})
            journal.describe("model-2", {"model": "large"})
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["spec"] for line in lines if "spec" in line] == [
        {"model": "tiny"},
        {"model": "large"},
    ]


def test_the_last_record_counts(path: Path) -> None:
    with Journal(path) as journal:
        journal.add([replace(SPOKEN, text="Hello.")])
    with Journal(path) as journal:
        found = journal.find("input-a", "model-1")
        assert found is not None
        assert found.text == "Hello."


def test_records_are_on_the_disk_when_they_are_added(path: Path) -> None:
    with Journal(path) as journal:
        journal.add([replace(SILENT, input_sha256="input-c")])
        assert "input-c" in path.read_text("utf-8")


def test_a_torn_line_is_cut_off_wherever_it_is_torn(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for length in range(len(last)):
        path.write_bytes(whole[: len(whole) - len(last) + length])
        with Journal(path) as journal:
            assert journal.find("input-a", "model-1") == SPOKEN
            assert journal.find("input-b", "model-1") is None
            journal.add([SILENT])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "7",
        "null",
        "{}",
        '{"sample_id": "a"}',
        json.dumps({**SILENT.__dict__, "text": 7}),
        json.dumps({**SILENT.__dict__, "status": None}),
        json.dumps({**SILENT.__dict__, "segments": [[1, 2]]}),
    ],
)
def test_a_line_that_is_no_record_is_named(path: Path, line: str) -> None:
    path.write_text(f"{line}\n{path.read_text('utf-8')}", "utf-8")
    with pytest.raises(DataError, match=r"asr.jsonl, line 1 is no transcript.*--overwrite"):
        Journal(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    with pytest.raises(DataError, match="line 1 is no transcript"):
        Journal(path)


def test_two_runs_cannot_write_one_journal(path: Path) -> None:
    with Journal(path), pytest.raises(DataError, match="another process is writing"):
        Journal(path)
    with Journal(path) as journal:
        assert journal.find("input-a", "model-1") == SPOKEN


def test_clearing_forgets_everything(path: Path) -> None:
    with Journal(path) as journal:
        journal.clear()
        assert journal.find("input-a", "model-1") is None
    assert path.read_bytes() == b""
