"""`mepr-M search`: better stage-1 settings by Optuna."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared import config
from mepr_shared.cli.modality_verbs import open_data, stage_settings
from mepr_shared.cli.output import emit, say
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.plugin import get_modality
from mepr_shared.train.search import (
    Parameters,
    Space,
    as_settings,
    best_toml,
    parse_space,
    search,
    settings_of_space,
)
from mepr_shared.train.settings import Stage1Settings
from mepr_shared.train.stages import train_stage1

# What usually matters most, for a search without --space.
DEFAULT_SPACE: dict[str, Any] = {
    "fit": {
        "learning_rate": {"low": 3e-5, "high": 2e-3, "log": True},
        "weight_decay": [0.0, 0.01, 0.1],
    },
    "model": {"dropout": [0.1, 0.2, 0.3], "width": [64, 128, 256], "layers": [1, 2]},
}


@dataclass(frozen=True)
class Stage1Objective:
    """Trains one configuration in a worker process; picklable, opens its data there."""

    modality: str
    task: str
    corpora: tuple[Path, ...]
    stores: tuple[Path, ...]
    base: dict[str, Any]
    study: Path
    device: str

    def __call__(self, number: int, parameters: Parameters) -> dict[str, float]:
        """The validation scores of the epoch that validation chose."""
        settings = config.build(Stage1Settings, self.base, as_settings(parameters))
        run = train_stage1(
            get_modality(self.modality),
            self.task,
            [Corpus.read(path) for path in self.corpora],
            [FrameStore.open(path) for path in self.stores],
            settings,
            self.study / "trials" / f"{number:04d}",
            resume=True,
            device=self.device,
        )
        return run.metrics["val"]


def run_search(arguments: argparse.Namespace) -> int:
    """Search, then write the best settings to `STUDY/best.toml` for `train stage1 --config`."""
    base = config.to_dict(stage_settings(arguments, arguments.task, Stage1Settings))
    table = config.read_toml(arguments.space) if arguments.space else DEFAULT_SPACE
    space: Space = parse_space(table, str(arguments.space or "the default space"))
    # A key that does not exist is refused before the first training, not after it.
    for layer in settings_of_space(space):
        config.build(Stage1Settings, base, layer)
    _, stores = open_data(arguments)
    objective = Stage1Objective(
        arguments.modality.name,
        arguments.task,
        tuple(Path(path) for path in arguments.corpus),
        tuple(store.path for store in stores),
        base,
        arguments.study,
        arguments.device,
    )
    result = search(
        objective,
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
    best.write_text(best_toml(result, arguments.metric), "utf-8")
    emit(arguments, result.rows, list(result.rows[0]), title="trials, best first")
    say(f"best settings: {best} (train stage1 --config {best})")
    return 0
