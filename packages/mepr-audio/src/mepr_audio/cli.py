"""The `mepr-audio` command: the verbs that every modality has."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mepr_audio import __version__
from mepr_audio.plugin import AUDIO
from mepr_shared.cli.modality import run


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run(AUDIO, __version__, argv)


if __name__ == "__main__":
    sys.exit(main())
