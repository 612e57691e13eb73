"""What `mepr export` does. Imported only when a verb runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared import config
from mepr_shared.cli.output import emit, emit_json, emit_table, say
from mepr_shared.cli.progress import progress
from mepr_shared.cli.runs_verbs import print_comparison
from mepr_shared.contract.create import create_export
from mepr_shared.contract.living import (
    collect_garbage,
    diff,
    find_by_id,
    list_exports,
    set_alias,
)
from mepr_shared.contract.reader import Export, emotion_probabilities
from mepr_shared.contract.schema import EmotionOutput, ModelInfo
from mepr_shared.contract.verify import MANIFEST, Finding, verify
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, ContractError, DataError
from mepr_shared.labels import EMOTIONS
from mepr_shared.scoring import Labels, Predictions
from mepr_shared.train.compare_runs import compare_answers

LISTED = (
    "corpus",
    "modality",
    "export_id",
    "aliases",
    "stage",
    "train_rows",
    "rows",
    "megabytes",
    "created_at",
    "problem",
)


def run_verify(arguments: argparse.Namespace) -> int:
    """`mepr export verify`: findings with codes; 1 if there is any."""
    if arguments.corpus and not arguments.deep:
        raise ConfigError("--corpus is only read with --deep")
    corpora = {corpus.name: corpus for corpus in map(Corpus.read, arguments.corpus)}
    folders = _export_folders(arguments.path)
    records = []
    with progress("verify", "exports") as update:
        for number, folder in enumerate(folders):
            # The corpus by its folder: a damaged manifest cannot say which one it is of.
            corpus = corpora.get(folder.resolve().parent.parent.name)
            findings = verify(folder, arguments.deep, corpus=corpus)
            records.append({"path": str(folder), "findings": [vars(f) for f in findings]})
            update(number + 1, len(folders))
    damaged = [record for record in records if record["findings"]]
    if arguments.json:
        for record in records:
            emit_json({**record, "deep": arguments.deep, "ok": not record["findings"]})
    else:
        _print_findings(damaged, len(records), arguments.deep)
    return 1 if damaged else 0


def run_create(arguments: argparse.Namespace) -> int:
    """`mepr export create`: any trainer's table as an export."""
    corpus = Corpus.read(arguments.corpus)
    path = create_export(
        arguments.table,
        corpus,
        arguments.modality,
        arguments.out,
        emotion_output=_emotion_output(arguments, corpus),
        stage=arguments.stage,
        model=_model_info(arguments.model),
        train_rows=arguments.train_rows,
        missing_status=arguments.missing_status,
        alias=arguments.alias,
    )
    manifest = Export.open(path).manifest
    record = {
        "corpus": corpus.name,
        "modality": arguments.modality,
        "id": path.name,
        "export": str(path),
        "counts": manifest.counts,
    }
    if arguments.json:
        emit_json(record)
    else:
        emit_table([[record[name] for name in list(record)[:4]]], list(record)[:4])
        _print_counts(manifest.counts)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """`mepr export list`: all exports of a folder; a damaged one says why."""
    entries = list_exports(_root(arguments.root))
    if not entries:
        say(f"no exports under {arguments.root}")
        return 0
    if not arguments.json:
        for entry in entries:
            entry["aliases"] = " ".join(entry["aliases"]) or None
            entry["megabytes"] = f"{entry['bytes'] / 1e6:.1f}" if "bytes" in entry else None
    emit(arguments, entries, LISTED)
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """`mepr export diff`: configuration, coverage, shift of predictions, and scores."""
    first, second = (_open(arguments.root, name) for name in (arguments.first, arguments.second))
    report = diff(first, second)
    metrics = [export.manifest.model.dev_metrics for export in (first, second)]
    names = dict.fromkeys([*metrics[0], *metrics[1]])
    report["dev_metrics"] = {name: [m.get(name) for m in metrics] for name in names}
    if arguments.corpus is not None:
        corpus = Corpus.read(arguments.corpus)
        report["scores"] = _scores(first, second, corpus, arguments.split)
    if arguments.json:
        emit_json(report)
    else:
        _print_diff(report)
    return 0


def run_alias(arguments: argparse.Namespace) -> int:
    """`mepr export alias`: name an export."""
    path = set_alias(_root(arguments.root), arguments.name, arguments.export)
    record = {"alias": arguments.name, "export_id": path.name, "path": str(path)}
    emit(arguments, [record], list(record))
    return 0


def run_gc(arguments: argparse.Namespace) -> int:
    """`mepr export gc`: remove what nothing refers to."""
    root = _root(arguments.root)
    gone = collect_garbage(root, runs=arguments.runs, dry_run=arguments.dry_run)
    if arguments.json:
        emit_json({"removed": [str(path) for path in gone], "dry_run": arguments.dry_run})
        return 0
    for path in gone:
        print(path)
    say(f"{len(gone)} exports {'would be removed' if arguments.dry_run else 'removed'}")
    return 0


def _root(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"no such folder: {path}")
    return path


def _export_folders(path: Path) -> list[Path]:
    """The export at `path`, or all below it: it may be EXPORTS, EXPORTS/CORPUS or one further."""
    _root(path)
    if _looks_like_export(path):
        return [path]
    found = {
        inner
        for pattern in ("*", "*/*", "*/*/*")
        for inner in path.glob(pattern)
        if _looks_like_export(inner)
        and not any(part.startswith(".") for part in inner.relative_to(path).parts)
    }
    if not found:
        raise ContractError(f"no export in {path}", hint="an export has a manifest.json")
    return sorted(found)


def _looks_like_export(path: Path) -> bool:
    # Without its manifest it is a damaged export, which must not pass for none.
    return any((path / "samples").glob("part-*.parquet")) or _is_export_manifest(path / MANIFEST)


def _is_export_manifest(path: Path) -> bool:
    # A frame store has a manifest.json as well, and beside it an index.
    return path.is_file() and not (path.parent / "index.parquet").exists()


def _print_findings(damaged: list[dict[str, Any]], checked: int, deep: bool) -> None:
    findings = [Finding(**found) for record in damaged for found in record["findings"]]
    if findings:
        emit_table([(f.code, f.message) for f in findings], ("code", "finding"))
    how = "deep" if deep else "quick"
    say(f"{checked} exports verified ({how}), {len(damaged)} with findings")


def _emotion_output(arguments: argparse.Namespace, corpus: Corpus) -> EmotionOutput | None:
    kind = arguments.emotion_output
    if kind is None and np.isfinite(corpus.emotion_values).any():
        kind = "sigmoid" if corpus.meta.scale.is_multi_label else "softmax"
        said = f"{corpus.meta.scale.kind} labels of {corpus.name}"
        say(f"emotion logits are read with a {kind}, as the {said} suggest (--emotion-output)")
    if kind is None:
        given = [name for name in ("prior_shift", "thresholds") if getattr(arguments, name)]
        if given or arguments.temperature != 1.0:
            raise ConfigError(
                f"corpus {corpus.name!r} has no emotion labels that say how to read the logits",
                hint="add --emotion-output sigmoid|softmax",
            )
        return None
    return EmotionOutput(
        kind,
        arguments.prior_shift or [0.0] * len(EMOTIONS),
        arguments.temperature,
        arguments.thresholds,
    )


def _model_info(path: Path | None) -> ModelInfo | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no JSON object")
    return config.build(ModelInfo, content, where=str(path))


def _open(root: Path, name: str) -> Export:
    if (Path(name) / MANIFEST).is_file():
        return Export.open(name)
    return Export.open(find_by_id(_root(root), name))


def _scores(first: Export, second: Export, corpus: Corpus, split: str) -> dict[str, Any]:
    """Both exports against the labels of a split, on the samples that both have."""
    for export in (first, second):
        for warning in export.check_against(corpus):
            say(f"warning: {warning}")
    rows = corpus.select(split=split)
    if not len(rows):
        raise DataError(f"corpus {corpus.name!r} has no samples in {split}", hint="--split")
    labels = Labels(
        corpus.source_ids[rows].tolist(),
        corpus.emotion_targets()[rows],
        corpus.meta.scale,
        corpus.trait_values[rows],
    )
    ids = [corpus.sample_ids[row] for row in rows]
    answers = (_answers(export, ids, labels) for export in (first, second))
    return {"corpus": corpus.name, "split": split, **compare_answers(labels, *answers)}


def _answers(export: Export, sample_ids: list[str], labels: Labels) -> Predictions:
    """Multi-label decisions follow the calibrated probabilities and their thresholds,
    single-label ones the raw logits, which class weights have moved on purpose."""
    output = export.manifest.emotion_output
    rows = export.row_of(sample_ids)

    def of(values: np.ndarray) -> np.ndarray | None:
        if not values.shape[1]:
            return None
        return np.where((rows >= 0)[:, None], values[rows], np.float32("nan"))

    traits = of(export.trait_scores)
    if output is None:
        return Predictions(traits=traits)
    if not labels.scale.is_multi_label:
        raw = emotion_probabilities(export.emotion_logits, EmotionOutput(output.kind))
        return Predictions(of(raw), None, output.kind, traits)
    chance = 0.5 if output.kind == "sigmoid" else 1 / len(EMOTIONS)
    thresholds = np.array(output.thresholds or [chance] * len(EMOTIONS))
    return Predictions(of(export.emotion_probabilities()), thresholds, output.kind, traits)


def _print_counts(counts: Mapping[str, Mapping[str, int]]) -> None:
    rows = [
        (split or "none", status, count)
        for split, statuses in counts.items()
        for status, count in statuses.items()
    ]
    emit_table(rows, ("split", "status", "samples"))


def _print_diff(report: Mapping[str, Any]) -> None:
    columns = tuple(report["exports"])
    for title in ("config", "dev_metrics", "coverage"):
        rows = [[name, *values] for name, values in report[title].items()]
        if rows:
            emit_table(rows, (title, *columns))
    if any(report["only"]):
        say(f"samples in one of them only: {report['only'][0]} and {report['only'][1]}")
    shifts = list(_shift_rows(report["shift"]))
    if shifts:
        emit_table(shifts, ("task", "name", "n", "mean change", "mean absolute change"))
    if "scores" in report:
        print_comparison(report["scores"])


def _shift_rows(shift: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for task, per_name in shift.items():
        for name, change in per_name.items():
            yield task, name, change["n"], change["mean"], change["mean_absolute"]
