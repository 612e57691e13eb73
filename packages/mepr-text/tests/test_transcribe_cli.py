"""The verb: from files to an index, with the packaged Whisper."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError
from mepr_text.asr_settings import PROFILES
from mepr_text.cli import main
from mepr_text.transcribe_verb import asr_settings

RATE = 16_000
WriteWav = Callable[[Path, np.ndarray], Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def index(tmp_path: Path, write_wav: WriteWav) -> Path:
    """Noise, a text, and a file that is not there."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    columns = {
        "sample_id": ["gone", "noise", "text"],
        "media": ["gone.wav", str(write_wav(tmp_path / "noise.wav", noise)), None],
        "text": [None, None, "As it is."],
    }
    Corpus.build(CorpusMeta("c"), columns).write(tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `mepr-text transcribe`: exit code, stdout, stderr."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["transcribe", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_one_json_object_says_what_was_done(index: Path, run: Run) -> None:
    out = index.with_name("y.parquet")
    code, stdout, stderr = run("--corpus", index, "--out", out, "--json")
    assert code == 0
    (record,) = map(json.loads, stdout.splitlines())
    assert record["corpus"] == "c"
    assert (record["kept"], record["transcribed"], record["reused"]) == (1, 2, 0)
    assert record["statuses"] == {"no_media": 1, "no_text": 1}
    assert record["audio_s"] == 1.0
    assert "noise: no_text no speech was found" in stderr
    assert "gone: no_media" in stderr
    assert Corpus.read(out).texts == [None, None, "As it is."]
    assert Path(record["journal"]).is_file()


def test_resume_and_overwrite(index: Path, run: Run) -> None:
    out = index.with_name("y.parquet")
    words = ("--corpus", index, "--out", out)
    assert run(*words)[0] == 0
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (2, "")
    assert "y.parquet exists (give another path, or --overwrite)" in stderr
    code, stdout, _ = run(*words, "--overwrite", "--resume", "--json")
    assert (code, json.loads(stdout)["reused"]) == (0, 2)
    code, stdout, _ = run(*words, "--overwrite")
    assert code == 0
    assert "no_text" in stdout


def test_real_speech_reaches_the_index(
    real_data: Path, tmp_path: Path, run: Run, transcriber: Any
) -> None:
    media = str(real_data / "clips/obama_speech.mp4")
    columns = {
        "sample_id": ["cut", "speech"],
        "media": [media] * 2,
        "start_s": [4.0, None],
        "end_s": [8.0, None],
        "text": [None] * 2,
    }
    Corpus.build(CorpusMeta("c"), columns).write(tmp_path / "x.parquet")
    assert run("--corpus", tmp_path / "x.parquet", "--out", tmp_path / "y.parquet")[0] == 0
    found = Corpus.read(tmp_path / "y.parquet")
    assert "today" in str(found.texts[1]).lower()
    assert "negotiations" in str(found.texts[1])
    assert "negotiations" not in str(found.texts[0])
    assert "United States" in str(found.texts[0])
    assert list(found.column("text_source")) == ["asr", "asr"]
    assert all(0.4 < confidence < 1 for confidence in found.column("asr_confidence"))
    (described,) = found.meta.import_report["transcriptions"].values()
    assert described["spec"] == transcriber.spec


def test_a_missing_extra_is_named(index: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--corpus", index, "--out", index.with_name("y.parquet"))
    for module in ("faster_whisper", "av"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            code, stdout, stderr = run(*words)
        assert (code, stdout) == (2, "")
        assert "pip install 'mepr-text[asr]'" in stderr
    assert not index.with_name("y.asr.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--language", "xx"), "does not know the language 'xx'"),
        (("--device", "mps"), "cannot run on the device 'mps'"),
        (("--model", "./nowhere"), "nowhere"),
        (("--set", "asr.beam=3"), "did you mean 'beam_size'?"),
        (("--set", "encoder.id=3"), "transcribe reads asr.* only"),
        (("--set", "asr.compute_type=float7"), "cannot be loaded on cpu"),
    ],
)
def test_mistakes_are_one_line(index: Path, run: Run, words: tuple[str, ...], message: str) -> None:
    code, stdout, stderr = run("--corpus", index, "--out", index.with_name("y.parquet"), *words)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("mepr-text: error: ")
    assert message in stderr
    assert stderr.count("\n") == 1


def test_settings_come_from_profile_model_language_and_set() -> None:
    given = {"profile": None, "model": None, "language": None, "set": []}
    assert asr_settings(Namespace(**given)) == PROFILES["small"]
    assert asr_settings(Namespace(**given | {"profile": "paper"})) == PROFILES["paper"]
    assert PROFILES["paper"].model == "Systran/faster-whisper-large-v3"
    found = asr_settings(
        Namespace(
            **given | {"model": "./w", "language": "auto", "set": ["asr.beam_size=1"]},
        )
    )
    assert (found.model, found.needs, found.language, found.beam_size) == ("./w", "", "auto", 1)
    # The limit was measured for the packaged model only.
    assert found.faint_no_speech_above == 0
    with pytest.raises(ConfigError, match="takes int"):
        asr_settings(Namespace(**given | {"set": ["asr.beam_size=x"]}))
