"""The `mepr-scene` command: the verbs that every modality has, and `preview`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mepr_scene import __version__
from mepr_scene.plugin import SCENE
from mepr_shared.cli.modality import run
from mepr_shared.cli.preview import add_preview


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    return run(SCENE, __version__, argv, extra_verbs=add_preview)


if __name__ == "__main__":
    sys.exit(main())
