"""`mepr-fusion analyze`. Imported only when it runs."""

from __future__ import annotations

import argparse

from mepr_fusion.analyze.report import finite, summary_rows, write_analysis
from mepr_fusion.analyze.run import analyze
from mepr_fusion.evaluate import Evaluation
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.cli.progress import progress
from mepr_shared.errors import ConfigError
from mepr_shared.labels import TRAITS
from mepr_shared.train.runs import Run


def run_analyze(arguments: argparse.Namespace) -> int:
    """Analyse a run: tables on stdout, report and figures in its folder."""
    if arguments.samples < 1:
        raise ConfigError(f"--samples {arguments.samples}: at least 1")
    run = Run.load(arguments.run)
    evaluation = Evaluation(run, device=arguments.device)
    for warning in evaluation.joined.warnings:
        if warning not in run.metrics["warnings"]:
            say(f"warning: {warning}")
    with progress("attribution", "outputs") as on_output:
        found = analyze(evaluation, arguments.split, samples=arguments.samples, on_output=on_output)
    report = write_analysis(found, run, arguments.out or run.path / "analysis")
    if arguments.json:
        emit_json({**finite(found.record), "report": str(report)})
    else:
        columns = ["answer", "emotion", "n", *TRAITS, "mean", "goes_with"]
        emit(arguments, summary_rows(found.record), columns)
    for note in found.record["relations"]["notes"]:
        say(f"note: {note}")
    say(f"report: {report}")
    return 0
