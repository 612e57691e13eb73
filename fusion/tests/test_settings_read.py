"""Nothing can be configured that nobody reads."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import mepr_fusion
import mepr_shared
from mepr_fusion.settings import FusionSettings
from mepr_shared.train.settings import Stage1Settings, Stage2Settings

# Where fields are declared, or only held against their limits.
DECLARED = ("settings.py", "limits.py")
LIMITS = "check_settings"


def fields(settings: type) -> Iterator[str]:
    """Names of all fields, those of nested tables too."""
    for item in dataclasses.fields(settings):
        yield item.name
        default = item.default_factory
        if default is not dataclasses.MISSING and dataclasses.is_dataclass(default):
            yield from fields(default)


@functools.cache
def names_read() -> frozenset[str]:
    """Attributes that are read, parameters of functions, and whole strings of the sources."""
    found: set[str] = set()
    for package in (mepr_fusion, mepr_shared):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            if path.name not in DECLARED:
                _collect(ast.parse(path.read_text()), found)
    return frozenset(found)


def _collect(node: ast.AST, found: set[str]) -> None:
    if isinstance(node, ast.FunctionDef) and node.name == LIMITS:
        return
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        found.add(node.attr)
    elif isinstance(node, ast.arg):
        found.add(node.arg)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.add(node.value)
    for child in ast.iter_child_nodes(node):
        _collect(child, found)


@pytest.mark.parametrize("settings", [FusionSettings, Stage1Settings, Stage2Settings])
def test_every_setting_is_read(settings):
    assert sorted(set(fields(settings)) - names_read()) == []


def test_a_setting_that_nobody_reads_is_found():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        entirely_made_up: int = 0

    @dataclasses.dataclass(frozen=True)
    class Outer:
        mode: str = ""
        inner: Inner = dataclasses.field(default_factory=Inner)

    assert set(fields(Outer)) - {"inner"} - names_read() == {"entirely_made_up"}
