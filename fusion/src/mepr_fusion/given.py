"""What the options of a verb say: settings, and data to train on. No torch here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mepr_fusion.inputs import choose, parse_choices
from mepr_fusion.settings import CONFIGS, DEFAULTS, FusionSettings
from mepr_fusion.studies.ablate import pinned_choices
from mepr_fusion.studies.jobs import Source
from mepr_shared import config
from mepr_shared.errors import ConfigError


def given_settings(arguments: argparse.Namespace) -> tuple[FusionSettings, dict[str, Any]]:
    """Settings as `train` reads them, and what of them the user gave.

    Raises:
        ConfigError: an unknown key, or one that nothing reads.
    """
    given = config.merge(given_file(arguments.config), config.parse_assignments(arguments.set))
    settings = config.build(FusionSettings, config.read_toml(DEFAULTS), given)
    config.refuse_unused(settings, given)
    return settings, given


def given_file(path: Path | None) -> dict[str, Any]:
    """The file of `--config`: a path, or the name of a packaged one (`published.toml`)."""
    if path is None:
        return {}
    packaged = CONFIGS / path.name
    if not path.exists() and path.parent == Path() and packaged.exists():
        path = packaged
    return config.read_toml(path)


def given_source(arguments: argparse.Namespace) -> Source:
    """Corpora and exports as `train` chooses them; a study that goes on keeps its exports.

    Raises:
        MeprError: they are not there, unclear or damaged.
    """
    choices = parse_choices(arguments.export)
    pinned = pinned_choices(arguments.run, resume=arguments.resume)
    if choices and pinned:
        raise ConfigError(
            "--export with --resume: the study keeps the exports it was begun with",
            hint="leave --export out, or give another --run",
        )
    inputs = choose(arguments.corpus, arguments.exports, choices or pinned)
    if pinned:
        inputs = type(inputs)(
            inputs.corpora, {key: value for key, value in inputs.exports.items() if key in pinned}
        )
    return Source.of(inputs, arguments.exports, arguments.min_coverage)
