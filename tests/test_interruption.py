"""Killed in the middle and resumed, the result is that of an uninterrupted run."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mepr_shared.contract.frames import FrameStore

# Enough epochs to be killed between, small enough to take seconds.
EPOCHS = 24
SETTINGS = ("model.width=16", "model.feedforward=32", f"fit.epochs={EPOCHS}", "fit.patience=0")


def kill_when(
    words: list[str],
    ready: Callable[[], bool],
    kill: signal.Signals,
    environment: dict[str, str],
    *,
    limit_s: float = 120,
) -> int:
    """Start a command, send it a signal as soon as it is `ready`; gives its exit code."""
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell's background jobs, and all that they start, ignore the interrupt.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + limit_s
    try:
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(kill)
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train"]["loss"] for line in (run / "log.jsonl").open()]


@pytest.fixture(scope="module")
def store(demo: list[Path], tmp_path_factory: pytest.TempPathFactory, command) -> Path:
    folder = tmp_path_factory.mktemp("store")
    command("mepr-text", "extract", "--corpus", traits_of(demo), "--store", folder)
    return folder


def traits_of(demo: list[Path]) -> Path:
    [path] = [path for path in demo if path.stem == "demo_traits"]
    return path


def training(demo: list[Path], store: Path, run: Path) -> list[str]:
    words = ["mepr-text", "train", "stage1", "--task", "traits", "--corpus", str(traits_of(demo))]
    words += ["--store", str(store), "--run", str(run)]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.mark.slow
def test_training(
    demo: list[Path], store: Path, tmp_path: Path, environment: dict[str, str], command
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    command(*training(demo, store, whole))
    assert len(losses(whole)) == EPOCHS
    words = training(demo, store, run)

    def epochs() -> int:
        log = run / "log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0

    # Killed, gone on, stopped by Ctrl-C, gone on to the end.
    assert kill_when(words, lambda: epochs() >= 3, signal.SIGKILL, environment) == -9
    first = epochs()
    assert 3 <= first < EPOCHS
    assert "--resume" in command(*words, code=2).stderr
    words.append("--resume")
    assert kill_when(words, lambda: epochs() >= first + 3, signal.SIGINT, environment) == 130
    assert first + 3 <= epochs() < EPOCHS
    assert not (run / "metrics.json").exists()
    command(*words)

    assert losses(run) == losses(whole)
    weights = "weights.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    scores = [json.loads((path / "metrics.json").read_text())["val"] for path in (run, whole)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_extraction(
    kill: signal.Signals,
    code: int,
    demo: list[Path],
    store: Path,
    tmp_path: Path,
    environment: dict[str, str],
    command,
) -> None:
    corpus = traits_of(demo)
    words = ["mepr-text", "extract", "--corpus", str(corpus), "--store", str(tmp_path)]
    # The writer has begun: its folder is there, the index that ends it is not.
    assert (
        kill_when(words, lambda: any(tmp_path.glob("*/text/frames/*")), kill, environment) == code
    )
    assert not any(tmp_path.glob("**/index.parquet"))

    command(*words, "--resume")
    [again, whole] = [FrameStore.find(root, "demo_traits", "text") for root in (tmp_path, store)]
    assert again.sample_ids == whole.sample_ids
    assert again.status.tolist() == whole.status.tolist()
    for row in range(len(whole.sample_ids)):
        assert (again.read(row) == whole.read(row)).all()
