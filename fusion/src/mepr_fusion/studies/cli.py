"""Verbs that train many models, and the one that shows a model before it is trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_verb, set_option


def add_studies(verbs: Any) -> None:
    """`ablate`, `search`, `matrix` and `explain-config`."""
    _ablate(verbs)
    _search(verbs)
    _matrix(verbs)
    _explain(verbs)


def _ablate(verbs: Any) -> None:
    summary = "what is lost without a modality or a block: one table over seeds"
    verb = add_verb(verbs, "ablate", "mepr_fusion.studies.ablate_verb:run_ablate", summary)
    _data(verb)
    verb.add_argument("--run", type=Path, required=True, metavar="ABLATION", help="its directory")
    verb.add_argument(
        "--modalities",
        metavar="all-subsets|leave-one-out|single|LIST",
        help="subsets to train on, e.g. audio+text,face (default: leave-one-out)",
    )
    verb.add_argument(
        "--components", metavar="all|LIST", help="blocks to switch off one by one (default: all)"
    )
    verb.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per variant")
    verb.add_argument("--split", choices=("val", "test"), default="val", help="scored split")
    _settings(verb)
    _many(verb)


def _search(verbs: Any) -> None:
    summary = "look for better stage-3 settings (Optuna), by validation"
    verb = add_verb(verbs, "search", "mepr_fusion.studies.search_verb:run_search", summary)
    _data(verb)
    verb.add_argument("--study", type=Path, required=True, help="directory of the study")
    verb.add_argument("--space", type=Path, help="TOML file: key = [choices] or {low, high, log}")
    verb.add_argument("--trials", type=int, default=20, metavar="N")
    verb.add_argument("--sampler", choices=("tpe", "grid", "greedy"), default="tpe")
    verb.add_argument("--metric", default="score", help="validation score to maximise")
    verb.add_argument("--workers", type=int, default=1, help="trainings side by side")
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    _settings(verb)


def _matrix(verbs: Any) -> None:
    summary = "train on each corpus, test on every corpus"
    verb = add_verb(verbs, "matrix", "mepr_fusion.studies.matrix_verb:run_matrix", summary)
    _data(verb)
    verb.add_argument("--run", type=Path, required=True, metavar="MATRIX", help="its directory")
    verb.add_argument("--split", choices=("val", "test"), default="val", help="scored split")
    _settings(verb)
    _many(verb)


def _explain(verbs: Any) -> None:
    summary = "the model as built: blocks, shapes, parameters, settings and their origin"
    verb = add_verb(verbs, "explain-config", "mepr_fusion.studies.explain:run_explain", summary)
    verb.add_argument("--run", type=Path, help="of a run that exists")
    verb.add_argument(
        "--widths", metavar="audio=512,text=512", help="modalities and widths of their features"
    )
    verb.add_argument("--corpus", type=Path, action="append", default=[], metavar="X.parquet")
    verb.add_argument("--exports", type=Path, help="folder of all exports")
    _choice(verb)
    _settings(verb)


def _data(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--corpus", type=Path, action="append", required=True, metavar="X.parquet")
    verb.add_argument("--exports", type=Path, required=True, help="folder of all exports")
    _choice(verb)
    verb.add_argument(
        "--min-coverage",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="refuse an export that has data for less than this share of a corpus",
    )


def _choice(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="MODALITY[:CORPUS]=ID_OR_ALIAS",
        help="which export, where a modality has several",
    )


def _settings(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", type=Path, help="TOML file laid over the defaults")
    set_option(verb)


def _many(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--workers", type=int, default=1, help="trainings side by side; they share the cores"
    )
    verb.add_argument(
        "--device", default="cpu", help="cpu, cuda, or several in turn: cuda:0,cuda:1"
    )
    verb.add_argument("--resume", action="store_true", help="go on; finished runs stay")
