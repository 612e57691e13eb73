"""What `mepr corpus` does. Imported only when a verb runs."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

from mepr_shared.cli.corpus_summary import print_summary, summarise
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.cli.progress import progress
from mepr_shared.corpora.audit import audit, lines
from mepr_shared.corpora.demo import CLIPS, NAMES, make_demo, usual_media
from mepr_shared.corpora.demo_features import MODALITIES, make_demo_features
from mepr_shared.corpora.demo_features import NAME as FEATURES_NAME
from mepr_shared.corpora.demo_media import FOLDER as MEDIA_FOLDER
from mepr_shared.corpora.demo_plan import FEWEST_CLIPS
from mepr_shared.corpora.importers import importer
from mepr_shared.corpora.index import Corpus
from mepr_shared.corpora.split import FRACTIONS, fold_corpus, split_corpus
from mepr_shared.corpora.withdraw import BY, withdraw
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import SPLITS


def run_import(arguments: argparse.Namespace) -> int:
    """`mepr corpus import`: official files or a table to an index, with a report."""
    source: Path = arguments.source
    out: Path | None = arguments.out
    if not source.exists():
        raise DataError(f"no such file or folder: {source}")
    if out is None and not arguments.dry_run:
        raise ConfigError("--out is missing", hint="give --out X.parquet, or --dry-run")
    if out is not None and out.resolve() == source.resolve():
        raise DataError(f"{out} is the table itself", hint="give --out another path")
    options = {name: getattr(arguments, name) for name in arguments.options}
    if "columns" in options:
        options["columns"] = _column_map(options["columns"])
    name = arguments.name or _default_name(arguments.importer, out or source)
    read = importer(arguments.importer)
    result = read(source, name=name, strict=arguments.strict, **options)
    written = None if arguments.dry_run else out
    if written is not None:
        result.corpus.write(written, overwrite=arguments.overwrite)
    dropped = {
        reason: {"rows": len(ids), "ids": ids} for reason, ids in result.report.dropped.items()
    }
    if arguments.json:
        path = None if written is None else str(written)
        head = {"corpus": name, "path": path, "rows": len(result.corpus)}
        emit_json({**head, **result.report.to_dict(), "dropped": dropped})
        return 0
    for line in result.report.lines():
        print(line)
    say("dry run: nothing was written" if written is None else f"index: {written}")
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """`mepr corpus demo`: synthetic corpora, all or none of them."""
    out: Path = arguments.out
    if arguments.features_only and arguments.media_clips:
        raise ConfigError("--features-only makes no media", hint="leave out --media-clips")
    features = out / "features"
    text_corpora = () if arguments.features_only else tuple(NAMES.values())
    if not arguments.overwrite:
        targets = [out / f"{name}.parquet" for name in text_corpora]
        targets += [features / f"{name}.parquet" for name in (FEATURES_NAME, *MODALITIES)]
        taken = [path for path in targets if path.exists()]
        if taken:
            raise DataError(f"{taken[0]} exists", hint="another folder, or --overwrite")
    if text_corpora and arguments.clips is not None and arguments.clips < 3 * FEWEST_CLIPS:
        raise DataError(
            f"--clips {arguments.clips}: demo_both has a third of them, too few for three splits",
            hint=f"at least {3 * FEWEST_CLIPS}; {FEWEST_CLIPS} with --features-only",
        )
    common = {
        "seed": arguments.seed,
        "relations": not arguments.without_relations,
        "shuffle_labels": arguments.shuffle_labels,
        "overwrite": arguments.overwrite,
        **({"clips": arguments.clips} if arguments.clips is not None else {}),
    }
    records = []
    if text_corpora:
        media = arguments.media_clips
        if media is None:
            media = usual_media(common.get("clips", CLIPS))
        options = {"emotion_kind": arguments.emotion_kind, "media": media, **common}
        with progress("media") if media else nullcontext() as update:
            paths = make_demo(out, on_progress=update, **options)
        records += [_demo_record(name, "index", path) for name, path in paths.items()]
        if media:
            records.append(_demo_record("demo_media", "media", out / MEDIA_FOLDER))
    paths = make_demo_features(features, **common)
    records.append(_demo_record(FEATURES_NAME, "index", paths.pop("corpus")))
    records += [_demo_record(name, "features", path) for name, path in paths.items()]
    emit(arguments, records, ("name", "kind", "path"))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """`mepr corpus show`: what an index holds."""
    summary = summarise(Corpus.read(arguments.corpus))
    if arguments.json:
        emit_json(summary)
    else:
        print_summary(summary)
    return 0


def run_audit(arguments: argparse.Namespace) -> int:
    """`mepr corpus audit`: leaks between splits, duplicates, imbalance."""
    if not 0 < arguments.threshold <= 1:
        raise ConfigError(f"--threshold {arguments.threshold:g} is not in (0, 1]")
    report = audit(Corpus.read(arguments.corpus), threshold=arguments.threshold)
    if arguments.json:
        emit_json(report)
        return 0
    for line in lines(report):
        print(line)
    return 0


def run_split(arguments: argparse.Namespace) -> int:
    """`mepr corpus split`: new splits, or folds."""
    corpus = Corpus.read(arguments.corpus)
    options = {"by": arguments.by, "seed": arguments.seed, "name": arguments.name}
    if arguments.folds is not None:
        if arguments.train is not None or arguments.val is not None:
            raise ConfigError("--folds keeps the splits: it takes no --train or --val")
        new, column = fold_corpus(corpus, arguments.folds, **options), "fold"
    else:
        fractions = _fractions(arguments.train, arguments.val)
        new, column = split_corpus(corpus, fractions=fractions, **options), "split"
    written = new.write(arguments.out, overwrite=arguments.overwrite)
    values, groups = written.column(column), written.column(arguments.by)
    order = SPLITS if column == "split" else range(arguments.folds)
    records = [
        {
            column: value,
            "rows": int((values == value).sum()),
            arguments.by: len(set(groups[values == value])),
        }
        for value in order
        if (values == value).any()
    ]
    emit(arguments, records, (column, "rows", arguments.by))
    say(f"index: {arguments.out}")
    return 0


def run_withdraw(arguments: argparse.Namespace) -> int:
    """`mepr corpus withdraw`: exports and stores first, the index last.

    In this order the same command can be given again after a failure in between.
    """
    from mepr_shared.contract.withdraw import withdraw_from_exports, withdraw_from_stores

    for folder in (arguments.store, arguments.exports):
        if folder is not None and not folder.is_dir():
            raise DataError(f"no such folder: {folder}")
    corpus = Corpus.read(arguments.corpus)
    earlier = {stone["sample_id"] for stone in corpus.meta.tombstones}
    leaving = _leaving(arguments, corpus, earlier)
    gone = sorted(earlier | leaving)
    if not gone:
        raise ConfigError("nothing to withdraw", hint="give --id, --source or --speaker")
    if not leaving and arguments.store is None and arguments.exports is None:
        raise ConfigError(
            "these samples are withdrawn from the index already", hint="give --store or --exports"
        )
    said = {"reason": arguments.reason}
    smaller = withdraw(corpus, leaving, **said)[0] if leaving else corpus
    exports: list[Path] = []
    stores: list[Path] = []
    if arguments.exports is not None:
        exports = withdraw_from_exports(arguments.exports, corpus.name, gone, **said)
    if arguments.store is not None:
        stores = withdraw_from_stores(arguments.store, corpus.name, gone, **said)
    if leaving:
        smaller.write(arguments.corpus, overwrite=True)
    record = {
        "corpus": corpus.name,
        "withdrawn": sorted(leaving),
        "withdrawn_earlier": len(earlier),
        "rows_left": len(smaller),
        "stores": [str(path) for path in stores],
        "exports": [str(path) for path in exports],
    }
    if arguments.json:
        emit_json(record)
    else:
        print(f"{len(leaving)} samples withdrawn from {corpus.name}, {len(smaller)} are left")
        for path in (*stores, *exports):
            print(f"cleaned {path}")
    say("runs keep what they learned, and their own predictions: train again, delete the old ones")
    return 0


def _demo_record(name: str, kind: str, path: Path) -> dict[str, str]:
    return {"name": name, "kind": kind, "path": str(path)}


def _default_name(importer_name: str, path: Path) -> str:
    return path.stem if importer_name == "table" else importer_name


def _column_map(pairs: list[tuple[str, str]]) -> dict[str, str]:
    columns = dict(pairs)
    if len(columns) < len(pairs):
        fields = [field for field, _ in pairs]
        twice = next(field for field in fields if fields.count(field) > 1)
        raise ConfigError(f"--map gives {twice!r} twice")
    return columns


def _fractions(train: float | None, val: float | None) -> dict[str, float]:
    """Shares of the splits; test is the rest, and is left out where there is none."""
    shares = {
        "train": FRACTIONS["train"] if train is None else train,
        "val": FRACTIONS["val"] if val is None else val,
    }
    rest = 1 - sum(shares.values())
    if min(shares.values()) <= 0 or rest < -1e-9:
        raise ConfigError(
            f"--train {shares['train']:g} --val {shares['val']:g} are no shares of a whole",
            hint="positive, at most 1 together; test gets the rest",
        )
    return {**shares, "test": rest} if rest > 1e-9 else shares


def _leaving(arguments: argparse.Namespace, corpus: Corpus, earlier: Collection[str]) -> set[str]:
    """Ids of all samples that the options name and that are still in the index."""
    leaving: set[str] = set()
    for column in BY:
        wanted = getattr(arguments, column)
        if column == "sample_id":
            wanted = [sample_id for sample_id in wanted if sample_id not in earlier]
        if wanted:
            leaving |= set(withdraw(corpus, wanted, by=column)[1])
    return leaving
