"""What a job of `ablate` and `matrix` is: train a run and write down what it answers."""

from __future__ import annotations

from mepr_fusion.evaluate import Evaluation
from mepr_fusion.settings import FusionSettings
from mepr_fusion.studies.jobs import Job
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.train.predictions import write_predictions
from mepr_shared.train.runs import Run


def predictions_name(split: str) -> str:
    """Name of a run's file of predictions; that of `val` is every run's."""
    return f"{split}_predictions.parquet"


def train_and_answer(job: Job, device: str) -> None:
    """Train a job's run, or go on with it, and write its predictions; a finished one stays.

    Raises:
        MeprError: data or settings that do not fit, or training diverged.
    """
    missing = [s for s in job.splits if not (job.run / predictions_name(s)).exists()]
    if (job.run / "metrics.json").exists():
        if not missing:
            return
        run = Run.load(job.run)
    else:
        run = train(
            job.source.open(job.modalities),
            config.build(FusionSettings, job.settings),
            job.run,
            exports_root=job.source.exports_root,
            min_coverage=job.source.min_coverage,
            resume=True,
            device=device,
        )
    evaluation = Evaluation(run, device=device)
    for split in missing:
        write_predictions(job.run / predictions_name(split), evaluation.predictions(split))
