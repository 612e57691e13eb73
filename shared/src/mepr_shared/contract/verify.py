"""Is an export what its manifest says? Each problem is a finding with a code.

Opening runs `quick`: version, features, the manifest's own hash, label order, sizes.
`verify(deep=True)` reads everything.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.contract.files import path_inside, sha256_file, sha256_json
from mepr_shared.contract.schema import (
    ColumnStats,
    CorpusLike,
    LabelSpaces,
    Manifest,
    ManifestError,
    PartFile,
    export_id_of,
    parse_manifest,
    seal_of,
)
from mepr_shared.contract.summary import (
    PartSummary,
    summarise,
    total_counts,
    total_stats,
    uneven_columns,
)
from mepr_shared.contract.table import ARRAYS, SampleRows, read_part, row_problems, schema_columns
from mepr_shared.errors import ContractError
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        code: a word that stays the same between versions: `missing, manifest, version, features,
            label_order, path, file_missing, file_size, file_hash, manifest_hash, export_id,
            folder_name, config_hash, extra_file, schema, rows, keys, split, status, not_finite,
            null_rule, range, counts, stats, coverage`.
        message: in words, with the values.
        path: the file or folder it was found in.
    """

    code: str
    message: str
    path: str


def verify(
    path: Path | str, deep: bool = False, *, corpus: CorpusLike | None = None
) -> list[Finding]:
    """Check an export.

    Args:
        path: its folder.
        deep: also hashes, schema, ranges, key order, rules of every row.
        corpus: with `deep`, also whether every sample of this corpus has a row.

    Returns:
        What is wrong; empty if nothing is.
    """
    path = Path(path)
    manifest, findings = quick(path)
    if not deep or manifest is None:
        return findings
    if findings:
        # Damage that opening finds makes reading the parts pointless or unsafe.
        return findings
    findings += _check_manifest(path, manifest)
    findings += _check_files(path, manifest)
    if not any(finding.code == "file_hash" for finding in findings):
        findings += _check_rows(path, manifest, corpus)
    return findings


def quick(path: Path) -> tuple[Manifest | None, list[Finding]]:
    """What opening an export checks, and its manifest if that can be read."""
    file = path / MANIFEST
    try:
        data = file.read_bytes()
        manifest = parse_manifest(data, str(file))
    except (FileNotFoundError, NotADirectoryError):
        message = f"{path} is no export: it has no {MANIFEST}"
        return None, [Finding("missing", message, str(path))]
    except OSError as error:
        return None, [Finding("missing", f"cannot read {file}: {error.strerror}", str(file))]
    except ManifestError as error:
        return None, [Finding(error.code, str(error), str(file))]
    findings = list(_label_orders(manifest.label_spaces, file))
    if seal_of(json.loads(data)) != manifest.manifest_sha256:
        message = f"{file} was changed after it was written"
        findings.append(Finding("manifest_hash", message, str(file)))
    for part in manifest.files:
        try:
            location = path_inside(path, part.path)
            size = location.stat().st_size
        except ContractError as error:
            findings.append(Finding("path", str(error), str(file)))
        except OSError:
            message = f"{path}: the file {part.path} is missing"
            findings.append(Finding("file_missing", message, str(path / part.path)))
        else:
            if size != part.bytes:
                message = f"{location} has {size} bytes, the manifest says {part.bytes}"
                findings.append(Finding("file_size", message, str(location)))
    return manifest, findings


def _label_orders(spaces: LabelSpaces, file: Path) -> Iterator[Finding]:
    for task, found, ours in (
        ("emotions", spaces.emotion, EMOTIONS),
        ("traits", spaces.traits, TRAITS),
    ):
        if tuple(found) != ours:
            message = f"{file}: order of {task} is {list(found)}, ours is {list(ours)}"
            yield Finding("label_order", message, str(file))


def _check_manifest(path: Path, manifest: Manifest) -> Iterator[Finding]:
    file = str(path / MANIFEST)
    content: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    wanted = export_id_of(content)
    if manifest.export_id != wanted:
        message = f"{file}: export_id is {manifest.export_id}, its content gives {wanted}"
        yield Finding("export_id", message, file)
    if path.resolve().name != manifest.export_id:
        message = f"the folder {path.resolve().name} holds export {manifest.export_id}"
        yield Finding("folder_name", message, str(path))
    if sha256_json(manifest.model.config) != manifest.model.config_sha256:
        yield Finding("config_hash", f"{file}: model.config does not fit config_sha256", file)
    columns = schema_columns({name: manifest.width(name) or 0 for name in ARRAYS})
    if manifest.schema[: len(columns)] != columns:
        yield Finding("schema", f"{file}: the schema is not that of format 1.0", file)


def _check_files(path: Path, manifest: Manifest) -> Iterator[Finding]:
    named = {MANIFEST}
    for part in manifest.files:
        named.add(part.path)
        location = path / part.path
        if sha256_file(location) != part.sha256:
            message = f"{location} is damaged: its SHA-256 is not that of the manifest"
            yield Finding("file_hash", message, str(location))
    for extra in sorted(path.rglob("*")):
        relative = extra.relative_to(path).as_posix()
        # Whoever reads the folder with Spark or DuckDB would take it for a part.
        if not extra.is_dir() and relative not in named:
            yield Finding("extra_file", f"{extra} is not in the manifest", str(extra))


def _check_rows(path: Path, manifest: Manifest, corpus: CorpusLike | None) -> Iterator[Finding]:
    summaries: list[PartSummary] = []
    keys: list[str] = []
    splits: list[str | None] = []
    widths = {name: manifest.width(name) for name in ARRAYS}
    for part in manifest.files:
        location = str(path / part.path)
        try:
            rows = read_part(path / part.path, widths)
        except ContractError as error:
            yield Finding("schema", str(error), location)
            return
        yield from _check_part(part, rows, keys[-1] if keys else None, location)
        keys += rows.text["sample_id"]
        splits += rows.text["split"]
        summaries.append(summarise(rows))
    file = str(path / MANIFEST)
    for name in uneven_columns(summaries):
        message = f"{path}: {name} is missing in some rows of status ok"
        yield Finding("null_rule", message, str(path))
    counts = total_counts(summaries)
    if counts != manifest.counts:
        message = f"{file}: counts are {manifest.counts}, the rows give {counts}"
        yield Finding("counts", message, file)
    if not _alike(total_stats(summaries), manifest.stats):
        yield Finding("stats", f"{file}: stats are not those of the rows", file)
    if corpus is not None:
        yield from coverage_findings(dict(zip(keys, splits, strict=True)), corpus, path)


def _check_part(
    part: PartFile, rows: SampleRows, last_key: str | None, location: str
) -> Iterator[Finding]:
    keys = rows.text["sample_id"]
    if len(keys) != part.rows:
        message = f"{location} has {len(keys)} rows, the manifest says {part.rows}"
        yield Finding("rows", message, location)
    ordered = [key for key in (last_key, *keys) if key is not None]
    for before, after in itertools.pairwise(ordered):
        if not before < after:
            message = f"{location}: sample {after!r} comes after {before!r}"
            yield Finding("keys", message, location)
            break
    if keys and (keys[0], keys[-1]) != (part.key_min, part.key_max):
        message = f"{location}: keys {keys[0]!r} to {keys[-1]!r}, the manifest says otherwise"
        yield Finding("keys", message, location)
    unknown = {split for split in rows.text["split"] if split not in (None, *SPLITS)}
    if unknown:
        yield Finding("split", f"{location}: unknown split {min(unknown)!r}", location)
    for problem in row_problems(rows):
        yield Finding(problem.code, f"{location}: {problem.message}", location)


def coverage_findings(
    export_splits: dict[str, str | None], corpus: CorpusLike, path: Path
) -> Iterator[Finding]:
    """Samples of the corpus without a row, and samples whose split is another one.

    Args:
        export_splits: `sample_id -> split` of the export.
        corpus: the corpus index.
        path: of the export, for the messages.
    """
    splits = dict(zip(corpus.sample_ids, corpus.splits, strict=True))
    missing = [key for key in splits if key not in export_splits]
    if missing:
        message = (
            f"{path}: {len(missing)} samples of {corpus.name} have no row, e.g. {missing[0]!r}"
        )
        yield Finding("coverage", message, str(path))
    changed = [k for k, split in splits.items() if k in export_splits and export_splits[k] != split]
    if changed:
        key = changed[0]
        message = (
            f"{path}: {len(changed)} samples changed their split: {key!r} is "
            f"{export_splits[key]!r} in the export and {splits[key]!r} in corpus {corpus.name}"
        )
        yield Finding("split", message, str(path))


def _alike(found: dict[str, ColumnStats], stated: dict[str, ColumnStats]) -> bool:
    # Sums may differ in the last digits between machines.
    if set(found) != set(stated):
        return False
    for name, ours in found.items():
        theirs = stated[name]
        near = 1e-3 * ours.max_abs
        if ours.rows != theirs.rows or not (
            math.isclose(ours.mean_norm, theirs.mean_norm, rel_tol=1e-3, abs_tol=near)
            and math.isclose(ours.std_norm, theirs.std_norm, rel_tol=1e-3, abs_tol=near)
            and math.isclose(ours.max_abs, theirs.max_abs, rel_tol=1e-3)
        ):
            return False
    return True
