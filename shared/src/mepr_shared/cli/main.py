"""The `mepr` command: corpora, exports, runs, and what is installed.

Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mepr_shared import __version__
from mepr_shared.cli.corpus import add_corpus
from mepr_shared.cli.export import add_export
from mepr_shared.cli.extract import add_extract
from mepr_shared.cli.output import Parser, run_command
from mepr_shared.cli.runs import add_runs
from mepr_shared.cli.verbs import add_verb


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run_command(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mepr`."""
    parser = Parser(
        prog="mepr",
        description="Corpora, extraction, exports and runs of emotion and personality recognition.",
        epilog="Each modality has a command of its own (mepr-text, ...); mepr-fusion joins them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(debug=False, handler=None)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    add_corpus(verbs)
    add_extract(verbs)
    add_verb(verbs, "modalities", "doctor:run_modalities", "list the installed modality packages")
    doctor = add_verb(verbs, "doctor", "doctor:run_doctor", "try what training and export need")
    doctor.add_argument(
        "--path",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where stores, exports and runs will lie (default: here)",
    )
    add_export(verbs)
    add_runs(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
