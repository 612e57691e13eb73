"""Builds a modality package's command from its plugin: the same verbs in every package.

Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mepr_shared.cli.output import Parser, run_command
from mepr_shared.cli.verbs import add_group, add_verb, set_option
from mepr_shared.plugin import Modality

Extra = Callable[[Any], None]


def run(
    modality: Modality,
    version: str,
    argv: Sequence[str] | None,
    *,
    extra_verbs: Extra | None = None,
) -> int:
    """Run the package's command.

    Args:
        extra_verbs: adds a package's own verbs to the subparsers it is given.
    """
    parser = build_parser(modality, version)
    if extra_verbs:
        extra_verbs(parser.verbs)  # type: ignore[attr-defined]
    return run_command(parser, argv)


def build_parser(modality: Modality, version: str) -> argparse.ArgumentParser:
    """The parser of `mepr-<modality>`."""
    parser = Parser(prog=modality.distribution, description=(modality.__doc__ or "").strip())
    parser.add_argument("--version", action="version", version=version)
    parser.set_defaults(modality=modality, debug=False, handler=None)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    parser.verbs = verbs  # type: ignore[attr-defined]
    _extract(verbs)
    _train(verbs)
    _evaluate(verbs)
    _crossval(verbs)
    _export(verbs)
    _predict(verbs, modality)
    _search(verbs)
    return parser


def _extract(verbs: Any) -> None:
    verb = add_verb(
        verbs, "extract", "modality_verbs:run_extract", "encode a corpus into a frame store"
    )
    verb.add_argument("--corpus", type=Path, action="append", required=True, metavar="X.parquet")
    verb.add_argument("--store", type=Path, required=True)
    encoder_options(verb)
    set_option(verb, "encoder.KEY=VALUE")
    verb.add_argument(
        "--resume",
        action="store_true",
        help="go on after an interruption (an extraction always reuses what is finished)",
    )
    device_option(verb)


def _train(verbs: Any) -> None:
    stages = add_group(verbs, "train", "train stage 1 (one task) or stage 2 (both tasks)", "STAGE")
    stage1 = add_verb(
        stages, "stage1", "modality_verbs:run_stage1", "one task on one or several corpora"
    )
    stage1.add_argument("--task", choices=("emotion", "traits"), required=True)
    _augment_option(stage1)
    stage2 = add_verb(
        stages, "stage2", "modality_verbs:run_stage2", "both tasks over two frozen stage-1 runs"
    )
    stage2.add_argument("--emotion-run", type=Path, required=True, metavar="RUN")
    stage2.add_argument("--traits-run", type=Path, required=True, metavar="RUN")
    for verb in (stage1, stage2):
        _data_options(verb)
        verb.add_argument("--run", type=Path, required=True, help="directory of the new run")
        verb.add_argument("--config", type=Path, help="TOML file laid over the profile")
        set_option(verb)
        verb.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def _evaluate(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "evaluate",
        "modality_verbs:run_evaluate",
        "scores, baseline and intervals on a split",
    )
    verb.add_argument("--run", type=Path, required=True)
    _data_options(verb)
    verb.add_argument("--split", choices=("train", "val", "test"), default="val")
    verb.add_argument("--by", metavar="COLUMN", help="the same per group of a corpus column")


def _crossval(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "crossval",
        "crossval_verb:run_crossval",
        "stage 1 on small corpora: K models, every clip judged by one that never saw its source",
    )
    verb.add_argument("--task", choices=("emotion", "traits"), required=True)
    verb.add_argument("--corpus", type=Path, required=True, metavar="X.parquet")
    verb.add_argument("--store", type=Path, required=True)
    encoder_options(verb)
    device_option(verb)
    _augment_option(verb)
    verb.add_argument("--run", type=Path, required=True, help="directory of the fold runs")
    verb.add_argument("--folds", type=int, default=5, metavar="K")
    verb.add_argument("--by", default="source_id", metavar="COLUMN", help="(default: source_id)")
    verb.add_argument("--config", type=Path, help="TOML file laid over the profile")
    set_option(verb)


def _export(verbs: Any) -> None:
    verb = add_verb(
        verbs, "export", "modality_verbs:run_export", "predictions and embeddings for stage 3"
    )
    verb.add_argument(
        "--run", type=Path, required=True, help="a stage-2 run, or stage 1 where it has one task"
    )
    _data_options(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="EXPORTS")
    verb.add_argument(
        "--folds", type=int, default=0, metavar="K", help="out-of-fold rows for the training split"
    )
    verb.add_argument("--update", action="store_true", help="keep rows whose input is unchanged")
    verb.add_argument("--alias", metavar="NAME", help="name this export, e.g. `current`")
    verb.add_argument("--resume", action="store_true", help="go on with an interrupted export")


def _predict(verbs: Any, modality: Modality) -> None:
    what = "a text" if "text" in modality.inputs else "a media file"
    verb = add_verb(
        verbs, "predict", "modality_verbs:run_predict", f"emotions and traits of {what}"
    )
    verb.add_argument("input", nargs="+", metavar="TEXT" if "text" in modality.inputs else "FILE")
    verb.add_argument("--run", type=Path, required=True, help="a stage-1 or stage-2 run")
    device_option(verb)


def _search(verbs: Any) -> None:
    summary = "look for better stage-1 settings (Optuna)"
    verb = add_verb(verbs, "search", "search_verb:run_search", summary)
    verb.add_argument("--task", choices=("emotion", "traits"), required=True)
    _data_options(verb)
    verb.add_argument("--study", type=Path, required=True, help="directory of the study")
    verb.add_argument("--space", type=Path, help="TOML file: key = [choices] or {low, high, log}")
    verb.add_argument("--trials", type=int, default=20, metavar="N")
    verb.add_argument("--sampler", choices=("tpe", "grid", "greedy"), default="tpe")
    verb.add_argument("--metric", default="score", help="validation score to maximise")
    verb.add_argument("--workers", type=int, default=1)
    verb.add_argument("--config", type=Path, help="TOML file laid over the profile")
    set_option(verb)


def _data_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--corpus", type=Path, action="append", required=True, metavar="X.parquet")
    verb.add_argument("--store", type=Path, required=True)
    encoder_options(verb)
    device_option(verb)


def _augment_option(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--augment",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="train on copies too that were extracted with --set encoder.KEY=VALUE",
    )


def encoder_options(verb: argparse.ArgumentParser) -> None:
    """`--profile` or `--encoder`."""
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--profile", choices=("small", "paper"), help="default: small")
    which.add_argument("--encoder", metavar="ID_OR_DIR", help="any encoder instead of a profile's")


def device_option(verb: argparse.ArgumentParser) -> None:
    """`--device`."""
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
