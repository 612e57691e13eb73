"""The JSON Schema of the manifest, generated from its dataclasses.

`python -m mepr_shared.contract.json_schema` prints it; `SCHEMA_FILE` is the shipped copy.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from mepr_shared.contract.schema import FORMAT, FORMAT_VERSION, Manifest

SCHEMA_FILE = Path(__file__).with_name(f"{FORMAT}-{FORMAT_VERSION}.schema.json")
_ALWAYS = ("format", "format_version", "required_features")  # read before anything else
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def manifest_schema() -> dict[str, Any]:
    """The schema as plain JSON values (draft 2020-12).

    Additional properties are allowed: later minor versions add fields.
    """
    definitions: dict[str, Any] = {}
    root = _describe(Manifest, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FORMAT} {FORMAT_VERSION} manifest",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def render() -> str:
    """The text of `SCHEMA_FILE`."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


def _describe(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [k for k in inner if k is not type(None)]
        return {"anyOf": [_describe(k, definitions) for k in options] + [{"type": "null"}]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": _describe(inner[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe(inner[1], definitions)}
    if dataclasses.is_dataclass(kind):
        if kind is Manifest:
            return _properties(kind, definitions)
        name = kind.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = _properties(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _PLAIN[kind]} if kind in _PLAIN else {}


def _properties(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    missing = dataclasses.MISSING
    return {
        "type": "object",
        "properties": {f.name: _describe(hints[f.name], definitions) for f in fields},
        "required": [
            f.name
            for f in fields
            if f.name in _ALWAYS or (f.default is missing and f.default_factory is missing)
        ],
    }


if __name__ == "__main__":
    print(render(), end="")
