"""Where pretrained weights come from: a local folder, a Python package, or a model hub.

All three end as a local folder with a hash of its weight files, which becomes part of the frame
store's key: another revision can never be mistaken for this one.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mepr_shared.errors import ConfigError, MeprError, MissingDependency, require

PACKAGE_SCHEME = "package:"
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth")
SKIPPED_ON_HUB = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "openvino/*", "*.gguf"]


@dataclass(frozen=True)
class PretrainedFolder:
    """A resolved pretrained model.

    Attributes:
        id: what the user wrote.
        revision: hub commit or package version; empty for a plain folder.
        path: the local folder.
        weights_sha256: hash over names and bytes of its weight files.
    """

    id: str
    revision: str
    path: Path
    weights_sha256: str


def resolve(encoder: str, *, revision: str = "", needs: str = "") -> PretrainedFolder:
    """Find pretrained weights.

    Args:
        encoder: a folder, `package:MODULE/SUB/FOLDER` (weights inside an installed package),
            or a Hugging Face id.
        revision: hub branch, tag or commit.
        needs: distribution that carries a `package:` encoder, for the hint.

    Raises:
        MissingDependency: the package is not installed.
        ConfigError: the folder or hub id cannot be had.
    """
    if encoder.startswith(PACKAGE_SCHEME):
        path, revision = _in_package(encoder, needs)
    elif Path(encoder).expanduser().is_dir():
        path = Path(encoder).expanduser().resolve()
    elif encoder.startswith((".", "/", "~")):
        raise ConfigError(f"no such encoder folder: {encoder}")
    else:
        path = _from_hub(encoder, revision)
        revision = path.name
    return PretrainedFolder(encoder, revision, path, weights_sha256(path))


def weights_sha256(folder: Path) -> str:
    """Hash of a model folder's weight files (names and bytes).

    Raises:
        ConfigError: the folder has none.
    """
    files = sorted({file for pattern in WEIGHT_FILES for file in folder.rglob(pattern)})
    if not files:
        raise ConfigError(f"{folder} holds no weights ({', '.join(WEIGHT_FILES)})")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _in_package(encoder: str, needs: str) -> tuple[Path, str]:
    module, _, inside = encoder.removeprefix(PACKAGE_SCHEME).partition("/")
    found = importlib.util.find_spec(module)
    distribution = needs or module.replace("_", "-")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency(
            f"the encoder {encoder} lives in a package that is not installed",
            hint=f"pip install {distribution}",
        )
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.is_dir():
        raise ConfigError(f"the package {module} has no folder {inside!r}")
    try:
        from importlib.metadata import version

        return path, version(distribution)
    except ImportError:
        return path, ""


def _from_hub(encoder: str, revision: str) -> Path:
    hub = require("huggingface_hub", extra="huggingface_hub")
    try:
        return Path(
            hub.snapshot_download(
                encoder, revision=revision or None, ignore_patterns=SKIPPED_ON_HUB
            )
        )
    except Exception as error:  # the hub client raises many kinds: offline, 404, gated, bad id
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise MeprError(
            f"encoder {encoder!r} is neither a folder nor to be had from the hub: {reason}",
            hint="give a local folder with --encoder, or use --profile small",
        ) from None
