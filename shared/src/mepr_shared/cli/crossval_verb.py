"""What `mepr-M crossval` does."""

from __future__ import annotations

import argparse

from mepr_shared.cli.modality_verbs import (
    copy_stores,
    open_data,
    print_evaluations,
    stage_settings,
)
from mepr_shared.cli.output import say
from mepr_shared.train.crossval import RESULT, cross_validate
from mepr_shared.train.settings import Stage1Settings


def run_crossval(arguments: argparse.Namespace) -> int:
    """`mepr-M crossval`: one record, over all folds."""
    settings = stage_settings(arguments, arguments.task, Stage1Settings)
    arguments.corpus = [arguments.corpus]
    (corpus,), stores = open_data(arguments)
    copies = [copy_stores(arguments, stores, text)[0] for text in arguments.augment]
    result = cross_validate(
        arguments.modality,
        arguments.task,
        corpus,
        stores[0],
        settings,
        arguments.run,
        folds=arguments.folds,
        by=arguments.by,
        copies=copies,
        device=arguments.device,
        say=say,
    )
    print_evaluations(arguments, [result])
    say(f"fold runs and result: {arguments.run}  ({RESULT})")
    return 0
