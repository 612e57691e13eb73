"""`mepr-fusion bundle`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.train import KIND
from mepr_shared.cli.output import emit_json, emit_table, say
from mepr_shared.errors import ConfigError
from mepr_shared.train.runs import Run


def run_bundle(arguments: argparse.Namespace) -> int:
    """Put the models of all stages into one directory."""
    run = stage3_run(arguments.run)
    sources = find_sources(
        run,
        roots=arguments.runs_root or [run.path.resolve().parent],
        given=parse_runs(arguments.stage2),
        without=arguments.without,
    )
    bundle = write_bundle(run, sources, arguments.out, overwrite=arguments.overwrite)
    for name, reason in bundle.left_out.items():
        say(f"left out: {name}: {reason}")
    for note in sources.notes:
        say(f"note: {note}")
    rows = [
        {
            "modality": name,
            "run": str(sources.runs[name].path),
            "encoder": part["config"]["encoder"]["encoder"],
            "megabytes": round(bundle.weights(name).stat().st_size / 1e6, 1),
        }
        for name, part in bundle.modalities.items()
    ]
    if arguments.json:
        emit_json(
            {
                "bundle": str(bundle.path),
                "id": bundle.id,
                "corpus": bundle.corpus,
                "modalities": rows,
                "left_out": bundle.left_out,
            }
        )
    else:
        emit_table([list(row.values()) for row in rows], list(rows[0]))
        say(f"bundle {bundle.id}: {bundle.path}")
    return 0


def stage3_run(path: Path) -> Run:
    """A finished stage-3 run.

    Raises:
        ConfigError: another kind of run.
    """
    run = Run.load(path)
    if run.kind != KIND:
        raise ConfigError(f"{path} is a {run.kind} run", hint="give a stage-3 run")
    return run


def parse_runs(texts: Iterable[str]) -> dict[str, Path]:
    """`["face=runs/face/stage2"]` as `{"face": Path(...)}`.

    Raises:
        ConfigError: not of this form, or a modality is given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in found:
            raise ConfigError(f"--stage2 takes MODALITY=RUN, each modality once, got {text!r}")
        found[name] = Path(path)
    return found
