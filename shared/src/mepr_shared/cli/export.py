"""The options of `mepr export`. Light: what the verbs do is in `export_verbs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_group, add_verb
from mepr_shared.contract.statuses import STATUSES, WITH_DATA


def add_export(verbs: Any) -> None:
    """Add `mepr export` to the subparsers of `mepr`."""
    export = add_group(verbs, "export", "check, make, compare and clear away exports")
    _verify(export)
    _create(export)
    listing = add_verb(export, "list", "export_verbs:run_list", "all exports of a folder")
    _root(listing)
    _diff(export)
    alias = add_verb(export, "alias", "export_verbs:run_alias", "name an export, e.g. `current`")
    _root(alias)
    alias.add_argument("name", metavar="NAME", help="a name given before moves")
    alias.add_argument("export", metavar="ID", help="an id, or another alias")
    _collect_garbage(export)


def _verify(export: Any) -> None:
    verb = add_verb(
        export, "verify", "export_verbs:run_verify", "is an export what its manifest says?"
    )
    verb.add_argument(
        "path", type=Path, metavar="DIR", help="one export, or a folder of exports at any level"
    )
    verb.add_argument(
        "--deep", action="store_true", help="read everything: hashes, schema, ranges, every row"
    )
    verb.add_argument(
        "--corpus",
        type=Path,
        action="append",
        default=[],
        metavar="X.parquet",
        help="with --deep: has every sample of this index a row, of the same split?",
    )


def _create(export: Any) -> None:
    verb = add_verb(
        export, "create", "export_verbs:run_create", "a table of embeddings and predictions"
    )
    verb.description = (
        "Turn any trainer's table into a valid export. Columns: sample_id and any of "
        "emotion_logits (7), trait_scores (5, in [0, 1]), emotion_embedding, trait_embedding, "
        "status, status_reason, source_sha256, fold, n_frames, n_masked."
    )
    verb.add_argument("--modality", required=True, metavar="M", help="any name")
    verb.add_argument("--corpus", type=Path, required=True, metavar="X.parquet")
    verb.add_argument(
        "--from", dest="table", type=Path, required=True, metavar="TABLE", help=".parquet or .csv"
    )
    verb.add_argument("--out", type=Path, required=True, metavar="EXPORTS")
    verb.add_argument("--alias", metavar="NAME", help="name this export, e.g. `current`")
    verb.add_argument(
        "--emotion-output",
        choices=("sigmoid", "softmax"),
        help="how to read the logits (default: by the corpus's own emotion labels)",
    )
    _seven(verb, "--prior-shift", "what class weights in the loss added to the logits (default: 0)")
    verb.add_argument(
        "--temperature", type=float, default=1.0, help="of the calibration (default: 1)"
    )
    _seven(verb, "--thresholds", "probabilities above which an emotion is present")
    verb.add_argument(
        "--train-rows",
        choices=("in_sample", "out_of_fold"),
        default="in_sample",
        help="did the model see the training rows it predicts? (default: in_sample)",
    )
    verb.add_argument(
        "--missing-status",
        choices=[status for status in STATUSES if status not in WITH_DATA],
        default="no_media",
        help="status of samples that the table lacks (default: no_media)",
    )
    verb.add_argument("--stage", default="external", help="as recorded (default: external)")
    verb.add_argument(
        "--model",
        type=Path,
        metavar="FILE.json",
        help="what made the table: config, weights_sha256, encoder, seed, dev_metrics",
    )


def _seven(verb: argparse.ArgumentParser, option: str, summary: str) -> None:
    metavar = ("NEUTRAL", "ANGER", "DISGUST", "FEAR", "HAPPINESS", "SADNESS", "SURPRISE")
    verb.add_argument(option, type=float, nargs=7, metavar=metavar, help=summary)


def _diff(export: Any) -> None:
    verb = add_verb(export, "diff", "export_verbs:run_diff", "what changed between two exports")
    _root(verb)
    for name, metavar in (("first", "A"), ("second", "B")):
        verb.add_argument(name, metavar=metavar, help="an id, an alias or an export's folder")
    verb.add_argument(
        "--corpus", type=Path, metavar="X.parquet", help="labels: adds scores and paired intervals"
    )
    verb.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="to score (default: val)"
    )


def _collect_garbage(export: Any) -> None:
    verb = add_verb(export, "gc", "export_verbs:run_gc", "remove exports that nothing refers to")
    verb.description = (
        "Kept are the newest export of each corpus and modality, those with an alias, and those "
        "that an exports.lock below --runs or EXPORTS pins."
    )
    _root(verb)
    verb.add_argument(
        "--runs",
        type=Path,
        action="append",
        default=[],
        metavar="RUNS",
        help="runs whose exports are kept",
    )
    verb.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def _root(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("root", type=Path, metavar="EXPORTS", help="folder of all exports")
