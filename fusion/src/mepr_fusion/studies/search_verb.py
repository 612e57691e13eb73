"""`mepr-fusion search`: better stage-3 settings by Optuna, judged on validation only."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mepr_fusion.given import given_settings
from mepr_fusion.inputs import choose, parse_choices
from mepr_fusion.settings import FusionSettings
from mepr_fusion.studies.ablate import keep_plan
from mepr_fusion.studies.jobs import Source
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.cli.output import emit, say
from mepr_shared.errors import ConfigError
from mepr_shared.train.runs import replace_file
from mepr_shared.train.search import (
    Parameters,
    as_settings,
    best_toml,
    parse_space,
    search,
    settings_of_space,
)

# What usually matters most, for a search without --space.
DEFAULT_SPACE: dict[str, Any] = {
    "fit": {
        "learning_rate": {"low": 3e-5, "high": 1e-3, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    },
    "model": {
        "dropout": [0.1, 0.2, 0.3, 0.5],
        "width": [64, 128, 256],
        "modality_dropout": [0.0, 0.1, 0.2, 0.4],
    },
}


@dataclass(frozen=True)
class Stage3Objective:
    """Trains one configuration in a worker process; picklable, opens its data there."""

    source: Source
    base: dict[str, Any]
    study: Path
    device: str
    threads: int

    def __call__(self, number: int, parameters: Parameters) -> dict[str, float]:
        """The validation scores of the epoch that validation chose."""
        torch.set_num_threads(self.threads)
        run = train(
            self.source.open(),
            config.build(FusionSettings, self.base, as_settings(parameters)),
            self.study / "trials" / f"{number:04d}",
            exports_root=self.source.exports_root,
            min_coverage=self.source.min_coverage,
            resume=True,
            device=self.device,
        )
        return run.metrics["val"]


def run_search(arguments: argparse.Namespace) -> int:
    """Search, then write the best settings to `STUDY/best.toml` for `train --config`."""
    settings, given = given_settings(arguments)
    base = config.to_dict(settings)
    table = config.read_toml(arguments.space) if arguments.space else DEFAULT_SPACE
    space = parse_space(table, str(arguments.space or "the default space"))
    if arguments.trials < 1 or arguments.workers < 1:
        raise ConfigError("--trials and --workers take numbers of at least 1")
    # What does not exist is refused before the first training, not after it.
    for layer in settings_of_space(space):
        config.build(FusionSettings, base, layer)
    inputs = choose(arguments.corpus, arguments.exports, parse_choices(arguments.export))
    source = Source.of(inputs, arguments.exports, arguments.min_coverage)
    # A study that goes on compares with its earlier trials: the question must be the same.
    keep_plan(
        arguments.study,
        {"kind": "search", "source": source.described(), "settings": base},
        resume=True,
    )
    threads = max(1, torch.get_num_threads() // arguments.workers)
    result = search(
        Stage3Objective(source, base, arguments.study, arguments.device, threads),
        space,
        arguments.study,
        trials=arguments.trials,
        sampler=arguments.sampler,
        metric=arguments.metric,
        workers=arguments.workers,
        on_trial=lambda number, value, parameters: say(
            f"trial {number}: {arguments.metric} {value:.4f}  {parameters}"
        ),
    )
    best = arguments.study / "best.toml"
    text = best_toml(result, arguments.metric, given)
    replace_file(best, lambda target: target.write_text(text, "utf-8"))
    emit(arguments, result.rows, list(result.rows[0]), title="trials, best first")
    say(f"best settings: {best} (train --config {best})")
    return 0
