"""The `mepr-text` command: the verbs of every modality, `predict` on plain text, `transcribe`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mepr_shared.cli.modality import run
from mepr_shared.cli.verbs import add_verb, set_option
from mepr_text import __version__
from mepr_text.plugin import TEXT


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run(TEXT, __version__, argv, extra_verbs=_transcribe)


def _transcribe(verbs: Any) -> None:
    verb = add_verb(
        verbs,
        "transcribe",
        "mepr_text.transcribe_verb:run_transcribe",
        "fill in the texts of clips that have media and none (Whisper)",
    )
    verb.add_argument("--corpus", type=Path, required=True, metavar="X.parquet")
    verb.add_argument(
        "--out", type=Path, required=True, metavar="Y.parquet", help="the index to write"
    )
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--profile", choices=("small", "paper"), help="default: small")
    which.add_argument(
        "--model", metavar="ID_OR_DIR", help="any Whisper in CTranslate2's format instead"
    )
    verb.add_argument("--language", metavar="CODE", help="e.g. en, or auto (default: en)")
    set_option(verb, "asr.KEY=VALUE")
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    verb.add_argument("--resume", action="store_true", help="go on after an interruption")
    verb.add_argument("--overwrite", action="store_true", help="replace an existing index")


if __name__ == "__main__":
    sys.exit(main())
