"""The `mepr-body` command: the verbs that every modality has, and `preview`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mepr_body import __version__
from mepr_body.plugin import BODY
from mepr_shared.cli.modality import run
from mepr_shared.cli.preview import add_preview


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run(BODY, __version__, argv, extra_verbs=add_preview)


if __name__ == "__main__":
    sys.exit(main())
