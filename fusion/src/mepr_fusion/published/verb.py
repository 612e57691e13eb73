"""What `mepr-fusion import-published` does. Imported only when the verb runs."""

from __future__ import annotations

import argparse

from mepr_fusion.published.importer import import_published
from mepr_shared.cli.output import emit_json, say


def run_import(arguments: argparse.Namespace) -> int:
    """`mepr-fusion import-published`: the path of the run, or a record of what is in it."""
    run = import_published(
        arguments.file,
        arguments.run,
        trait_guide=not arguments.no_trait_guide,
        heads=arguments.heads,
    )
    if arguments.json:
        emit_json(
            {
                "run": str(run.path),
                "modalities": {n: sum(pair) for n, pair in run.config["modalities"].items()},
                "width": run.config["settings"]["model"]["width"],
                "trait_guide": not arguments.no_trait_guide,
                "parameters": run.metrics["parameters"],
                "sha256": run.config["imported_from"]["sha256"],
            }
        )
    else:
        print(run.path)
    say("its emotion logits are not calibrated; it was imported and cannot be evaluated by itself")
    return 0
