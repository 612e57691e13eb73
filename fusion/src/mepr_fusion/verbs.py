"""What the verbs of `mepr-fusion` do. Imported only when a verb runs."""

from __future__ import annotations

import argparse

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.given import given_settings
from mepr_fusion.inputs import choose, parse_choices
from mepr_fusion.join import Joined
from mepr_fusion.report.build import (
    CARD,
    COLUMNS,
    HTML,
    coverage_lines,
    report_records,
    score_rows,
    write_report,
)
from mepr_fusion.train import train
from mepr_shared.cli.modality_verbs import say_epoch
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.train import distributed
from mepr_shared.train.predictions import VAL_PREDICTIONS, write_predictions
from mepr_shared.train.runs import Run


def run_train(arguments: argparse.Namespace) -> int:
    """`mepr-fusion train`."""
    settings, _ = given_settings(arguments)
    device = distributed.start(arguments.device)
    first = distributed.rank() == 0
    run = train(
        choose(arguments.corpus, arguments.exports, parse_choices(arguments.export)),
        settings,
        arguments.run,
        exports_root=arguments.exports,
        min_coverage=arguments.min_coverage,
        resume=arguments.resume,
        device=device,
        on_join=_say_coverage if first else None,
        on_epoch=say_epoch if first else None,
    )
    distributed.finish()
    if not first:
        return 0
    evaluation = Evaluation(run, device=device)
    write_predictions(run.path / VAL_PREDICTIONS, evaluation.predictions("val"))
    report = write_report(evaluation)
    if arguments.json:
        emit_json({"run": str(run.path), "report": str(report), **run.metrics["val"]})
    else:
        _print_scores(arguments, evaluation, "val")
    say(f"run: {run.path}  report: {run.path / HTML}")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    """`mepr-fusion evaluate`: one record per corpus."""
    evaluation = _reopen(arguments)
    if arguments.json:
        for record in evaluation.scores(arguments.split, by=arguments.by):
            emit_json(record)
    else:
        _print_scores(arguments, evaluation, arguments.split)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """`mepr-fusion report`."""
    evaluation = _reopen(arguments)
    records = report_records(evaluation, arguments.split or ["val"])
    report = write_report(evaluation, records=records)
    written = {"report": report, "html": report.with_name(HTML), "card": report.with_name(CARD)}
    if arguments.json:
        emit_json({name: str(path) for name, path in written.items()})
    else:
        emit(arguments, score_rows(records), ["corpus", "split", "n", "row", *COLUMNS])
        for path in written.values():
            print(path)
    return 0


def _reopen(arguments: argparse.Namespace) -> Evaluation:
    """A trained run over its inputs, as they are now; what changed since is said."""
    run = Run.load(arguments.run)
    evaluation = Evaluation(run, device=arguments.device)
    for warning in evaluation.joined.warnings:
        if warning not in run.metrics["warnings"]:
            say(f"warning: {warning}")
    return evaluation


def _print_scores(arguments: argparse.Namespace, evaluation: Evaluation, split: str) -> None:
    rows = score_rows(evaluation.scores(split))
    emit(arguments, rows, ["corpus", "split", "n", "row", *COLUMNS])


def _say_coverage(joined: Joined) -> None:
    for line in coverage_lines([vars(entry) for entry in joined.coverage]):
        say(line)
    for (corpus, split, reason), samples in sorted(joined.dropped.items()):
        say(f"dropped: {samples} samples of {corpus} {split} without any modality: {reason}")
    for warning in joined.warnings:
        say(f"warning: {warning}")
