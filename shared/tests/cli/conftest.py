"""What the tests of `mepr` share: running it, and small files to run it on."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mepr_shared.cli.main import main

Run = Callable[..., "Outcome"]


@dataclass
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON line on stdout."""
        (found,) = self.records
        return found


@pytest.fixture
def mepr(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mepr` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def refused(mepr: Run) -> Run:
    """Runs `mepr` and checks the promise of every known error: one line, exit 2, no data."""

    def run(*arguments: object) -> Outcome:
        outcome = mepr(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert len(outcome.err.strip().splitlines()) == 1, outcome.err
        return outcome

    return run


@pytest.fixture
def fiv2_folder(tmp_path: Path) -> Path:
    """Two training clips and one of validation in the official form; one score is impossible."""
    folder = tmp_path / "fiv2"
    folder.mkdir()
    names = ("extraversion", "neuroticism", "agreeableness", "conscientiousness", "interview")
    for part, clips in (
        ("training", {"a.000.mp4": 0.25, "b.001.mp4": 1.5}),
        ("validation", {"a.002.mp4": 0.75}),
    ):
        scores = {name: dict(clips) for name in (*names, "openness")}
        texts = dict.fromkeys(clips, "I like it [inaudible 00:00:16].")
        (folder / f"annotation_{part}.pkl").write_bytes(pickle.dumps(scores))
        (folder / f"transcription_{part}.pkl").write_bytes(pickle.dumps(texts))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight clips of four speakers with other column names than an index has."""
    path = tmp_path / "clips.csv"
    lines = ["clip,split,speaker_id,source_id,utterance,feeling,openness"]
    for number in range(8):
        feeling = ("joy", "sadness")[number % 2]
        speaker = f"s{number % 4}"
        lines.append(f"c{number},train,{speaker},{speaker},word {number},{feeling},0.{number}")
    path.write_text("\n".join(lines) + "\n")
    return path


MAP = ("--map", "sample_id=clip", "text=utterance", "emotion=feeling")


@pytest.fixture
def index(mepr: Run, table: Path) -> Path:
    """The index of `table`."""
    path = table.with_name("clips.parquet")
    assert mepr("corpus", "import", "table", table, "--out", path, *MAP).code == 0
    return path


@pytest.fixture
def demo(mepr: Run, tmp_path: Path) -> Path:
    """Demo features: an index and a table per modality."""
    folder = tmp_path / "demo"
    assert mepr("corpus", "demo", folder, "--clips", 120, "--features-only").code == 0
    return folder / "features"


@pytest.fixture
def export(mepr: Run, demo: Path, tmp_path: Path) -> Path:
    """An export of the demo's text features; its root is three folders up."""
    outcome = mepr(
        *("export", "create", "--modality", "text", "--corpus", demo / "demo_features.parquet"),
        *("--from", demo / "text.parquet", "--out", tmp_path / "exports", "--json"),
    )
    return Path(outcome.record["export"])
