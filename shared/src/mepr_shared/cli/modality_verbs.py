"""What the verbs of a modality package do. Imported only when a verb runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeVar

from mepr_shared import config
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.cli.progress import progress
from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.plugin import Modality
from mepr_shared.train.settings import Stage1Settings, Stage2Settings

Settings = TypeVar("Settings", Stage1Settings, Stage2Settings)


def run_extract(arguments: argparse.Namespace) -> int:
    """`mepr-M extract`: encode corpora into the frame store."""
    from mepr_shared.cli.extract_verb import emit_summary
    from mepr_shared.extract.engine import extract_corpus

    modality: Modality = arguments.modality
    corpora = [Corpus.read(path) for path in arguments.corpus]
    settings = encoder_settings(arguments, arguments.set)
    extractor = modality.open_extractor(settings, device=arguments.device)
    for corpus in corpora:
        with progress(f"extract {modality.name} {corpus.name}") as update:
            summary = extract_corpus(
                modality, extractor, corpus, arguments.store, on_progress=update
            )
        emit_summary(arguments, corpus.name, modality.name, summary)
    return 0


def run_stage1(arguments: argparse.Namespace) -> int:
    """`mepr-M train stage1`."""
    from mepr_shared.train.stages import train_stage1

    settings = stage_settings(arguments, arguments.task, Stage1Settings)
    corpora, stores = open_data(arguments)
    run = train_stage1(
        arguments.modality,
        arguments.task,
        corpora,
        stores,
        settings,
        arguments.run,
        resume=arguments.resume,
        device=arguments.device,
        on_epoch=say_epoch,
        copies=[copy_stores(arguments, stores, text) for text in arguments.augment],
    )
    return _print_run(arguments, run)


def run_stage2(arguments: argparse.Namespace) -> int:
    """`mepr-M train stage2`."""
    from mepr_shared.train.runs import Run
    from mepr_shared.train.stages import train_stage2

    settings = stage_settings(arguments, "stage2", Stage2Settings)
    corpora, stores = open_data(arguments)
    run = train_stage2(
        arguments.modality,
        Run.load(arguments.emotion_run),
        Run.load(arguments.traits_run),
        corpora,
        stores,
        settings,
        arguments.run,
        resume=arguments.resume,
        device=arguments.device,
        on_epoch=say_epoch,
    )
    return _print_run(arguments, run)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """`mepr-M evaluate`: one record per corpus."""
    from mepr_shared.train.evaluate_run import evaluate_run
    from mepr_shared.train.runs import Run

    run = Run.load(arguments.run)
    corpora, stores = open_data(arguments, spec=run.config["encoder"])
    records = [
        evaluate_run(run, corpus, store, arguments.split, by=arguments.by, device=arguments.device)
        for corpus, store in zip(corpora, stores, strict=True)
    ]
    print_evaluations(arguments, records)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """`mepr-M export`: one export per corpus."""
    from mepr_shared.contract.living import set_alias
    from mepr_shared.train.export_run import export_run, newest_export_of
    from mepr_shared.train.folds import train_folds
    from mepr_shared.train.runs import Run

    modality: Modality = arguments.modality
    run = Run.load(arguments.run)
    corpora, stores = open_data(arguments, spec=run.config["encoder"])
    fold_runs: list[Run] = []
    if arguments.folds:
        fold_runs = train_folds(
            run, modality, corpora, stores, arguments.folds, device=arguments.device, say=say
        )
    for corpus, store in zip(corpora, stores, strict=True):
        with progress(f"export {modality.name} {corpus.name}") as update:
            path, already = export_run(
                run,
                corpus,
                store,
                arguments.out,
                distribution=modality.distribution,
                module=modality.distribution.replace("-", "_"),
                reuse=newest_export_of(run, corpus, arguments.out) if arguments.update else None,
                fold_runs=fold_runs,
                device=arguments.device,
                on_progress=update,
            )
        if arguments.alias:
            set_alias(arguments.out, arguments.alias, path.name)
        record = {
            "corpus": corpus.name,
            "modality": modality.name,
            "id": path.name,
            "export": str(path),
            "train_rows": "out_of_fold" if fold_runs else "in_sample",
            "already_there": already,
        }
        emit(arguments, [record], list(record))
    return 0


def encoder_settings(arguments: argparse.Namespace, assignments: list[str] | None = None) -> Any:
    """The `[encoder]` settings that `--profile`, `--encoder` and `--set` name."""
    modality: Modality = arguments.modality
    base = profile(arguments).get("encoder", {})
    if arguments.encoder:
        base = {**base, **modality.named_encoder(arguments.encoder)}
    given = config.parse_assignments(assignments or [])
    unknown = set(given) - {"encoder"}
    if unknown:
        raise ConfigError(
            f"extract reads encoder.* only, not {sorted(unknown)[0]!r}", hint="--set encoder.KEY=V"
        )
    return config.build(modality.encoder_settings, base, given.get("encoder", {}), where="encoder")


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """The tables of the chosen profile (default: small)."""
    name = arguments.profile or "small"
    return config.read_toml(arguments.modality.profiles[name])


def stage_settings(arguments: argparse.Namespace, table: str, kind: type[Settings]) -> Settings:
    """A stage's settings: profile, then `--config`, then `--set`.

    Raises:
        ConfigError: a key that does not exist, or that the chosen model never reads.
    """
    given = config.merge(
        config.read_toml(arguments.config) if arguments.config else {},
        config.parse_assignments(arguments.set),
    )
    settings = config.build(kind, profile(arguments).get(table, {}), given)
    config.refuse_unused(settings, given)
    return settings


def open_data(
    arguments: argparse.Namespace, spec: dict[str, Any] | None = None
) -> tuple[list[Corpus], list[FrameStore]]:
    """The corpora and their frame stores.

    Args:
        spec: the features that a trained run needs. Without it the one store that there is, or
            of several the one that `--profile` (default: small) or `--encoder` describes.

    Raises:
        DataError, ContractError: a corpus or store is missing, or several stores fit.
    """
    from mepr_shared.contract.frames import store_key

    corpora = [Corpus.read(path) for path in arguments.corpus]
    name = arguments.modality.name
    stores = []
    for corpus in corpora:
        key = store_key(spec) if spec is not None else _described_store(arguments, corpus.name)
        encoder = arguments.encoder if key is None else None
        stores.append(FrameStore.find(arguments.store, corpus.name, name, key=key, encoder=encoder))
    return corpora, stores


def _described_store(arguments: argparse.Namespace, corpus_name: str) -> str | None:
    """The key of the one store whose spec agrees with the chosen `[encoder]` table.

    None where no choice is needed or none can be made: `FrameStore.find` then says what is there.
    """
    from mepr_shared.contract.frames import read_store_manifest

    modality: Modality = arguments.modality
    folder = arguments.store / corpus_name / modality.name / "frames"
    manifests = [read_store_manifest(path.parent) for path in folder.glob("*/index.parquet")]
    chosen = arguments.profile or arguments.encoder
    if len(manifests) < 2 and not chosen:
        return None
    table = profile(arguments).get("encoder", {})
    if arguments.encoder:
        table = {**table, **modality.named_encoder(arguments.encoder)}
    # All settings first, defaults included; then those that the table itself states.
    complete = config.to_dict(config.build(modality.encoder_settings, table))
    for wanted in (complete, table):
        fitting = [manifest["key"] for manifest in manifests if _agrees(manifest["spec"], wanted)]
        if len(fitting) == 1:
            return str(fitting[0])
    return None


def _agrees(spec: dict[str, Any], table: dict[str, Any]) -> bool:
    """Whether features of `spec` come from the encoder of this `[encoder]` table."""
    settings = spec["settings"]
    shared = [name for name in table if name in settings]
    return spec["encoder"] == table["id"] and all(
        settings[name] == (list(table[name]) if isinstance(table[name], tuple) else table[name])
        for name in shared
    )


def copy_stores(
    arguments: argparse.Namespace, stores: list[FrameStore], assignment: str
) -> list[FrameStore]:
    """The stores that differ from these by one encoder setting (`--augment speed=1.1`).

    Raises:
        ConfigError: no such setting, or such a copy was not extracted.
    """
    from mepr_shared.contract.frames import store_key

    found = []
    for store in stores:
        settings = store.spec["settings"]
        ((name, value),) = config.parse_assignments([assignment]).items()
        if name not in settings:
            raise ConfigError(
                f"--augment {assignment}: the encoder has no setting {name!r}",
                hint=did_you_mean(name, list(settings)),
            )
        table = {"id": store.spec["encoder"], "revision": store.spec["revision"], **settings}
        # Through the dataclass, so that 1 and 1.0 name the same store.
        built = config.build(arguments.modality.encoder_settings, {**table, name: value})
        changed = {**settings, name: config.to_dict(built)[name]}
        key = store_key({**store.spec, "settings": changed})
        folder = store.path.parent / key
        if not (folder / "index.parquet").is_file():
            raise ConfigError(
                f"{store.corpus_name} was not extracted with encoder.{assignment}",
                hint=f"{arguments.modality.distribution} extract ... --set encoder.{assignment}",
            )
        found.append(FrameStore.open(folder))
    return found


def say_epoch(record: dict[str, Any]) -> None:
    """One line per epoch on stderr."""
    scores = "  ".join(f"{name} {value:.4f}" for name, value in record["val"].items())
    say(
        f"epoch {record['epoch']:>3}  loss {record['train']['loss']:.4f}  {scores}  "
        f"({record['seconds']:.1f} s)"
    )


def print_evaluations(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> None:
    """JSON lines, or one table with the constant baseline under each row."""
    if arguments.json:
        for record in records:
            emit_json(record)
        return
    from mepr_shared.train.run_report import EMOTION_SCORES, TRAIT_SCORES

    rows = []
    for record in records:
        for row, tasks in (("model", record), ("constant", record["baseline"])):
            cells = [(tasks.get("emotion") or {}).get(name) for name in EMOTION_SCORES]
            cells += [(tasks.get("traits") or {}).get(name) for name in TRAIT_SCORES]
            rows.append(
                dict(
                    zip(
                        ("corpus", "split", "n", "row", *EMOTION_SCORES, *TRAIT_SCORES),
                        (record["corpus"], record["split"], record["n"], row, *cells),
                        strict=True,
                    )
                )
            )
    emit(arguments, rows, list(rows[0]))


def _print_run(arguments: argparse.Namespace, run: Any) -> int:
    metrics = run.metrics
    if arguments.json:
        emit_json({"run": str(run.path), "best_epoch": metrics["best_epoch"], **metrics["val"]})
    else:
        print_evaluations(arguments, metrics["evaluations"])
    say(f"run: {run.path}  report: {Path(run.path) / 'report.md'}")
    sys.stdout.flush()
    return 0


def run_predict(arguments: argparse.Namespace) -> int:
    """`mepr-M predict`: one record per input."""
    from mepr_shared.plugin import ClipInput
    from mepr_shared.train.predict import UnimodalPredictor
    from mepr_shared.train.runs import Run

    modality: Modality = arguments.modality
    predictor = UnimodalPredictor(Run.load(arguments.run), modality, device=arguments.device)
    reads_text = "text" in modality.inputs
    clips = [
        ClipInput(str(number), text=item)
        if reads_text
        else ClipInput(str(number), media=Path(item))
        for number, item in enumerate(arguments.input)
    ]
    for record in predictor.predict(clips):
        if arguments.json:
            emit_json(record)
        else:
            _print_prediction(record)
    return 0


def _print_prediction(record: dict[str, Any]) -> None:
    print(record["input"])
    if record["status"] != "ok":
        print(f"  {record['status']}: {record['status_reason']}")
    if record["emotion"]:
        chances = sorted(record["emotion"]["probabilities"].items(), key=lambda item: -item[1])
        print("  emotion  " + ", ".join(record["emotion"]["present"]))
        print("           " + "  ".join(f"{name} {chance:.2f}" for name, chance in chances))
    if record["traits"]:
        print("  traits   " + "  ".join(f"{n} {s:.2f}" for n, s in record["traits"].items()))
        print("           (apparent personality: how strangers judge the speaker, not a diagnosis)")
