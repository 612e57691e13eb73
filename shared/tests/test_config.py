"""Configuration: every key has a reader, every value the right type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from mepr_shared import config
from mepr_shared.errors import ConfigError
from mepr_shared.train.settings import Stage1Settings


@dataclass(frozen=True)
class Inner:
    width: int = 8
    kind: Literal["a", "b"] = "a"
    only_b: float = field(default=0.5, metadata={"when": ("kind", ("b",))})


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    rate: float = 0.1
    names: tuple[str, ...] = ()
    limit: int | None = None
    on: bool = False


def test_later_layers_win_key_by_key():
    built = config.build(Outer, {"inner": {"width": 1, "kind": "b"}}, {"inner": {"width": 2}})
    assert built == Outer(inner=Inner(width=2, kind="b"))


def test_assignments_are_typed_as_toml_and_words_need_no_quotes():
    given = config.parse_assignments(
        ["inner.width=3", "inner.kind=b", "rate=1", 'names=["x", "y"]', "on=on", "limit=4"]
    )
    assert config.build(Outer, given) == Outer(Inner(3, "b"), 1.0, ("x", "y"), 4, True)
    assert config.build(Outer, config.parse_assignments(["limit=none"])).limit is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.widht=3", "unknown key 'widht'.*did you mean 'width'"),
        ("inner.width=wide", "width takes int, got 'wide'"),
        ("inner.width=1.5", "width takes int, got 1.5"),
        ("inner.kind=c", "kind = 'c' is not one of the choices"),
        ("rate=true", "rate takes float, got True"),
        ("on=1", "on takes bool, got 1"),
        ("names=x", "names takes a list"),
        ("inner=3", "inner is a table"),
        ("rate", "--set takes key=value"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(assignment, message):
    with pytest.raises(ConfigError, match=message):
        config.build(Outer, config.parse_assignments([assignment]))


def test_a_key_that_would_not_be_read_is_refused_when_set_by_hand():
    given = config.parse_assignments(["inner.only_b=0.7"])
    with pytest.raises(ConfigError, match="'only_b' is set but not read with kind = 'a'"):
        config.refuse_unused(config.build(Outer, given), given)
    given = config.parse_assignments(["inner.only_b=0.7", "inner.kind=b"])
    config.refuse_unused(config.build(Outer, given), given)


def test_stage1_settings_survive_json():
    settings = config.build(Stage1Settings, config.parse_assignments(["model.kind=mamba"]))
    assert config.build(Stage1Settings, config.to_dict(settings)) == settings


@pytest.mark.parametrize("content", ["a = ", "\x00", "a = 1\na = 2"])
def test_bad_toml_names_the_file(tmp_path, content):
    path = tmp_path / "settings.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        config.read_toml(path)
    with pytest.raises(ConfigError, match="no such configuration file"):
        config.read_toml(tmp_path / "none.toml")
