"""Living with exports: find, name, compare, pin and remove them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.contract.files import checked_name, disk_errors, write_json
from mepr_shared.contract.reader import Export
from mepr_shared.contract.verify import MANIFEST, quick
from mepr_shared.contract.writer import STAGING
from mepr_shared.errors import ContractError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS

ALIASES = "aliases.json"
LOCK = "exports.lock"
JOINED = ".joined"  # tables that stage 3 has made of exports; see mepr_fusion.packed
_REMOVED = ".removed-"
_LOCK_FORMAT = "mepr-exports-lock"
_STALE_STAGING_S = 7 * 24 * 3600.0


def export_folders(
    root: Path | str, corpus_name: str | None = None, modality: str | None = None
) -> list[Path]:
    """Folders of exports, sorted; what is being written is not among them."""
    corpus = checked_name(corpus_name, "corpus name") if corpus_name else "*"
    name = checked_name(modality, "modality name") if modality else "*"
    found = Path(root).glob(f"{corpus}/{name}/*/{MANIFEST}")
    return sorted(
        path.parent
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def find_exports(
    root: Path | str, corpus_name: str | None = None, modality: str | None = None
) -> list[Export]:
    """Every export of a corpus and modality, opened.

    Raises:
        ContractError: one of them is damaged.
    """
    return [Export.open(path) for path in export_folders(root, corpus_name, modality)]


def resolve(root: Path | str, corpus_name: str, modality: str, choice: str | None = None) -> Export:
    """The export to use.

    Args:
        root: folder of all exports.
        corpus_name: name of the corpus.
        modality: name of the modality.
        choice: an id or an alias; needed where there are several.

    Raises:
        ContractError: there is none, no such one, or several and no choice.
    """
    folders = {path.name: path for path in export_folders(root, corpus_name, modality)}
    what = f"of {modality} for corpus {corpus_name!r} under {root}"
    if not folders:
        raise ContractError(f"no export {what}", hint=f"run mepr-{modality} export")
    named = aliases(Path(root) / corpus_name / modality)
    if choice is None:
        if len(folders) > 1:
            listed = ", ".join(_named(key, named) for key in folders)
            raise ContractError(
                f"{len(folders)} exports {what}: {listed}",
                hint=f"choose one: --export {modality}:{corpus_name}=ID_OR_ALIAS",
            )
        return Export.open(next(iter(folders.values())))
    key = named.get(choice, choice)
    if key not in folders:
        raise ContractError(
            f"no export {choice!r} {what}", hint=did_you_mean(choice, [*folders, *named])
        )
    return Export.open(folders[key])


def list_exports(root: Path | str) -> list[dict[str, Any]]:
    """One entry per export; a damaged one says so under `problem` and does not hide the others."""
    entries: list[dict[str, Any]] = []
    for path in export_folders(root):
        named = aliases(path.parent)
        entry: dict[str, Any] = {
            "modality": path.parent.name,
            "corpus": path.parent.parent.name,
            "export_id": path.name,
            "aliases": sorted(name for name, key in named.items() if key == path.name),
            "path": str(path),
            "problem": None,
        }
        try:
            manifest = Export.open(path).manifest
        except ContractError as error:
            entry["problem"] = str(error)
        else:
            entry |= {
                "created_at": manifest.created_at,
                "stage": manifest.stage,
                "train_rows": manifest.train_rows,
                "rows": sum(part.rows for part in manifest.files),
                "bytes": sum(part.bytes for part in manifest.files),
                "counts": manifest.counts,
            }
        entries.append(entry)
    return entries


def find_by_id(root: Path | str, id_or_alias: str) -> Path:
    """The folder of the one export with this id or alias, of whatever corpus and modality.

    Raises:
        ContractError: none, or an alias that several modalities or corpora have.
    """
    folders = export_folders(root)
    found = [
        path
        for path in folders
        if id_or_alias == path.name or aliases(path.parent).get(id_or_alias) == path.name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(path.relative_to(root)) for path in found)
        raise ContractError(f"{id_or_alias!r} is the name of several: {listed}", hint="give the id")
    known = [path.name for path in folders]
    raise ContractError(
        f"no export {id_or_alias!r} under {root}", hint=did_you_mean(id_or_alias, known)
    )


def aliases(folder: Path) -> dict[str, str]:
    """Alias -> export id of one corpus and modality (`<root>/<corpus>/<modality>`)."""
    try:
        content = json.loads((folder / ALIASES).read_bytes())
        return {str(name): str(key) for name, key in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ContractError(f"{folder / ALIASES} is damaged: {error}", hint="remove it") from None


def set_alias(root: Path | str, name: str, id_or_alias: str) -> Path:
    """Name an export; a name that was given before moves. Gives the export's folder.

    Raises:
        ContractError: no such export, or the name is an id.
    """
    checked_name(name, "alias")
    path = find_by_id(root, id_or_alias)
    if any(folder.name == name for folder in export_folders(root)):
        raise ContractError(f"{name!r} is the id of an export and cannot be an alias")
    with disk_errors(path.parent):
        write_json(path.parent / ALIASES, {**aliases(path.parent), name: path.name})
    return path


def diff(
    a: Export, b: Export, *, score: Callable[[Export], Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """What changed from one export to another.

    Args:
        a, b: of the same modality and corpus, or not.
        score: metrics of an export against labels, e.g. from `mepr_shared.metrics`.

    Returns:
        `exports` (two ids), `config` (key -> two values, where they differ), `metrics`
        (name -> two values, where `score` is given), `coverage` (status -> two counts), `only`
        (samples in one of them), `shift` (`emotion` and `traits`: name -> `n`, mean of b - a and
        mean absolute difference, of calibrated probabilities and of scores).
    """
    in_b = set(b.sample_ids)
    common = [key for key in a.sample_ids if key in in_b]
    rows_a, rows_b = a.row_of(common), b.row_of(common)
    result: dict[str, Any] = {
        "exports": [a.export_id, b.export_id],
        "config": _config_difference(a.manifest.model.config, b.manifest.model.config),
        "coverage": {
            status: [int((a.status == status).sum()), int((b.status == status).sum())]
            for status in sorted({*a.status, *b.status})
        },
        "only": [len(a.sample_ids) - len(common), len(b.sample_ids) - len(common)],
        "shift": {
            "emotion": _shift(
                a.emotion_probabilities()[rows_a], b.emotion_probabilities()[rows_b], EMOTIONS
            ),
            "traits": _shift(a.trait_scores[rows_a], b.trait_scores[rows_b], TRAITS),
        },
    }
    if score is not None:
        metrics_a, metrics_b = score(a), score(b)
        names = [*metrics_a, *(name for name in metrics_b if name not in metrics_a)]
        result["metrics"] = {name: [metrics_a.get(name), metrics_b.get(name)] for name in names}
    return result


def write_lock(path: Path | str, exports: Iterable[Export]) -> None:
    """Pin the exports that a run consumed, in its `exports.lock`."""
    pins = {f"{e.modality}:{e.corpus_name}": e.export_id for e in exports}
    content = {"format": _LOCK_FORMAT, "format_version": "1.0", "exports": pins}
    with disk_errors(Path(path)):
        write_json(Path(path), content)


def read_lock(path: Path | str) -> dict[str, str]:
    """`MODALITY:CORPUS -> export id` of an `exports.lock`.

    Raises:
        ContractError: missing or damaged.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        if content["format"] != _LOCK_FORMAT:
            raise ValueError(f"format {content['format']!r}")
        return {str(name): str(key) for name, key in content["exports"].items()}
    except FileNotFoundError:
        raise ContractError(f"no such file: {path}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(f"{path} is not an {LOCK}: {error}") from None


def collect_garbage(
    root: Path | str, *, runs: Iterable[Path | str] = (), dry_run: bool = False
) -> list[Path]:
    """Remove exports that nothing refers to.

    Kept: the newest of each corpus and modality, every one with an alias, and every one that an
    `exports.lock` under `runs` or in `root` pins. Leftovers of exports that were never finished go
    after a week. Joined tables go all: the next command of stage 3 joins again.

    Args:
        root: folder of all exports.
        runs: run folders, searched for `exports.lock` at any depth, or such files.
        dry_run: remove nothing.

    Returns:
        What was removed, or would be.
    """
    root = Path(root)
    pinned: set[str] = set()
    for place in (root, *map(Path, runs)):
        if not place.exists():
            raise ContractError(f"no such folder: {place}")
        for lock in [place] if place.is_file() else place.rglob(LOCK):
            pinned |= set(read_lock(lock).values())
    doomed = []
    by_folder: dict[Path, list[Path]] = {}
    for path in export_folders(root):
        by_folder.setdefault(path.parent, []).append(path)
    for folder, paths in by_folder.items():
        newest = max(paths, key=_created_at)
        keep = {newest.name, *pinned, *aliases(folder).values()}
        doomed += [path for path in paths if path.name not in keep]
    leftovers = [path for path in root.glob(f"*/*/{STAGING}*") if _age_s(path) > _STALE_STAGING_S]
    leftovers += root.glob(f"*/*/{_REMOVED}*")
    leftovers += root.glob(JOINED)
    if not dry_run:
        with disk_errors(root):
            for path in doomed:
                _remove(path)
            for path in leftovers:
                # One that another process is writing may grow while it is removed.
                shutil.rmtree(path, ignore_errors=path.name == JOINED)
    return doomed + leftovers


def _remove(path: Path) -> None:
    # Renamed first: nobody may find an export that is half gone.
    gone = path.with_name(f"{_REMOVED}{path.name}")
    path.rename(gone)
    shutil.rmtree(gone)


def _created_at(path: Path) -> str:
    manifest, _ = quick(path)
    return manifest.created_at if manifest else ""


def _age_s(path: Path) -> float:
    newest = max(file.stat().st_mtime for file in [path, *path.rglob("*")])
    return time.time() - newest


def _named(key: str, named: Mapping[str, str]) -> str:
    names = [name for name, target in named.items() if target == key]
    return f"{key} ({', '.join(names)})" if names else key


def _shift(a: np.ndarray, b: np.ndarray, names: Iterable[str]) -> dict[str, dict[str, float]]:
    both = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
    if not both.any() or a.shape[1] != b.shape[1]:
        return {}
    change = b[both].astype(np.float64) - a[both]
    return {
        name: {
            "n": int(both.sum()),
            "mean": float(change[:, column].mean()),
            "mean_absolute": float(np.abs(change[:, column]).mean()),
        }
        for column, name in enumerate(names)
    }


def _config_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    return {
        key: [flat_a.get(key), flat_b.get(key)]
        for key in sorted({*flat_a, *flat_b})
        if flat_a.get(key) != flat_b.get(key)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs
