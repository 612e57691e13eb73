"""A run directory: configuration, weights, metrics, log. It is also the checkpoint.

```
RUN/
  config.json           what was asked: kind, configuration, labels, corpora, seed, versions
  weights.safetensors   the model that validation chose
  metrics.json          validation scores, thresholds, epochs, number of configurations tried
  log.jsonl             one line per epoch
  trainer.safetensors   for --resume: last weights, optimiser; its metadata is the record,
  trainer.json          and this is a readable copy of that metadata
  figures/ report.md tensorboard/
```
Every file is replaced atomically, so a killed run is always readable.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mepr_shared import __version__
from mepr_shared.errors import ContractError, MeprError

RUN_FORMAT = "mepr-run"
RUN_VERSION = "1.0"


class Run:
    """One run directory.

    Attributes:
        path: the directory.
        config: the content of `config.json`.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(
        cls, path: Path, *, kind: str, config: Mapping[str, Any], resume: bool = False
    ) -> Run:
        """Start a run, or reopen the same one.

        Args:
            path: a new or empty directory, or with `resume` an earlier run's.
            kind: `stage1`, `stage2` or `stage3`.
            config: JSON-ready description of everything that determines the result.

        Raises:
            MeprError: a run is there and `resume` is off, or it was made with another config.
        """
        content = {
            "format": RUN_FORMAT,
            "format_version": RUN_VERSION,
            "kind": kind,
            **json.loads(json.dumps(config)),
            "versions": versions(),
        }
        if (path / "config.json").exists():
            if not resume:
                raise MeprError(
                    f"there is already a run in {path}",
                    hint="--resume continues it; or give another --run",
                )
            run = cls.load(path)
            _refuse_changed(run.config, content, path)
            return run
        if path.exists() and any(path.iterdir()):
            raise MeprError(f"{path} is not empty and is no run", hint="give another --run")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MeprError(f"cannot make the run directory {path}: {error.strerror}") from None
        run = cls(path, content)
        run.write_json("config.json", content)
        return run

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run that exists.

        Raises:
            ContractError: not a run, unreadable, or of a newer major version.
        """
        config = _read_json(Path(path) / "config.json")
        if not isinstance(config, dict) or config.get("format") != RUN_FORMAT:
            raise ContractError(f"{path} is not a run (config.json has no format {RUN_FORMAT!r})")
        if str(config.get("format_version")).split(".")[0] != RUN_VERSION.split(".")[0]:
            raise ContractError(
                f"{path} was written by another MEPR (run format {config.get('format_version')})",
                hint="pip install --upgrade mepr-shared",
            )
        return cls(Path(path), config)

    @property
    def kind(self) -> str:
        """`stage1`, `stage2` or `stage3`."""
        return self.config["kind"]

    @property
    def weights_path(self) -> Path:
        """The chosen weights.

        Raises:
            ContractError: training has not written any yet.
        """
        path = self.path / "weights.safetensors"
        if not path.exists():
            raise ContractError(f"{self.path} has no weights yet", hint="train it with --resume")
        return path

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`; empty while training has not finished."""
        path = self.path / "metrics.json"
        return _read_json(path) if path.exists() else {}

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per epoch."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def write_log(self, records: list[dict[str, Any]]) -> None:
        """Replace the log (a run has few epochs; an appended half line would need repair)."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        replace_file(self.path / "log.jsonl", lambda target: target.write_text(text, "utf-8"))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files atomically."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        replace_file(self.path / name, lambda target: target.write_text(text, "utf-8"))

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`: from now on the run counts as finished."""
        self.write_json("metrics.json", metrics)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its target, flush it to disk, then rename it over the target."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    """Versions of what determines a result."""
    found = {"python": platform.python_version(), "mepr-shared": __version__}
    for name in ("mepr-text", "mepr-fusion", "torch", "numpy", "sentence-transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _refuse_changed(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    changed = sorted(
        key for key in {*old, *new} - {"versions"} if _flat(old.get(key)) != _flat(new.get(key))
    )
    if changed:
        details = "; ".join(_first_difference(k, old.get(k), new.get(k)) for k in changed)
        raise MeprError(
            f"{path} was started with another configuration: {details}",
            hint="repeat the original options, or give another --run",
        )


def _first_difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in sorted({*old, *new}):
            if _flat(old.get(inner)) != _flat(new.get(inner)):
                return _first_difference(f"{key}.{inner}", old.get(inner), new.get(inner))
    return f"{key} was {json.dumps(old)}, now {json.dumps(new)}"


def _flat(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ContractError(f"no such file: {path}", hint="is this a run directory?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} is damaged: {error}") from None
