"""`--set A=1 B=2`: several at once, in every verb that has no positional to be swallowed."""

from __future__ import annotations

import argparse

import pytest

from mepr_shared.cli.verbs import set_option


def verbs_with_set(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [v for verb in action.choices.values() for v in verbs_with_set(verb)]
        elif "--set" in action.option_strings:
            found.append(parser)
    return found


def parsers() -> list[argparse.ArgumentParser]:
    from mepr_shared.cli.main import build_parser

    return verbs_with_set(build_parser())


def test_several_settings_after_one_option_and_after_several():
    parser = argparse.ArgumentParser()
    set_option(parser)
    given = ["--set", "ssl=on", "weighting=gradnorm", "--set", "fit.epochs=2"]
    assert parser.parse_args(given).set == ["ssl=on", "weighting=gradnorm", "fit.epochs=2"]
    assert parser.parse_args([]).set == []
    assert parser.parse_args(["--set", "a=1"]).set == ["a=1"]


@pytest.mark.parametrize("verb", parsers(), ids=lambda verb: verb.prog)
def test_every_verb_takes_several_unless_it_has_a_positional(verb):
    (option,) = (a for a in verb._actions if "--set" in a.option_strings)
    positional = any(not a.option_strings for a in verb._actions)
    assert (option.nargs == "+") == (not positional)
