"""Ablation: which variants, their table, and that a table does not depend on interruptions."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mepr_fusion.studies.work
from mepr_fusion.cli import main
from mepr_fusion.settings import ComponentSettings, FusionSettings
from mepr_fusion.studies.ablate import (
    COMPONENTS,
    FULL,
    parse_components,
    parse_modalities,
    variants,
)
from mepr_fusion.studies.ablate_table import Scored, difference, holm, mean_and_spread, two_sided
from mepr_fusion.studies.jobs import Job, Source, run_jobs
from mepr_shared.additive import trait_statistics
from mepr_shared.errors import ConfigError
from mepr_shared.intervals import Resampling
from mepr_shared.scoring import TRAIT
from mepr_shared.train.compare_runs import compare_runs
from mepr_shared.train.runs import Run

KNOWN = ("audio", "face", "text")
TABLES = ("ablation.json", "ablation.md", "ablation.csv")
OPTIONS = (
    *("--modalities", "text", "--components", "cross_attention", "--seeds", "2"),
    *("--set", "model.width=16", "--set", "model.heads=2", "--set", "fit.epochs=2"),
    *("--set", "fit.learning_rate=0.003", "--set", "fit.precision=float32"),
)


def ablate(folder: Path, target: Path, *more: str) -> int:
    corpora = [str(folder / f"{name}.parquet") for name in ("films", "talks")]
    data = ("--corpus", corpora[0], "--corpus", corpora[1], "--exports", str(folder / "exports"))
    return main(["ablate", *data, "--run", str(target), *OPTIONS, *more])


@pytest.fixture(scope="module")
def ablation(union, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("ablation") / "a"
    assert ablate(union, target) == 0
    return target


def records(ablation: Path) -> dict[str, dict]:
    content = json.loads((ablation / "ablation.json").read_text())
    return {record["variant"]: record for record in content["variants"]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("single", [("audio",), ("face",), ("text",)]),
        ("leave-one-out", [("audio", "face"), ("audio", "text"), ("face", "text")]),
        ("text+audio,face", [("audio", "text"), ("face",)]),
        ("text,text,single", [("text",), ("audio",), ("face",)]),
        ("audio+face+text", []),
    ],
)
def test_subsets_are_read_in_the_order_of_the_modalities(text, found):
    assert parse_modalities(text, KNOWN) == found


def test_all_subsets_are_all_but_the_full_one():
    found = parse_modalities("all-subsets", KNOWN)
    assert len(found) == len(set(found)) == 2**3 - 2 and KNOWN not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio+gaze", "'gaze' is neither"),
        ("audoi", "did you mean 'audio'"),
        ("audio+audio", "names a modality twice"),
        ("audio+", "'' is neither"),
        ("", "'' is neither"),
    ],
)
def test_subsets_that_cannot_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_modalities(text, KNOWN)
    with pytest.raises(ConfigError, match="there is only audio"):
        parse_modalities("leave-one-out", ["audio"])


def test_components_are_those_the_full_model_has():
    settings = FusionSettings(ssl=True, weighting="gradnorm")
    assert parse_components("all", settings) == list(COMPONENTS)
    plain = replace(settings, ssl=False, weighting="equal")
    without = replace(plain, components=ComponentSettings(trait_guide_bank=False))
    assert set(COMPONENTS) - set(parse_components("all", without)) == {
        *("ssl", "gradnorm", "trait_guide_bank")
    }
    with pytest.raises(ConfigError, match="did you mean 'graph_attention'"):
        parse_components("graph_atention", settings)
    with pytest.raises(ConfigError, match="--set components.trait_guide_bank=on"):
        parse_components("trait_guide_bank", without)
    with pytest.raises(ConfigError, match="--set weighting=gradnorm"):
        parse_components("gradnorm", plain)


def test_a_variant_changes_only_what_it_names():
    found = {v.name: v for v in variants(KNOWN, FusionSettings(ssl=True, weighting="gradnorm"))}
    assert next(iter(found)) == FULL and not found[FULL].settings
    assert found["no_gradnorm"].settings == {"weighting": "equal"}
    assert found["no_ssl"].settings == {"ssl": False}
    assert found["no_graph_attention"].settings == {"components": {"graph_attention": False}}
    assert found["audio+text"].modalities == ("audio", "text")
    assert found["no_ssl"].modalities == KNOWN


def test_runs_are_ordinary_and_their_mean_and_spread_stand_in_the_table(ablation):
    found = records(ablation)
    assert list(found) == ["full", "text", "no_cross_attention"]
    for name, record in found.items():
        runs = [Run.load(ablation / "runs" / name / f"seed-{seed}") for seed in (0, 1)]
        assert [run.config["settings"]["fit"]["seed"] for run in runs] == [0, 1]
        for column, score in (("films/uar", "films/uar"), ("films/ccc", "films/ccc")):
            values = [run.metrics["val"][score] for run in runs]
            assert record["scores"][column]["values"] == pytest.approx(values, abs=1e-6)
            assert record["scores"][column]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
            assert record["scores"][column]["std"] == pytest.approx(
                np.std(values, ddof=1), abs=1e-6
            )
    assert set(found["full"]["scores"]) == {"films/uar", "films/ccc", "talks/mwacc"}
    assert found["text"]["scores"]["films/uar"]["n"] == 40
    assert found["text"]["scores"]["films/uar"]["unanswered"] == 20
    assert found["no_cross_attention"]["parameters"] < found["full"]["parameters"]
    with (ablation / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == list(found)
    assert float(rows[1]["films/ccc"]) == found["text"]["scores"]["films/ccc"]["mean"]


@pytest.mark.parametrize("variant", ["text", "no_cross_attention"])
def test_differences_are_those_of_a_direct_comparison(union, ablation, tmp_path, variant):
    """With one seed everything is `compare` of the two runs; with two, the mean difference."""
    both = records(ablation)[variant]["differences"]
    direct = []
    for seed in (0, 1):
        runs = [Run.load(ablation / "runs" / name / f"seed-{seed}") for name in (FULL, variant)]
        direct.append({entry["corpus"]: entry for entry in compare_runs(*runs)["corpora"]})
    for column, found in both.items():
        corpus, _, score = column.partition("/")
        task = "traits" if score == "ccc" else "emotion"
        wanted = [entry[corpus][task] for entry in direct]
        assert found["n"] == wanted[0]["n"] == (40 if variant == "text" else 60)
        mean = np.mean([entry[score]["difference"] for entry in wanted])
        assert found["difference"] == pytest.approx(mean, abs=1e-9)
        assert found["ci"][0] <= found["ci"][1]
    # The same table with the first seed only: nothing is trained again.
    assert ablate(union, ablation, "--seeds", "1", "--resume") == 0
    once = records(ablation)[variant]["differences"]
    assert ablate(union, ablation, "--resume") == 0
    for column, found in once.items():
        corpus, _, score = column.partition("/")
        wanted = direct[0][corpus]["traits" if score == "ccc" else "emotion"][score]
        assert found["difference"] == pytest.approx(wanted["difference"], abs=1e-12)
        assert found["ci"] == pytest.approx(wanted["ci"], abs=1e-12)


def test_an_interrupted_ablation_ends_with_the_same_table(union, ablation, tmp_path, monkeypatch):
    real, calls = mepr_fusion.studies.work.train, []

    def interrupted(*arguments, **options):
        calls.append(arguments)

        def stop(record):
            if len(calls) == 3 and record["epoch"] == 1:
                raise KeyboardInterrupt

        return real(*arguments, **options, on_epoch=stop)

    target = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr(mepr_fusion.studies.work, "train", interrupted)
        assert ablate(union, target) == 130
    finished = sorted(path.parent for path in target.glob("runs/*/*/metrics.json"))
    assert len(finished) == 2 and not (target / "ablation.md").exists()
    # Killed before the run of the next job had its first file.
    (target / "runs" / "full" / "seed-1").mkdir(parents=True)
    (target / "runs" / "full" / "seed-1" / ".config.json.x").touch()
    before = [(path / "weights.safetensors").stat().st_mtime_ns for path in finished]
    assert ablate(union, target) == 2
    assert ablate(union, target, "--resume") == 0
    assert [(path / "weights.safetensors").stat().st_mtime_ns for path in finished] == before
    for name in TABLES:
        assert (target / name).read_bytes() == (ablation / name).read_bytes()


def test_another_question_is_not_put_into_the_same_folder(union, ablation, capsys):
    assert ablate(union, ablation) == 2
    assert "--resume goes on" in capsys.readouterr().err
    assert ablate(union, ablation, "--resume", "--set", "fit.epochs=3") == 2
    assert "another settings.fit.epochs: 2, now 3" in capsys.readouterr().err
    assert ablate(union, ablation, "--resume", "--export", "face=x") == 2
    assert "keeps the exports" in capsys.readouterr().err


def test_a_variant_that_fails_is_named_and_ends_nothing(union, tmp_path, monkeypatch, capsys):
    real = mepr_fusion.studies.work.train

    def fails(inputs, settings, *arguments, **options):
        if not settings.components.cross_attention:
            raise RuntimeError("no memory\nat all")
        return real(inputs, settings, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mepr_fusion.studies.work, "train", fails)
        assert ablate(union, tmp_path / "a", "--seeds", "1", "--set", "fit.epochs=1") == 1
    assert "FAILED: RuntimeError: no memory" in capsys.readouterr().err
    found = records(tmp_path / "a")
    assert found["no_cross_attention"]["failed"] == {"0": "RuntimeError: no memory"}
    assert found["no_cross_attention"]["score"]["mean"] is None
    assert found["text"]["differences"]["films/ccc"]["n"] == 40
    text = (tmp_path / "a" / "ablation.md").read_text()
    assert "no_cross_attention, seed 0 failed: RuntimeError: no memory" in text


WORK = """
import os
from pathlib import Path

def work(job, device):
    if job.name == "dies":
        os._exit(9)
    job.run.mkdir(parents=True)
    (job.run / "device").write_text(device + " " + os.environ["OMP_NUM_THREADS"])
"""


def test_a_worker_that_dies_costs_one_job(tmp_path, monkeypatch):
    (tmp_path / "ablate_test_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("ablate_test_work", None)
    work = importlib.import_module("ablate_test_work").work
    source = Source((), tmp_path, {})
    names = ("one", "dies", "two")
    jobs = [Job(name, source, None, {}, tmp_path / name) for name in names]
    failed = run_jobs(work, jobs, workers=2, devices=("a", "b"))
    assert failed == {"dies": "its process ended with code 9"}
    said = {(tmp_path / name / "device").read_text().split()[0] for name in ("one", "two")}
    assert said <= {"a", "b"}
    assert run_jobs(work, [replace(jobs[0], run=tmp_path / "alone")]) == {}


def test_seeds_are_averaged_inside_each_draw():
    random = np.random.default_rng(0)
    targets = random.uniform(size=(60, 5))
    sources = [f"s{i // 2}" for i in range(60)]

    def statistics(noise: float) -> np.ndarray:
        scores = np.clip(targets + random.normal(0, noise, targets.shape), 0, 1)
        return trait_statistics(targets, scores, 0.5)

    full = Scored(np.ones(60, bool), np.stack([statistics(0.1), statistics(0.2)], axis=1))
    worse = Scored(np.ones(60, bool), np.stack([statistics(0.6), statistics(0.7)], axis=1))
    how = Resampling(resamples=200)
    found = difference(full, worse, sources, TRAIT, "ccc", how)

    def mean_score(part: Scored, weight: np.ndarray) -> float:
        totals = np.einsum("n,ns...->s...", weight, part.statistics)
        return float(TRAIT.scores_from(totals)["ccc"].mean())

    generator = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        weight = np.bincount(generator.integers(0, 30, 30), minlength=30).astype(float)
        # Sources are sorted by name, as `intervals.clusters` does.
        order = np.unique(sources, return_inverse=True)[1]
        draws.append(mean_score(worse, weight[order]) - mean_score(full, weight[order]))
    assert found["difference"] == pytest.approx(
        mean_score(worse, np.ones(60)) - mean_score(full, np.ones(60))
    )
    assert found["ci"] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert found["p"] == pytest.approx(2 / 201)


def test_holm_and_p_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert two_sided(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(0.06)
    assert two_sided(np.zeros(10)) == 1.0 and two_sided(np.array([])) is None
    assert mean_and_spread([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}
    assert mean_and_spread([0.5, None])["mean"] is None
