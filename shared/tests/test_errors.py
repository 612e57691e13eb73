"""What a user reads when something is wrong."""

from __future__ import annotations

import math

import pytest

from mepr_shared.errors import (
    ConfigError,
    ContractError,
    DataError,
    MeprError,
    MissingDependency,
    did_you_mean,
    require,
)


def test_the_hint_follows_the_message() -> None:
    assert str(DataError("row 3: no text", hint="give one")) == "row 3: no text (give one)"
    assert str(DataError("row 3: no text")) == "row 3: no text"


@pytest.mark.parametrize("kind", [ConfigError, DataError, ContractError, MissingDependency])
def test_every_error_is_one_the_command_line_catches(kind: type[MeprError]) -> None:
    assert issubclass(kind, MeprError)
    assert kind("x").exit_code == 2


def test_an_installed_dependency_is_imported() -> None:
    assert require("math", extra="mepr-shared[none]") is math


def test_a_missing_dependency_names_itself_and_the_command_that_installs_it() -> None:
    with pytest.raises(MissingDependency) as caught:
        require("no_such_module_here", extra="mepr-shared[search]")
    assert "'no_such_module_here'" in caught.value.message
    assert caught.value.hint == "pip install 'mepr-shared[search]'"
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_dependency_that_is_there_but_broken_says_what_it_lacks(tmp_path, monkeypatch) -> None:
    (tmp_path / "half_installed.py").write_text("import the_other_half\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match="half_installed.*the_other_half"):
        require("half_installed", extra="mepr-shared[search]")


def test_the_closest_words_are_suggested_or_all_where_none_is_close() -> None:
    known = ["sadness", "anger", "happiness"]
    assert did_you_mean("sadnes", known) == "did you mean 'sadness'?"
    assert did_you_mean("lr", iter(known)) == "known: anger, happiness, sadness"
    several = did_you_mean("soft_c", {"soft_ce", "soft_kl", "mae"})
    assert several == "did you mean 'soft_ce' or 'soft_kl'?"
