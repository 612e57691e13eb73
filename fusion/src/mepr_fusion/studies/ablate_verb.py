"""`mepr-fusion ablate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mepr_fusion.given import given_settings, given_source
from mepr_fusion.studies.ablate import jobs_of, keep_plan, variants
from mepr_fusion.studies.ablate_report import (
    ablation_records,
    seconds_by_variant,
    shown,
    write_ablation,
)
from mepr_fusion.studies.jobs import Job, run_jobs
from mepr_fusion.studies.work import train_and_answer
from mepr_shared import config
from mepr_shared.cli.output import emit, emit_json, say


def run_ablate(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet, then the table; 1 where a run failed."""
    settings, _ = given_settings(arguments)
    source = given_source(arguments)
    chosen = variants(
        source.modalities,
        settings,
        modalities=arguments.modalities,
        components=arguments.components,
    )
    jobs = jobs_of(
        chosen,
        source,
        settings,
        arguments.run,
        seeds=arguments.seeds,
        splits=("val", arguments.split),
    )
    plan = {"kind": "ablation", "source": source.described(), "settings": config.to_dict(settings)}
    keep_plan(arguments.run, plan, resume=arguments.resume)
    say(f"{len(chosen)} variants, {len(jobs)} runs")
    failed = run_jobs(
        train_and_answer,
        list(jobs.values()),
        workers=arguments.workers,
        devices=[part.strip() for part in arguments.device.split(",")],
        on_done=report_job(len(jobs)),
    )
    records = ablation_records(chosen, jobs, failed, arguments.split)
    write_ablation(arguments.run, records, jobs, arguments.split)
    if arguments.json:
        for record in records:
            emit_json(record)
    else:
        seconds = seconds_by_variant(jobs)
        rows: list[dict[str, Any]] = [shown(r, seconds.get(r["variant"], 0.0)) for r in records]
        emit(arguments, rows, list(rows[0]), title=f"{arguments.split} split")
    say(f"table: {arguments.run / 'ablation.md'}")
    return 1 if failed else 0


def report_job(total: int) -> Callable[[Job, str | None], None]:
    """Says each job that ends, with its place in the total and why it failed."""
    ended = 0

    def tell(job: Job, problem: str | None) -> None:
        nonlocal ended
        ended += 1
        say(f"[{ended}/{total}] {job.name}" + (f" FAILED: {problem}" if problem else ""))

    return tell
