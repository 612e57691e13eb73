"""A bundle: everything that `predict` needs of the three stages, in one directory.

```
BUNDLE/
  stage3.safetensors      the multimodal model
  face.safetensors ...    per modality its stage-2 model, its stage-1 models inside
  attribution_baseline.safetensors   where the run was analysed: what attributions start from
  bundle.json             configurations, encoders with the hashes of their weights, how outputs
                          are read, scores, and the SHA-256 of every file. Written last.
```
Pretrained encoders are named, not copied. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.contract.files import path_inside, sha256_file, sha256_json
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, TRAITS

FORMAT = "mepr-bundle"
FORMAT_VERSION = "1.0"
FEATURES: tuple[str, ...] = ()  # entries of `required_features` that this version understands
MANIFEST = "bundle.json"
STAGE3 = "stage3.safetensors"
UPGRADE = "pip install --upgrade mepr-fusion"
_PARTS = ("stage3", "modalities", "left_out", "corpus", "files", "labels")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; its files are those that were written.

    Attributes:
        path: the directory.
        content: what `bundle.json` says.
    """

    path: Path
    content: dict[str, Any]

    @property
    def corpus(self) -> str:
        """The corpus as whose samples inputs are read where nothing else is asked for."""
        return self.content["corpus"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the stage-3 run."""
        return self.content["stage3"]["config"]

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the stage-3 run, thresholds among them."""
        return self.content["stage3"]["metrics"]

    @property
    def modalities(self) -> dict[str, dict[str, Any]]:
        """Modality -> `distribution`, `config`, `outputs` (by corpus), `weights`, `val`."""
        return self.content["modalities"]

    @property
    def left_out(self) -> dict[str, str]:
        """Modalities that stage 3 knows and the bundle has no model for -> why."""
        return self.content["left_out"]

    @property
    def id(self) -> str:
        """16 hex digits that name this content."""
        return self.content["sha256"][:16]

    @property
    def attribution_baseline(self) -> Path | None:
        """What attributions are measured from; None where the run was not analysed."""
        name = self.content["stage3"].get("attribution_baseline")
        return path_inside(self.path, name) if name else None

    def weights(self, name: str) -> Path:
        """The weights of `stage3` or of a modality."""
        part = self.content["stage3"] if name == "stage3" else self.modalities[name]
        return path_inside(self.path, part["weights"])


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle and check that every byte is as it was written.

    Raises:
        ContractError: no bundle, unfinished, of a newer version, damaged, incomplete, or it names
            a file outside of its directory.
    """
    path = Path(path)
    content = _read(path)
    bundle = Bundle(path, content)
    for name, said in content["files"].items():
        file = path_inside(path, name)
        if not file.is_file():
            raise ContractError(f"{path} is incomplete: {name} is missing", hint="copy it again")
        if file.stat().st_size != said["bytes"] or sha256_file(file) != said["sha256"]:
            raise ContractError(
                f"{file} is damaged: its SHA-256 is not that of {MANIFEST}", hint="copy it again"
            )
    for name in ("stage3", *bundle.modalities):
        if bundle.weights(name).relative_to(path).as_posix() not in content["files"]:
            raise ContractError(f"{path / MANIFEST} vouches for no weights of {name}")
    baseline = content["stage3"].get("attribution_baseline")
    if baseline and baseline not in content["files"]:
        raise ContractError(f"{path / MANIFEST} vouches for no {baseline}")
    return bundle


def seal_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything in `bundle.json` but itself."""
    return sha256_json({key: value for key, value in content.items() if key != "sha256"})


def _read(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    damaged = f"{file} is damaged"
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "has no bundle.json" if path.is_dir() else "is no directory"
        raise ContractError(
            f"{path} is not a bundle: it {what}", hint="mepr-fusion bundle makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ContractError(f"{damaged}: {error}", hint="copy it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ContractError(f"{file} is not that of a bundle (no format {FORMAT!r})")
    _check_version(file, content)
    try:
        sealed = content["sha256"] == seal_of(content)
    except (KeyError, ValueError):
        sealed = False
    if not sealed:
        raise ContractError(f"{damaged}: its SHA-256 is not the one in it", hint="copy it again")
    missing = [name for name in _PARTS if name not in content]
    if missing:
        raise ContractError(f"{damaged}: it has no {missing[0]!r}")
    labels = {"emotion": list(EMOTIONS), "traits": list(TRAITS)}
    if content["labels"] != labels:
        raise ContractError(f"{file} was made for other labels, or another order of them")
    return content


def _check_version(file: Path, content: Mapping[str, Any]) -> None:
    version = str(content.get("format_version"))
    major = version.split(".")[0]
    if not major.isdecimal():
        raise ContractError(f"{file} is damaged: format_version {version!r}")
    if int(major) > int(FORMAT_VERSION.split(".")[0]):
        raise ContractError(
            f"{file}: bundle format {version}, this version reads {FORMAT_VERSION}", hint=UPGRADE
        )
    unknown = [name for name in content.get("required_features", []) if name not in FEATURES]
    if unknown:
        raise ContractError(f"{file} needs unknown features: {unknown}", hint=UPGRADE)
