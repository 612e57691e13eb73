"""`mepr extract`: what one pass over the videos stores is what the packages store by themselves."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.testing.pictures import person_video

LOOKING = ("face", "body", "scene")
MAINS = {f"mepr-{name}": f"mepr_{name}.cli" for name in LOOKING} | {"mepr": "mepr_shared.cli.main"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command in this process, where models are loaded once."""

    def run(name: str, *words: object, code: int = 0) -> Any:
        capsys.readouterr()
        try:
            found = importlib.import_module(MAINS[name]).main([str(word) for word in words])
        except SystemExit as stop:
            found = int(stop.code or 0)
        out = capsys.readouterr()
        assert found == code, out.err
        return out

    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of a person, one file that is none, one clip without media."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "bad.mp4").write_text("words, not pictures")
    media = [person_video(folder / f"{seed}.mp4", 1.0, seed) for seed in (1, 2)]
    columns = {
        "sample_id": ["one", "two", "bad", "none"],
        "media": [*map(str, media), str(folder / "bad.mp4"), None],
    }
    path = folder / "clips.parquet"
    Corpus.build(CorpusMeta("clips"), columns).write(path)
    return path


def stores(root: Path) -> dict[str, FrameStore]:
    return {name: FrameStore.find(root, "clips", name) for name in LOOKING}


def test_together_equals_one_by_one(corpus: Path, tmp_path: Path, command) -> None:
    where = ("--corpus", corpus, "--json", "--store")
    done = command(
        *("mepr", "extract", "--modalities", ",".join(LOOKING), *where, tmp_path / "together"),
        *("--batch", "5", "--workers", "2", "--set", "face.frames=6", "--set", "body.frames=6"),
    )
    records = {r["modality"]: r for r in map(json.loads, done.out.splitlines())}
    assert set(records) == set(LOOKING)
    for record in records.values():
        assert record["statuses"] == {"ok": 2, "decode_error": 1, "no_media": 1}
        assert set(record["parts"]) == {"decode", "wait", "look", "crop", "encode"}
    assert "peak memory" in done.err
    for name in LOOKING:
        frames = ("--set", "encoder.frames=6") if name != "scene" else ()
        command(f"mepr-{name}", "extract", *where, tmp_path / "alone", *frames)
    together, alone = stores(tmp_path / "together"), stores(tmp_path / "alone")
    for name in LOOKING:
        assert together[name].key == alone[name].key
        ids = ["one", "two", "bad", "none"]
        mine, other = together[name], alone[name]
        rows, others = mine.row_of(ids), other.row_of(ids)
        assert mine.status[rows].tolist() == other.status[others].tolist()
        for row, same in zip(rows[:2], others[:2], strict=True):
            ours, theirs = mine.batch(np.array([row]))[0], other.batch(np.array([same]))[0]
            # Stored as float16: a difference of 1e-5 can fall on either side of a step.
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)
            np.testing.assert_array_equal(mine.frame_mask(row), other.frame_mask(same))
    again = command("mepr", "extract", "--modalities", "scene", *where, tmp_path / "together")
    assert json.loads(again.out)["extracted"] == 0


def test_all_installed_modalities_with_input(corpus: Path, tmp_path: Path, command) -> None:
    done = command("mepr", "extract", "--corpus", corpus, "--store", tmp_path, "--json")
    found = {json.loads(line)["modality"] for line in done.out.splitlines()}
    assert found == {"audio", *LOOKING}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--modalities", "face,bdy"), "did you mean 'body'"),
        (("--modalities", "face", "--set", "body.frames=2"), "known: face"),
        (("--modalities", "face", "--set", "face.frame=2"), "did you mean 'frames'"),
        (("--modalities", "face", "--set", "face.frames=0"), "it takes 1 or more"),
        (("--modalities", "face", "--batch", "none"), "it takes auto or a number"),
    ],
)
def test_refusals(
    corpus: Path, tmp_path: Path, command, options: tuple[str, ...], words: str
) -> None:
    done = command("mepr", "extract", "--corpus", corpus, "--store", tmp_path, *options, code=2)
    assert words in done.err and done.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
