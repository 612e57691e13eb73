"""Verbs whose code is imported only when they run, so that `--help` costs nothing."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from mepr_shared.cli.output import common_options


def add_verb(verbs: Any, name: str, handler: str, summary: str) -> argparse.ArgumentParser:
    """A verb with the options that every verb has.

    Args:
        verbs: the subparsers it joins.
        handler: `MODULE:FUNCTION`, the module in `mepr_shared.cli` where it has no dot; takes the
            arguments, gives the exit code.
        summary: one line of help.
    """
    verb = verbs.add_parser(name, help=summary, description=summary, parents=[common_options()])

    def call(arguments: argparse.Namespace) -> int:
        module, _, function = handler.partition(":")
        home = module if "." in module else f"mepr_shared.cli.{module}"
        return getattr(importlib.import_module(home), function)(arguments)

    verb.set_defaults(handler=call)
    return verb


def add_group(verbs: Any, name: str, summary: str, metavar: str = "VERB") -> Any:
    """A verb that only holds others; alone it prints its help. Gives the subparsers."""
    group = verbs.add_parser(name, help=summary, description=summary)
    group.set_defaults(group=group)
    return group.add_subparsers(metavar=metavar, title=f"{metavar.lower()}s")


def set_option(
    verb: argparse.ArgumentParser,
    metavar: str = "KEY=VALUE",
    summary: str = "settings laid over the rest",
) -> None:
    """`--set A=1 B=2`, repeatable; for verbs without positionals, which it would swallow."""
    verb.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar=metavar, help=summary
    )
