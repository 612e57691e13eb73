"""The interface of a modality package, as tests. A package subclasses the suite and gets them all.

    class TestFace(ModalityConformance):
        modality = FACE
        ...

Needs pytest and the package's small profile. A guard fails when a subclass replaces a standard
test: a package that cannot pass one has a bug, or the interface has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mepr_shared import config
from mepr_shared.cli.modality import run as run_cli
from mepr_shared.contract import STATUSES
from mepr_shared.plugin import ClipInput, Extractor, Modality, discover, reopen
from mepr_shared.train.settings import Stage1Settings, Stage2Settings

VERBS = ("extract", "train", "evaluate", "export", "predict", "search")
# Small and quick; the real defaults are the profiles'.
TINY = ("fit.epochs=2", "model.kind=transformer", "model.width=16", "model.feedforward=32")
HELP_SECONDS = 0.5


class ModalityConformance:
    """Standard tests of a modality package.

    Attributes:
        modality: the plugin object.
        import_name: e.g. `"mepr_face"`.
    """

    modality: ClassVar[Modality]
    import_name: ClassVar[str]

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        """At least three clips of different length that the encoder can read."""
        raise AssertionError("a subclass gives good_clips()")

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        """Clips that cannot be read, and the status each must get."""
        raise AssertionError("a subclass gives bad_clips()")

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        """An emotion corpus and a traits corpus with train, val and test splits."""
        raise AssertionError("a subclass gives make_corpora()")

    # --- fixtures ----------------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def extractor(cls) -> Extractor:
        """The small profile's encoder."""
        table = config.read_toml(cls.modality.profiles["small"])["encoder"]
        settings: Any = config.build(cls.modality.encoder_settings, table)
        return cls.modality.open_extractor(settings, device="cpu")

    @pytest.fixture(scope="class")
    @classmethod
    def workspace(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
        """Corpora, store, both stages and exports, made through the command line."""
        root = tmp_path_factory.mktemp("conformance")
        emotion, traits = cls.make_corpora(root)
        paths = {"root": root, "emotion": emotion, "traits": traits, "store": root / "store"}
        both = ["--corpus", str(emotion), "--corpus", str(traits), "--store", str(paths["store"])]
        cls.cli("extract", *both)
        for task in ("emotion", "traits"):
            paths[f"run-{task}"] = root / f"stage1-{task}"
            data = ["--corpus", str(paths[task]), "--store", str(paths["store"])]
            cls.cli(
                *("train", "stage1", "--task", task, *data, "--run", str(paths[f"run-{task}"])),
                *(part for item in TINY for part in ("--set", item)),
            )
        paths["run"], paths["exports"] = root / "stage2", root / "exports"
        cls.cli(
            *("train", "stage2", *both, "--run", str(paths["run"])),
            *("--emotion-run", str(paths["run-emotion"])),
            *("--traits-run", str(paths["run-traits"])),
            *("--set", "fit.epochs=1", "--set", "model.width=16"),
        )
        cls.cli("export", "--run", str(paths["run"]), *both, "--out", str(paths["exports"]))
        return paths

    @classmethod
    def cli(cls, *arguments: str, expect: int = 0) -> None:
        """Run the package's command in this process."""
        try:
            code = run_cli(cls.modality, "0", list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        assert code == expect, f"exit code {code} of {' '.join(arguments)}"

    # --- the package -------------------------------------------------------------------------

    def test_standard_tests_are_not_replaced(self) -> None:
        """A subclass adds tests under new names."""
        standard = {name for name in vars(ModalityConformance) if name.startswith("test_")}
        assert not standard & set(vars(type(self)))

    def test_is_discovered(self) -> None:
        """The entry point leads to this very plugin, under its own name."""
        found = {entry.name: entry for entry in discover()}
        assert self.modality.name in found
        entry = found[self.modality.name]
        assert entry.problem == "" and entry.modality is self.modality
        assert entry.distribution == self.modality.distribution

    def test_help_is_quick_and_light(self) -> None:
        """`--help` imports neither torch nor NumPy and answers at once."""
        code = (
            "import sys, importlib\n"
            f"cli = importlib.import_module('{self.import_name}.cli')\n"
            "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
            "heavy = {'torch', 'numpy', 'transformers', 'pyarrow'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            seconds.append(time.perf_counter() - started)
            assert done.returncode == 0, done.stderr
        assert all(verb in done.stdout for verb in VERBS)
        assert min(seconds) < HELP_SECONDS

    def test_profiles_are_valid(self) -> None:
        """Both profiles exist and every key of them is one."""
        assert {"small", "paper"} <= set(self.modality.profiles)
        for path in self.modality.profiles.values():
            tables = config.read_toml(path)
            assert set(tables) <= {"encoder", "emotion", "traits", "stage2"}
            config.build(self.modality.encoder_settings, tables["encoder"], where=str(path))
            for task in ("emotion", "traits"):
                config.build(Stage1Settings, tables.get(task, {}), where=str(path))
            config.build(Stage2Settings, tables.get("stage2", {}), where=str(path))

    # --- the encoder -------------------------------------------------------------------------

    def test_spec_is_plain_and_complete(self, extractor: Extractor) -> None:
        """The spec is JSON and enough to open the same encoder again."""
        assert json.loads(json.dumps(extractor.spec)) == extractor.spec
        assert {"encoder", "revision", "weights_sha256", "settings", "schema"} <= set(
            extractor.spec
        )
        assert reopen(self.modality, extractor.spec, device="cpu").spec == extractor.spec

    def test_features_are_finite_and_shaped(self, extractor: Extractor) -> None:
        """`[T, D]` float32 with one D, one status of the contract, a mask of length T."""
        found = extractor.extract(self.good_clips())
        frames = [features.frames for features in found]
        assert all(f is not None and f.ndim == 2 and f.dtype == np.float32 for f in frames)
        assert len({f.shape[1] for f in frames if f is not None}) == 1
        for features in found:
            assert features.status in STATUSES
            assert features.frames is not None and np.isfinite(features.frames).all()
            assert features.mask is None or features.mask.shape == features.frames.shape[:1]

    def test_batched_equals_single(self, extractor: Extractor) -> None:
        """A clip's features do not depend on what is encoded beside it, or in which order."""
        clips = self.good_clips()
        together = extractor.extract(clips)
        backwards = extractor.extract(clips[::-1])[::-1]
        for clip, one, other in zip(clips, together, backwards, strict=True):
            (alone,) = extractor.extract([clip])
            assert one.frames is not None and other.frames is not None
            assert alone.frames is not None
            np.testing.assert_allclose(one.frames, alone.frames, atol=1e-4)
            np.testing.assert_allclose(other.frames, alone.frames, atol=1e-4)

    def test_bad_input_has_a_status(self, extractor: Extractor) -> None:
        """Bad input never raises and never disturbs its neighbours."""
        good, bad = self.good_clips()[:1], self.bad_clips()
        found = extractor.extract([*good, *(clip for clip, _ in bad)])
        assert found[0].status == "ok"
        for features, (clip, status) in zip(found[1:], bad, strict=True):
            assert (features.status, features.frames) == (status, None), clip
            assert features.reason

    # --- the command line --------------------------------------------------------------------

    def test_pipeline_ends_in_valid_exports(self, workspace: dict[str, Path]) -> None:
        """Extract, both stages and export give exports that deep-verify, every sample in them."""
        from mepr_shared.contract import Export
        from mepr_shared.contract.living import export_folders
        from mepr_shared.contract.verify import verify
        from mepr_shared.corpora.index import Corpus

        folders = export_folders(workspace["exports"])
        assert len(folders) == 2
        for folder in folders:
            assert verify(folder, deep=True) == []
        for task in ("emotion", "traits"):
            corpus = Corpus.read(workspace[task])
            (folder,) = export_folders(workspace["exports"], corpus.name, self.modality.name)
            export = Export.open(folder)
            assert list(export.sample_ids) == corpus.sample_ids
            assert np.isfinite(export.emotion_logits[export.status == "ok"]).all()

    def test_evaluate_prints_one_object_per_corpus(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`evaluate --json` has the keys that other tools rely on."""
        records = self._json(
            capsys,
            *("evaluate", "--run", str(workspace["run"]), *self._data(workspace), "--json"),
        )
        assert len(records) == 2
        for record in records:
            assert {"corpus", "split", "n", "n_dropped", "baseline"} <= set(record)
            scores = record["emotion"] or record["traits"]
            assert {"ci", "n"} <= set(scores)

    def test_extract_again_reuses_everything(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Unchanged inputs cost nothing the second time."""
        for record in self._json(capsys, "extract", *self._data(workspace), "--json"):
            assert record["extracted"] == 0 and record["reused"] > 0

    def test_export_again_is_already_there(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The same run and corpus give the same export id."""
        data = (*self._data(workspace), "--out", str(workspace["exports"]), "--json")
        for record in self._json(capsys, "export", "--run", str(workspace["run"]), *data):
            assert record["already_there"] is True

    def test_existing_run_needs_resume(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A run is never overwritten; with --resume a finished one stays what it is."""
        data = ("--corpus", str(workspace["traits"]), "--store", str(workspace["store"]))
        where = ("--run", str(workspace["run-traits"]))
        tiny = tuple(part for item in TINY for part in ("--set", item))
        train = ("train", "stage1", "--task", "traits", *data, *where, *tiny)
        before = (workspace["run-traits"] / "weights.safetensors").read_bytes()
        self.cli(*train, expect=2)
        assert "--resume" in capsys.readouterr().err
        self.cli(*train, "--resume")
        assert (workspace["run-traits"] / "weights.safetensors").read_bytes() == before

    def test_unknown_key_is_refused(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One line, a suggestion, exit 2, nothing written."""
        new = workspace["root"] / "never"
        data = ("--corpus", str(workspace["traits"]), "--store", str(workspace["store"]))
        train = ("train", "stage1", "--task", "traits", *data, "--run", str(new))
        self.cli(*train, "--set", "fit.epoch=1", expect=2)
        error = capsys.readouterr().err
        assert "did you mean 'epochs'" in error and error.count("\n") == 1
        assert not new.exists()

    def test_search_writes_settings_that_train(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`search` leaves a `best.toml` that `train stage1 --config` accepts."""
        pytest.importorskip("optuna", reason="needs mepr-shared[search]")
        root = workspace["root"]
        space = root / "space.toml"
        space.write_text('"model.width" = [8, 16]\n')
        data = ("--corpus", str(workspace["traits"]), "--store", str(workspace["store"]))
        tiny = tuple(part for item in (*TINY, "fit.epochs=1") for part in ("--set", item))
        study = ("--study", str(root / "study"), "--space", str(space), "--sampler", "grid")
        task = ("--task", "traits")
        records = self._json(capsys, "search", *task, *data, *study, *tiny, "--json")
        assert {record["model.width"] for record in records} == {8, 16}
        best = ("--config", str(root / "study" / "best.toml"), "--run", str(root / "best"))
        self.cli("train", "stage1", *task, *data, *best, "--set", "fit.epochs=1")
        config_json = json.loads((root / "best" / "config.json").read_text())
        assert config_json["settings"]["configurations_tried"] == 2
        assert config_json["settings"]["model"]["width"] == records[0]["model.width"]

    def test_out_of_fold_export(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`export --folds` marks its rows and still deep-verifies."""
        from mepr_shared.contract import Export
        from mepr_shared.contract.verify import verify

        out = ("--out", str(workspace["root"] / "folded"), "--folds", "2", "--json")
        data = self._data(workspace)
        for record in self._json(capsys, "export", "--run", str(workspace["run"]), *data, *out):
            assert record["train_rows"] == "out_of_fold"
            assert verify(Path(record["export"]), deep=True) == []
            folds = Export.open(record["export"]).fold
            assert {fold for fold in folds if fold is not None and fold >= 0} == {0, 1}

    def _data(self, workspace: dict[str, Path]) -> Sequence[str]:
        corpora = ("--corpus", str(workspace["emotion"]), "--corpus", str(workspace["traits"]))
        return (*corpora, "--store", str(workspace["store"]))

    def _json(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        self.cli(*arguments)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
