"""`tools/pipeline.py`: what it plans and leaves out, and all stages through the real commands."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from mepr_shared.corpora.index import Corpus, CorpusMeta

ALL = ("stage1", "stage2", "export", "stage3")
TINY = ("--set", "fit.epochs=1")
# One modality that listens to the words and one that looks; each package's own tests train all
# stages of the others, `make demo` all five.
OF_MEDIA = ("face",)
CHOSEN = ("--modalities", "text,face")
TEXT = SimpleNamespace(name="text", distribution="mepr-text", inputs=("text",))


@pytest.fixture(scope="session")
def tool(workspace: Path) -> Path:
    return workspace / "tools/pipeline.py"


@pytest.fixture
def pipeline(tool: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("pipeline", tool)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pipeline", module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def corpus(splits: list[str], texts: list[str | None], **labels: list) -> Corpus:
    columns = {
        "sample_id": [str(number) for number in range(len(splits))],
        "split": splits,
        "text": texts,
        **labels,
    }
    return Corpus.build(CorpusMeta("toy"), columns)


EMOTION, OTHER = np.eye(7, dtype=np.float32)[:2].tolist()
TRAITS = [0.5] * 5


def test_plans_each_task_where_input_and_label_meet(pipeline: ModuleType) -> None:
    made = pipeline.plan(
        TEXT,
        [
            corpus(
                ["train", "val", "train", "val", "val"],
                ["a", "b", None, "d", "e"],
                emotion=[EMOTION, EMOTION, None, None, OTHER],
                # The only training clip with traits has no text.
                traits=[None, None, TRAITS, TRAITS, None],
            )
        ],
    )
    assert [c.name for c in made.inputs] == ["toy"]
    assert [c.name for c in made.labelled["emotion"]] == ["toy"]
    assert made.labelled["traits"] == []
    assert made.skipped == ["text x toy x traits: no clip with labels and input in train"]


def test_emotions_that_are_all_alike_cannot_select(pipeline: ModuleType) -> None:
    splits = ["train", "train", "val", "val"]
    alike = corpus(splits, list("abcd"), emotion=[EMOTION, OTHER, OTHER, OTHER])
    made = pipeline.plan(TEXT, [alike])
    assert made.labelled["emotion"] == []
    assert "text x toy x emotion: all clips in val have the same emotion" in made.skipped


def test_a_corpus_without_input_is_left_out_whole(pipeline: ModuleType) -> None:
    made = pipeline.plan(TEXT, [corpus(["train", "val"], [None, None], emotion=[EMOTION] * 2)])
    assert made.inputs == []
    assert made.skipped == ["text x toy: no clip has text"]


def test_a_missing_stage_is_said(
    pipeline: ModuleType, tmp_path: Path, demo: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--corpus", *map(str, demo), "--runs", str(tmp_path)]
    assert pipeline.main(["stage2", *arguments]) == 2
    assert "stage1-emotion is not trained" in capsys.readouterr().err
    assert pipeline.main(["export", *arguments]) == 2
    assert "stage2 is not trained" in capsys.readouterr().err
    assert pipeline.main(["stage3", *arguments]) == 2
    assert "it has no exports in" in capsys.readouterr().err


def test_a_modality_that_is_not_installed_is_named(
    pipeline: ModuleType, tmp_path: Path, demo: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--corpus", *map(str, demo), "--runs", str(tmp_path), "--modalities", "text,fase"]
    assert pipeline.main(["stage1", *arguments]) == 2
    error = capsys.readouterr().err
    assert "no installed modality 'fase'" in error and "'face'" in error


def test_two_corpora_of_one_name_are_refused(
    pipeline: ModuleType, tmp_path: Path, demo: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--corpus", str(demo[0]), str(demo[0]), "--runs", str(tmp_path)]
    assert pipeline.main(["stage1", *arguments]) == 2
    assert "two of the corpora have the same name" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_stage3_is_told_the_ids_of_the_last_export(
    pipeline: ModuleType, tmp_path: Path, demo: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {"text:demo_both": "1f", "text:demo_traits": "2f", "text:another": "3f"}
    (tmp_path / "last-export.json").write_text(json.dumps(ids))
    for corpus_name in ("demo_both", "demo_traits"):
        manifest = tmp_path / "exports" / corpus_name / "text" / "1f" / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.touch()
    called: list[list[str]] = []
    monkeypatch.setattr(pipeline, "call", lambda command: called.append(command))
    assert pipeline.main(["stage3", "--corpus", *map(str, demo), "--runs", str(tmp_path)]) == 0
    train, report = called
    assert [word for word in train if word.startswith("--export=")] == [
        "--export=text:demo_both=1f",
        "--export=text:demo_traits=2f",
    ]
    # Only corpora with exports are joined.
    assert [Path(word).stem for word in train if word.endswith(".parquet")] == [
        "demo_both",
        "demo_traits",
    ]
    assert report == ["mepr-fusion", "report", "--run", str(tmp_path / "stage3")]


def test_a_modality_of_one_task_exports_its_stage1_run(
    pipeline: ModuleType, tmp_path: Path, demo: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tmp_path / "text" / "stage1-emotion"
    trained.mkdir(parents=True)
    (trained / "metrics.json").write_text("{}")
    called: list[list[str]] = []
    monkeypatch.setattr(pipeline, "call", lambda command, **_: called.append(command) or "")
    assert pipeline.main(["export", "--corpus", *map(str, demo), "--runs", str(tmp_path)]) == 0
    [command] = called
    assert command[command.index("--run") + 1] == str(trained)


@pytest.fixture(scope="module")
def finished(tool: Path, tmp_path_factory: pytest.TempPathFactory, command) -> SimpleNamespace:
    """All stages over small demo corpora, once."""
    runs = tmp_path_factory.mktemp("runs")
    folder = tmp_path_factory.mktemp("corpora")
    command("mepr", "corpus", "demo", folder, "--clips", 120, "--seed", 1, "--media-clips", 16)
    demo = sorted(folder.glob("*.parquet"))
    options = ("--corpus", *demo, "--runs", runs, *TINY, *CHOSEN)
    done = command("python", tool, *ALL, *options)
    return SimpleNamespace(runs=runs, options=options, done=done)


@pytest.mark.slow
def test_all_stages_from_text_to_report(finished: SimpleNamespace, command) -> None:
    runs, done = finished.runs, finished.done
    assert "skip text x demo_emotion x traits" in done.stderr
    assert "skip text x demo_traits x emotion" in done.stderr
    stages = ("stage1-emotion", "stage1-traits", "stage2")
    for run in (*(f"{name}/{stage}" for name in (*OF_MEDIA, "text") for stage in stages), "stage3"):
        for name in ("config.json", "weights.safetensors", "metrics.json", "log.jsonl"):
            assert (runs / run / name).is_file(), f"{run}/{name}"
        assert (runs / run / "report.md").read_text().startswith("# ")
        assert list((runs / run / "figures").glob("*.png"))
    ids = json.loads((runs / "last-export.json").read_text())
    text = {"text:demo_emotion", "text:demo_traits", "text:demo_both"}
    assert set(ids) == text | {f"{name}:demo_both" for name in OF_MEDIA}
    command("mepr", "export", "verify", runs / "exports", "--deep")
    # It ends with the report's table and where the report is.
    assert all(word in done.stdout for word in ("constant", "text", *OF_MEDIA))
    assert str(runs / "stage3" / "report.md") in done.stdout + done.stderr


@pytest.mark.slow
def test_called_again_it_changes_nothing(finished: SimpleNamespace, tool: Path, command) -> None:
    kept = [
        *finished.runs.glob("exports/*/*/*/samples/*"),
        *finished.runs.glob("**/weights.safetensors"),
        finished.runs / "last-export.json",
    ]
    before = {file: file.read_bytes() for file in kept}
    command("python", tool, "export", *finished.options)
    assert {file: file.read_bytes() for file in kept} == before
    exports = finished.runs.glob("exports/*/*/*/manifest.json")
    assert len(list(exports)) == 3 + len(OF_MEDIA)
