"""The `mepr-fusion` command. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mepr_fusion import __version__
from mepr_shared.cli.output import Parser, run_command
from mepr_shared.cli.verbs import add_verb


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
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
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
        verbs, "report", "mepr_fusion.verbs:run_report", "report.md with tables and figures"
    )
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument(
        "--split",
        action="append",
        choices=("train", "val", "test"),
        help="splits to score (default: val)",
    )
    _device(verb)


def _device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


if __name__ == "__main__":
    sys.exit(main())
