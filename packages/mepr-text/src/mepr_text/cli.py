"""The `mepr-text` command: the verbs that every modality has, and `predict` on plain text."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mepr_shared.cli.modality import run
from mepr_text import __version__
from mepr_text.plugin import TEXT


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run(TEXT, __version__, argv)


if __name__ == "__main__":
    sys.exit(main())
