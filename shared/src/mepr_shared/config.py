"""Configuration: a dataclass filled from TOML files and `--set key=value`.

A key that no field has, or a value of the wrong type, is refused with the nearest known key.
Configuration is data for builders; it never enters a model class.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from mepr_shared.errors import ConfigError, did_you_mean

T = TypeVar("T")


def build(cls: type[T], *layers: Mapping[str, Any], where: str = "configuration") -> T:
    """Make a config dataclass from layers of nested mappings; later layers win.

    Args:
        cls: a dataclass; fields may be dataclasses themselves (nested tables).
        layers: mappings as `tomllib` gives them.
        where: named in errors.

    Raises:
        ConfigError: unknown key, or a value of the wrong type.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    return _from_mapping(cls, merged, where)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested dicts, or a `ConfigError` that names file and line."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such configuration file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["model.width=128", "loss=ccc"]` as nested dicts.

    Values are read as TOML literals; what is no literal is taken as a string, so that
    `--set loss=rmse+bell` needs no quotes; `on`/`off` are booleans.
    """
    nested: dict[str, Any] = {}
    for item in assignments:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, got {item!r}")
        _merge(nested, _nest(key.strip().split("."), _literal(text.strip())))
    return nested


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain nested dicts (tuples become lists), ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _literal(text: str) -> Any:
    if text in ("on", "off"):
        return text == "on"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = json.loads(json.dumps(value)) if isinstance(value, Mapping) else value


def _from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}", hint=did_you_mean(key, fields))
        arguments[key] = _convert(hints[key], value, f"{where}: {key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(kind), value, where)
    if origin is Literal:
        choices = typing.get_args(kind)
        if isinstance(value, bool) and not isinstance(choices[0], bool):
            # `on` and `off` are booleans, unless they are the names of choices.
            value = next((c for c in choices if c == ("on" if value else "off")), value)
        if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
            raise ConfigError(
                f"{where} = {value!r} is not one of the choices",
                hint=did_you_mean(str(value), [str(c) for c in choices]),
            )
        return value
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is a table, got {value!r}")
        return _from_mapping(typing.cast(type, kind), value, where)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} takes a list, got {value!r}")
        inner = typing.get_args(kind)[0]
        return origin(_convert(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is a table, got {value!r}")
        inner = typing.get_args(kind)[1]
        return {key: _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or type(value) is kind:
        return value
    raise ConfigError(f"{where} takes {_describe(kind)}, got {value!r} ({type(value).__name__})")


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    # TOML has no null: the word "none" sets an optional field to None.
    if type(None) in kinds and (value is None or value == "none"):
        return None
    inner = [kind for kind in kinds if kind is not type(None)]
    for kind in inner:
        try:
            return _convert(kind, value, where)
        except ConfigError as error:
            if len(inner) == 1:
                raise error
    raise ConfigError(f"{where} takes {' or '.join(map(_describe, inner))}, got {value!r}")


def _describe(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def refuse_unused(config: Any, given: Mapping[str, Any], where: str = "configuration") -> None:
    """Refuse keys that were set by hand but that this configuration never reads.

    A field says when it is read by `metadata={"when": (sibling, values)}`.

    Args:
        config: the built dataclass.
        given: the user's own layers (files and `--set`), merged, without a profile's defaults.

    Raises:
        ConfigError: names the key and the setting that would make it count.
    """
    for item in dataclasses.fields(config):
        if item.name not in given:
            continue
        value = getattr(config, item.name)
        if "when" in item.metadata:
            sibling, values = item.metadata["when"]
            if getattr(config, sibling) not in values:
                raise ConfigError(
                    f"{where}: {item.name!r} is set but not read with "
                    f"{sibling} = {getattr(config, sibling)!r}",
                    hint=f"it counts where {sibling} is " + " or ".join(map(repr, values)),
                )
        if dataclasses.is_dataclass(value):
            refuse_unused(value, given[item.name], f"{where}: {item.name}")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings overlaid; later ones win key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    return merged
