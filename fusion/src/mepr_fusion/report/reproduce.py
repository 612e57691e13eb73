"""The one command that repeats a run."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mepr_fusion.settings import DEFAULTS, FusionSettings
from mepr_shared import config
from mepr_shared.train.runs import Run


def reproduce_command(run: Run, *, start: Path | None = None) -> str:
    """`mepr-fusion train ...` with every input and every setting that is not the default.

    Args:
        run: a stage-3 run.
        start: the folder it would be called in, the current one where None; paths beneath it are
            given relative to it.
    """
    stored = run.config
    here = (start or Path.cwd()).resolve()
    words = ["mepr-fusion", "train"]
    for corpus in stored["corpora"]:
        words += ["--corpus", _shown(corpus["path"], here)]
    words += ["--exports", _shown(stored["exports_root"], here)]
    for place, export_id in sorted(stored["exports"].items()):
        words += ["--export", f"{place}={export_id}"]
    words += ["--run", f"{run.path.name}-again"]
    defaults = config.to_dict(config.build(FusionSettings, config.read_toml(DEFAULTS)))
    for key, value in changed_settings(stored["settings"], defaults):
        words += ["--set", f"{key}={_literal(value)}"]
    return _folded(words)


def changed_settings(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """`(dotted key, value)` of every setting that differs from its default."""
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from changed_settings(value, default, f"{prefix}{name}.")
        elif value != default:
            yield f"{prefix}{name}", value


def _shown(path: str | None, start: Path) -> str:
    """A path as a command in `start` would name it."""
    if path is None:
        return "CORPUS.parquet"
    inside = Path(path).is_relative_to(start)
    return os.path.relpath(path, start) if inside else path


def _literal(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else json.dumps(value)


def _folded(words: list[str]) -> str:
    """One option a line, continued by backslashes."""
    lines = [" ".join(words[:2])]
    for option, value in zip(words[2::2], words[3::2], strict=True):
        lines.append(f"  {option} {shlex.quote(value)}")
    return " \\\n".join(lines)
