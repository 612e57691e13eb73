"""The `mepr-fusion` command. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mepr_fusion import __version__
from mepr_fusion.predict.cli import add_predict
from mepr_fusion.studies.cli import add_studies
from mepr_shared.cli.output import Parser, run_command
from mepr_shared.cli.verbs import add_verb, set_option


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run_command(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mepr-fusion`."""
    parser = Parser(prog="mepr-fusion", description="Stage 3: join exports, train, report.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(debug=False, handler=None)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    _train(verbs)
    _evaluate(verbs)
    _report(verbs)
    _analyze(verbs)
    _import_published(verbs)
    add_studies(verbs)
    add_predict(verbs)
    return parser


def _train(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "train",
        "mepr_fusion.verbs:run_train",
        "train stage 3 on the exports of any modalities",
    )
    verb.add_argument("--corpus", type=Path, action="append", required=True, metavar="X.parquet")
    verb.add_argument("--exports", type=Path, required=True, help="folder of all exports")
    verb.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="MODALITY[:CORPUS]=ID_OR_ALIAS",
        help="which export, where a modality has several",
    )
    verb.add_argument("--run", type=Path, required=True, help="directory of the new run")
    verb.add_argument("--config", type=Path, help="TOML file laid over the defaults")
    set_option(verb)
    verb.add_argument(
        "--min-coverage",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="refuse an export that has data for less than this share of a corpus",
    )
    verb.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    _device(verb)


def _evaluate(verbs: Any) -> None:
    summary = "scores beside a constant, each modality alone and their mean"
    verb = add_verb(verbs, "evaluate", "mepr_fusion.verbs:run_evaluate", summary)
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument("--split", choices=("train", "val", "test"), default="val")
    verb.add_argument("--by", metavar="COLUMN", help="the same per group of a corpus column")
    _device(verb)


def _report(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "report",
        "mepr_fusion.verbs:run_report",
        "report.html, report.md and a model card: tables and figures",
    )
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument(
        "--split",
        action="append",
        choices=("train", "val", "test"),
        help="splits to score (default: val)",
    )
    _device(verb)


def _import_published(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "import-published",
        "mepr_fusion.published.verb:run_import",
        "make a run of the published model's weights",
    )
    verb.add_argument("file", type=Path, metavar="FILE", help="its bare state dict (.pt)")
    verb.add_argument("--run", type=Path, required=True, help="directory of the new run")
    verb.add_argument(
        "--no-trait-guide",
        action="store_true",
        help="leave the file's trait guide bank out, as the released configuration does",
    )
    verb.add_argument(
        "--heads", type=int, default=8, help="attention heads it was trained with (default: 8)"
    )


def _analyze(verbs: Any) -> None:
    summary = "emotion-trait relations, contributions of modalities, calibration"
    verb = add_verb(verbs, "analyze", "mepr_fusion.analyze.verb:run_analyze", summary)
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument("--split", choices=("train", "val", "test"), default="val")
    verb.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/analysis")
    verb.add_argument(
        "--samples",
        type=int,
        default=400,
        metavar="N",
        help="samples whose answers are attributed (default: 400, drawn at random)",
    )
    _device(verb)


def _device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


if __name__ == "__main__":
    sys.exit(main())
