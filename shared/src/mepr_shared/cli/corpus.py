"""The options of `mepr corpus`. Light: what the verbs do is in `corpus_verbs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_group, add_verb
from mepr_shared.corpora.importers import IMPORTERS

_SOURCES = {
    "fiv2": "the folder with the official ChaLearn First Impressions v2 pickles",
    "meld": "the folder with MELD's *_sent_emo.csv",
    "mosei": "CMU-MOSEI's label table or CMU_MOSEI_Labels.csd, or the folder of one",
    "ravdess": "the folder below which the RAVDESS clips lie, under their official names",
    "table": "a .csv, .tsv or .parquet file with one row per clip",
}


def add_corpus(verbs: Any) -> None:
    """Add `mepr corpus` to the subparsers of `mepr`."""
    corpus = add_group(verbs, "corpus", "make, inspect, split and clean corpus indexes")
    _import(corpus)
    _demo(corpus)
    show = add_verb(corpus, "show", "corpus_verbs:run_show", "counts, labels and hashes")
    _index(show)
    audit = add_verb(corpus, "audit", "corpus_verbs:run_audit", "leaks between splits, imbalance")
    _index(audit)
    audit.add_argument(
        "--threshold",
        type=float,
        default=0.8,
        help="texts that share this part of their word triples are near-duplicates (default: 0.8)",
    )
    _split(corpus)
    _withdraw(corpus)


def _import(corpus: Any) -> None:
    importers = add_group(corpus, "import", "official files or a table to an index", "IMPORTER")
    for name in IMPORTERS:
        verb = add_verb(importers, name, "corpus_verbs:run_import", f"from {_SOURCES[name]}")
        verb.set_defaults(importer=name, options=())
        verb.add_argument("source", type=Path, metavar="SRC", help=_SOURCES[name])
        verb.add_argument("--out", type=Path, metavar="X.parquet", help="the index to write")
        verb.add_argument("--name", help="of the corpus; exports and stores lie under it")
        verb.add_argument(
            "--strict", action="store_true", help="refuse impossible rows instead of dropping them"
        )
        verb.add_argument("--overwrite", action="store_true", help="replace an existing index")
        verb.add_argument(
            "--dry-run", action="store_true", help="read, check and report; write nothing"
        )
        if name in _OPTIONS:
            _OPTIONS[name](verb)


def _fiv2_options(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(options=("media",))
    verb.add_argument(
        "--media",
        type=Path,
        metavar="FOLDER",
        help="where the clips lie, in the official sub-folders or in any others (default: SRC)",
    )


def _mosei_options(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(options=("folds", "media", "transcripts"))
    verb.add_argument(
        "--media",
        type=Path,
        metavar="FOLDER",
        help="anywhere below it full videos or their sound, VIDEO.EXT, or pre-cut clips of the "
        "segments, VIDEO_N.EXT, used where there is no full one (default: SRC, if a folder)",
    )
    verb.add_argument(
        "--transcripts",
        type=Path,
        metavar="PATH",
        help="the folder Transcript/Segmented/Combined, or CMU_MOSEI_TimestampedWords.csd",
    )
    verb.add_argument(
        "--folds",
        type=Path,
        metavar="FILE",
        help='video ids of each fold: CSV id,split or JSON {"train": [ids], ...}; '
        "the .csd file states none",
    )


def _ravdess_options(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(options=("songs", "video_only", "statements", "val", "test"))
    verb.add_argument("--songs", action="store_true", help="keep the songs too")
    verb.add_argument(
        "--video-only",
        action="store_true",
        help="keep a take that is there without its sound only",
    )
    verb.add_argument(
        "--statements",
        action="store_true",
        help="give the two sentences as text (they say nothing about the emotion)",
    )
    for split, default in (("val", "17-20"), ("test", "21-24")):
        verb.add_argument(
            f"--{split}",
            type=_actors,
            metavar="ACTORS",
            help=f"actors of this split, like 17-20 or 1,3,9, or none (default: {default}); "
            "the rest is training",
        )


def _actors(text: str) -> frozenset[int]:
    """`17-20`, `1,3,9` or `none` to numbers; which actors there are the importer knows."""
    actors: set[int] = set()
    for part in text.split(",") if text != "none" else ():
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        numbers = (first, last) if dash else (first, first)
        if not all(number.isdecimal() and len(number) <= 2 for number in numbers):
            raise argparse.ArgumentTypeError(f"expected actors like 17-20 or 1,3,9, got {text!r}")
        found = range(int(numbers[0]), int(numbers[1]) + 1)
        if not found:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} runs backwards")
        actors.update(found)
    return frozenset(actors)


def _table_options(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(
        options=("columns", "emotion_kind", "emotion_max", "present_above", "source_pattern")
    )
    verb.add_argument(
        "--map",
        dest="columns",
        type=_assignment,
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=COLUMN",
        help="index field and the table's column for it, e.g. text=utterance emotion.anger=angry",
    )
    verb.add_argument(
        "--emotion-kind",
        metavar="KIND",
        help="intensity, multi_label, single_label or distribution, where the values leave a doubt",
    )
    verb.add_argument("--emotion-max", type=float, metavar="X", help="largest possible intensity")
    verb.add_argument(
        "--present-above",
        type=float,
        default=0.0,
        metavar="X",
        help="an emotion counts as present above this value (default: 0)",
    )
    verb.add_argument(
        "--source-pattern",
        metavar="REGEX",
        help="its first group in a file's name is the source (person), e.g. '(.+)_[0-9]+'",
    )


_OPTIONS = {
    "fiv2": _fiv2_options,
    "mosei": _mosei_options,
    "ravdess": _ravdess_options,
    "table": _table_options,
}


def _assignment(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not (equals and field and column):
        raise argparse.ArgumentTypeError(f"expected FIELD=COLUMN, got {text!r}")
    return field, column


def _demo(corpus: Any) -> None:
    verb = add_verb(
        corpus, "demo", "corpus_verbs:run_demo", "synthetic corpora with planted relations"
    )
    verb.add_argument("out", type=Path, metavar="OUT_DIR")
    verb.add_argument(
        "--clips", type=int, metavar="N", help="per corpus (default: 600; features 2000)"
    )
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument(
        "--emotion-kind",
        choices=("single_label", "multi_label"),
        default="single_label",
        help="of the text corpora (default: single_label)",
    )
    verb.add_argument(
        "--media-clips",
        type=int,
        metavar="N",
        help="clips of demo_both with an MP4 file in OUT_DIR/media, which takes PyAV and "
        "scikit-image (default: 48, at most three fifths of demo_both; 0: none)",
    )
    verb.add_argument(
        "--features-only",
        action="store_true",
        help="only OUT_DIR/features: embeddings of five modalities, for `mepr export create`; "
        "no texts, no media, so that --clips can be large",
    )
    verb.add_argument(
        "--without-relations",
        action="store_true",
        help="plant no relation between emotions and traits",
    )
    verb.add_argument(
        "--shuffle-labels", action="store_true", help="labels of other clips: nothing to learn"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace existing files")


def _split(corpus: Any) -> None:
    verb = add_verb(
        corpus, "split", "corpus_verbs:run_split", "new splits or folds that no group straddles"
    )
    _index(verb)
    verb.add_argument(
        "--by",
        default="source_id",
        metavar="COLUMN",
        help="whose values must not straddle, e.g. speaker_id (default: source_id)",
    )
    verb.add_argument(
        "--folds", type=int, metavar="K", help="a fold column 0 .. K-1; the splits stay"
    )
    verb.add_argument("--train", type=float, metavar="SHARE", help="default: 0.7")
    verb.add_argument("--val", type=float, metavar="SHARE", help="default: 0.15; test is the rest")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--name", help="of the new corpus (default: the old one's)")
    verb.add_argument("--out", type=Path, required=True, metavar="Y.parquet")
    verb.add_argument("--overwrite", action="store_true", help="replace an existing index")


def _withdraw(corpus: Any) -> None:
    verb = add_verb(
        corpus, "withdraw", "corpus_verbs:run_withdraw", "take people out of index, stores, exports"
    )
    verb.description = (
        "Take clips out of the index, of all frame stores and of all exports for good; a tombstone "
        "keeps later imports from bringing them back. Without an id, clips withdrawn from the "
        "index earlier are taken out of the given stores and exports."
    )
    _index(verb)
    for kind in ("id", "source", "speaker"):
        column = "sample_id" if kind == "id" else f"{kind}_id"
        verb.add_argument(
            f"--{kind}", dest=column, action="append", default=[], metavar="ID", help=f"a {column}"
        )
    verb.add_argument("--store", type=Path, help="root of the frame stores")
    verb.add_argument("--exports", type=Path, help="root of the exports")
    verb.add_argument("--reason", default="", help="kept in the tombstone")


def _index(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("corpus", type=Path, metavar="X.parquet", help="a corpus index")
