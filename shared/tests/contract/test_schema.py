"""Manifests: what is read, what is refused, and the JSON Schema beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mepr_shared.contract import json_schema
from mepr_shared.contract.schema import (
    EmotionOutput,
    ManifestError,
    export_id_of,
    parse_manifest,
    sealed,
)
from mepr_shared.errors import ContractError


@pytest.fixture
def content(export: Path) -> dict[str, Any]:
    return json.loads((export / "manifest.json").read_bytes())


def parse(content: Any) -> Any:
    return parse_manifest(json.dumps(content).encode(), "manifest.json")


def test_a_manifest_survives_reading_and_writing(content: dict[str, Any]) -> None:
    assert sealed(parse(content)) == content


def test_fields_are_those_of_the_contract(content: dict[str, Any]) -> None:
    assert list(content) == [
        "format",
        "format_version",
        "required_features",
        "export_id",
        "modality",
        "corpus",
        "stage",
        "generated_by",
        "model",
        "label_spaces",
        "emotion_output",
        "train_rows",
        "schema",
        "counts",
        "stats",
        "files",
        "created_at",
        "manifest_sha256",
        "withdrawals",
        "original",
    ]
    assert content["format"] == "mepr-export"
    assert list(content["corpus"]) == ["name", "samples_sha256", "labels_sha256"]
    assert list(content["files"][0]) == ["path", "bytes", "sha256", "rows", "key_min", "key_max"]
    assert list(content["emotion_output"]) == ["kind", "prior_shift", "temperature", "thresholds"]


def test_a_later_minor_version_may_add_fields_anywhere(content: dict[str, Any]) -> None:
    known = parse(content)
    content["format_version"] = "1.7"
    content["new"] = {"a": 1}
    content["corpus"]["new"] = 1
    content["files"][0]["new"] = 1
    content["stats"]["trait_scores"]["new"] = 1
    content["emotion_output"]["new"] = 1
    later = parse(content)
    assert (later.corpus, later.files, later.stats) == (known.corpus, known.files, known.stats)


def test_this_version_has_no_other_fields(content: dict[str, Any]) -> None:
    content["modalty"] = content.pop("modality")
    with pytest.raises(ManifestError, match=r"modalty.*did you mean 'modality'"):
        parse(content)


def test_a_higher_major_version_is_refused_with_the_upgrade_command(
    content: dict[str, Any],
) -> None:
    content["format_version"] = "2.0"
    with pytest.raises(ManifestError, match="pip install --upgrade mepr-shared") as error:
        parse(content)
    assert error.value.code == "version"


def test_an_unknown_required_feature_is_refused(content: dict[str, Any]) -> None:
    content["required_features"] = ["encrypted"]
    with pytest.raises(ManifestError, match="encrypted") as error:
        parse(content)
    assert error.value.code == "features"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '"x"', "{}", '{"format": "zarr", "format_version": "1.0"}', "[" * 9999],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text.encode(), "manifest.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["files", 0, "bytes"], "1"),
        (["files", 0, "rows"], 1.5),
        (["train_rows"], "both"),
        (["corpus"], None),
        (["counts", "train", "ok"], None),
        (["emotion_output", "temperature"], 0.0),
        (["emotion_output", "prior_shift"], [0.0]),
        (["format_version"], "one"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(
    content: dict[str, Any], path: list[Any], value: Any
) -> None:
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ManifestError):
        parse(content)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(content: dict[str, Any], number: str) -> None:
    text = json.dumps(content).replace('"temperature": 2.0', f'"temperature": {number}')
    with pytest.raises(ManifestError):
        parse_manifest(text.encode(), "manifest.json")


def test_the_id_ignores_who_and_when_and_nothing_else(content: dict[str, Any]) -> None:
    identity = export_id_of(content)
    assert content["export_id"] == identity
    for key in ("created_at", "generated_by"):
        assert export_id_of({**content, key: "other"}) == identity
    volatile = {"export_id", "created_at", "generated_by", "manifest_sha256", "withdrawals"}
    for key in set(content) - volatile - {"original"}:
        assert export_id_of({**content, key: "other"}) != identity


@pytest.mark.parametrize("thresholds", [[0.5], [0.5] * 8])
def test_emotion_output_has_one_value_per_emotion(thresholds: list[float]) -> None:
    with pytest.raises(ContractError, match="thresholds"):
        EmotionOutput("sigmoid", thresholds=thresholds)


def test_the_shipped_schema_is_that_of_the_dataclasses() -> None:
    shipped = json_schema.SCHEMA_FILE.read_text("utf-8")
    assert shipped == json_schema.render(), "run: python -m mepr_shared.contract.json_schema"


def test_a_written_manifest_fits_the_schema(content: dict[str, Any]) -> None:
    schema = json_schema.manifest_schema()
    assert fits(content, schema, schema["$defs"])
    for broken in ({**content, "counts": 1}, {k: v for k, v in content.items() if k != "files"}):
        assert not fits(broken, schema, schema["$defs"])


def fits(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """As much of JSON Schema as the generator uses."""
    if "$ref" in schema:
        return fits(value, definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        return any(fits(value, option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": dict,
    }
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    if schema.get("type") == "array":
        return all(fits(item, schema["items"], definitions) for item in value)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(item, properties.get(key, rest), definitions) for key, item in value.items()
        )
    return True
