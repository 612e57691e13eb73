"""The manifest of an export: its dataclasses, how it is read, and how its id is made.

The dataclasses are the definition; the JSON Schema in this folder is generated from them.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mepr_shared import config
from mepr_shared.contract.files import canonical_json, sha256_json
from mepr_shared.errors import ConfigError, ContractError
from mepr_shared.labels import EMOTIONS, TRAITS

FORMAT = "mepr-export"
FORMAT_VERSION = "1.0"
FEATURES: tuple[str, ...] = ()  # entries of `required_features` that this version understands
UPGRADE = "pip install --upgrade mepr-shared"

# Not part of an export's identity. A resumed or repeated export may differ in who made it when; a
# withdrawal must not orphan what refers to the id.
_VOLATILE = ("export_id", "created_at", "generated_by", "manifest_sha256", "withdrawals")
_REWRITTEN = ("files", "counts", "stats")


class ManifestError(ContractError):
    """A manifest that cannot be used; `code` is that of the finding (see `verify`)."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class CorpusHashes(Protocol):
    """Hashes of a corpus index that a manifest records."""

    @property
    def samples_sha256(self) -> str: ...
    @property
    def labels_sha256(self) -> str: ...


class CorpusLike(Protocol):
    """What the contract needs to know of a corpus; `mepr_shared.corpora.index.Corpus` fits."""

    @property
    def name(self) -> str: ...
    @property
    def sample_ids(self) -> list[str]: ...
    @property
    def splits(self) -> Iterable[str | None]: ...
    @property
    def hashes(self) -> CorpusHashes: ...


@dataclass(frozen=True)
class CorpusRef:
    """The corpus an export was made from."""

    name: str
    samples_sha256: str
    labels_sha256: str


@dataclass(frozen=True)
class Producer:
    """Software that made the export."""

    name: str
    version: str
    git_commit: str | None = None
    dirty: bool | None = None
    python: str | None = None
    torch: str | None = None


@dataclass(frozen=True)
class EncoderRef:
    """The pretrained encoder under the model."""

    id: str
    revision: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model whose outputs these are. `config_sha256` follows from `config`."""

    config: dict[str, Any] = field(default_factory=dict)
    config_sha256: str = ""
    weights_sha256: str | None = None
    encoder: EncoderRef | None = None
    seed: int | None = None
    dev_metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.config_sha256:
            object.__setattr__(self, "config_sha256", sha256_json(self.config))


@dataclass(frozen=True)
class LabelSpaces:
    """Names of the outputs, in their order."""

    emotion: list[str] = field(default_factory=lambda: list(EMOTIONS))
    traits: list[str] = field(default_factory=lambda: list(TRAITS))


@dataclass(frozen=True)
class EmotionOutput:
    """How emotion logits become probabilities and decisions.

    `p = sigmoid((z - prior_shift) / temperature)`, or softmax over the seven. A positive weight w
    in the loss shifts the optimal logit by log w: that is the prior shift.

    Attributes:
        kind: sigmoid for multi-label models, softmax for single-label ones.
        prior_shift: 7 values; zeros where no class was weighted.
        temperature: of the calibration.
        thresholds: 7 probabilities above which an emotion counts as present, or None.
    """

    kind: Literal["sigmoid", "softmax"]
    prior_shift: list[float] = field(default_factory=lambda: [0.0] * len(EMOTIONS))
    temperature: float = 1.0
    thresholds: list[float] | None = None

    def __post_init__(self) -> None:
        for name in ("prior_shift", "thresholds"):
            values = getattr(self, name)
            if values is not None and len(values) != len(EMOTIONS):
                raise ContractError(
                    f"emotion_output: {name} has {len(values)} values, not {len(EMOTIONS)}"
                )
        if not self.temperature > 0:
            raise ContractError(f"emotion_output: temperature {self.temperature} is not positive")


@dataclass(frozen=True)
class Column:
    """A column of the sample table; `width` is the length of its lists."""

    name: str
    type: Literal["string", "int32", "list<float32>"]
    nullable: bool
    width: int | None = None


@dataclass(frozen=True)
class ColumnStats:
    """Over the rows that have the column: Euclidean norm of a row, largest absolute value."""

    rows: int
    mean_norm: float
    std_norm: float
    max_abs: float


@dataclass(frozen=True)
class PartFile:
    """A part of the sample table; keys are the first and last `sample_id` in it."""

    path: str
    bytes: int
    sha256: str
    rows: int
    key_min: str
    key_max: str


@dataclass(frozen=True)
class Withdrawal:
    """Samples taken out after the export was made; they keep a row without data."""

    sample_ids: list[str]
    reason: str
    withdrawn_at: str


@dataclass(frozen=True)
class Original:
    """What the export's id was made from, before a withdrawal rewrote it."""

    files: list[PartFile]
    counts: dict[str, dict[str, int]]
    stats: dict[str, ColumnStats]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json` of an export.

    Attributes:
        export_id: 16 hex digits, see `export_id_of`; also the folder's name.
        counts: split -> status -> rows; the split of a sample without one is `""`.
        stats: column -> `ColumnStats`.
        manifest_sha256: of everything else in the manifest, so that a flipped bit shows.
        withdrawals: who was taken out since.
        original: set by the first withdrawal.
    """

    format: Literal["mepr-export"] = "mepr-export"
    format_version: str = FORMAT_VERSION
    required_features: list[str] = field(default_factory=list)
    export_id: str
    modality: str
    corpus: CorpusRef
    stage: str
    generated_by: list[Producer]
    model: ModelInfo
    label_spaces: LabelSpaces
    emotion_output: EmotionOutput | None
    train_rows: Literal["in_sample", "out_of_fold"]
    schema: list[Column]
    counts: dict[str, dict[str, int]]
    stats: dict[str, ColumnStats]
    files: list[PartFile]
    created_at: str
    manifest_sha256: str
    withdrawals: list[Withdrawal] = field(default_factory=list)
    original: Original | None = None

    def width(self, column: str) -> int | None:
        """List length of a column, None where the export does not have it."""
        return next((c.width for c in self.schema if c.name == column), None)


def export_id_of(manifest: Mapping[str, Any]) -> str:
    """The id of an export: 16 hex digits over its manifest without the volatile fields."""
    content = {key: value for key, value in manifest.items() if key not in _VOLATILE}
    original = content.pop("original", None)
    if original:
        content |= {key: original[key] for key in _REWRITTEN}
    return sha256_json(content)[:16]


def seal_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical manifest without the field that holds it."""
    return sha256_json({k: v for k, v in manifest.items() if k != "manifest_sha256"})


def sealed(manifest: Manifest) -> dict[str, Any]:
    """A manifest as plain JSON values, with its id (kept where there is one) and its seal."""
    # Read back first: a whole number given for a float must not change the id when it is read.
    content = config.to_dict(config.build(Manifest, config.to_dict(manifest), where="manifest"))
    content["export_id"] = content["export_id"] or export_id_of(content)
    content["manifest_sha256"] = seal_of(content)
    return content


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from its JSON.

    Unknown fields are allowed in a newer minor version only: minors only add.

    Raises:
        ManifestError: no valid manifest, a higher major version, or an unknown required feature.
    """
    try:
        content = json.loads(data)
        known_format = content["format"] == FORMAT
        version = content["format_version"]
        major, minor = (int(number) for number in version.split("."))
        features = list(content["required_features"])
        canonical_json(content)  # refuses NaN and numbers too large, which json.loads takes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError("manifest", f"{where} is no manifest of an export: {error!r}") from None
    if not known_format:
        raise ManifestError("manifest", f"{where}: format {content['format']!r}, not {FORMAT!r}")
    our_major, our_minor = (int(number) for number in FORMAT_VERSION.split("."))
    if major > our_major:
        message = f"{where}: format version {version}, this version reads up to {our_major}.x"
        raise ManifestError("version", message, hint=UPGRADE)
    unknown = [feature for feature in features if feature not in FEATURES]
    if unknown:
        raise ManifestError("features", f"{where} needs unknown features: {unknown}", hint=UPGRADE)
    if minor > our_minor:
        content = _known_only(Manifest, content)
    try:
        return config.build(Manifest, content, where=where)
    except (ConfigError, ContractError) as error:
        raise ManifestError("manifest", str(error)) from None


def _known_only(kind: Any, value: Any) -> Any:
    """`value` without the keys that no field of the dataclasses in `kind` has."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kind = next((k for k in inner if k is not type(None)), None)
        return _known_only(kind, value)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        return {key: _known_only(hints[key], item) for key, item in value.items() if key in hints}
    if origin is list and isinstance(value, list):
        return [_known_only(inner[0], item) for item in value]
    if origin is dict and isinstance(value, Mapping):
        return {key: _known_only(inner[1], item) for key, item in value.items()}
    return value
