"""Verbs that put trained models to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_verb


def add_predict(verbs: Any) -> None:
    """`bundle`, `predict` and `app`."""
    _bundle(verbs)
    _predict(verbs)
    _app(verbs)


def _bundle(verbs: Any) -> None:
    summary = "put the models of all stages into one directory, to be shipped"
    verb = add_verb(verbs, "bundle", "mepr_fusion.bundle.verb:run_bundle", summary)
    verb.add_argument("--run", type=Path, required=True, metavar="STAGE3", help="a stage-3 run")
    verb.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    verb.add_argument(
        "--runs-root",
        type=Path,
        action="append",
        default=[],
        metavar="RUNS",
        help="where the modalities' runs lie (default: the folder around the stage-3 run)",
    )
    verb.add_argument(
        "--stage2",
        action="append",
        default=[],
        metavar="MODALITY=RUN",
        help="the run of one modality, where it lies elsewhere",
    )
    verb.add_argument(
        "--without", action="append", default=[], metavar="MODALITY", help="leave it out"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")


def _predict(verbs: Any) -> None:
    summary = "emotions and apparent traits in videos, recordings of sound, and pictures"
    verb = add_verb(verbs, "predict", "mepr_fusion.predict.verb:run_predict", summary)
    verb.add_argument(
        "input", type=Path, nargs="+", metavar="VIDEO", help="files, or folders of them"
    )
    models = verb.add_mutually_exclusive_group(required=True)
    models.add_argument("--bundle", type=Path, help="made by `mepr-fusion bundle`")
    models.add_argument("--run", type=Path, metavar="STAGE3", help="a stage-3 run in its place")
    verb.add_argument(
        "--runs-root",
        type=Path,
        action="append",
        default=[],
        metavar="RUNS",
        help="with --run: where the modalities' runs lie (default: the folder around it)",
    )
    words = verb.add_mutually_exclusive_group()
    words.add_argument("--text", help="the transcript; heard by Whisper where there is none")
    words.add_argument("--srt", type=Path, metavar="FILE", help="the transcript as subtitles")
    verb.add_argument(
        "--whisper",
        default="small",
        metavar="small|paper|ID_OR_DIR",
        help="which Whisper hears it (default: small)",
    )
    verb.add_argument("--language", default="auto", metavar="CODE", help="of the speech")
    verb.add_argument("--modalities", metavar="A,B", help="which take part (default: all)")
    verb.add_argument(
        "--corpus", metavar="NAME", help="decide as for this corpus (default: the bundle's choice)"
    )
    verb.add_argument(
        "--frames", type=int, metavar="N", help="frames looked at (default: as in training)"
    )
    verb.add_argument(
        "--window",
        type=float,
        default=30.0,
        metavar="S",
        help="longer recordings are answered window by window (default: 30)",
    )
    verb.add_argument("--hop", type=float, metavar="S", help="between windows (default: --window)")
    verb.add_argument("--out", type=Path, metavar="DIR", help="JSON per file, CSV and Parquet")
    verb.add_argument("--overwrite", action="store_true", help="replace predictions in --out")
    verb.add_argument(
        "--max-seconds", type=float, default=3600.0, metavar="S", help="refuse longer files"
    )
    verb.add_argument(
        "--max-bytes", type=int, default=2 << 30, metavar="N", help="refuse larger files"
    )
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


def _app(verbs: Any) -> None:
    summary = "a page that shows what a video is answered, and why"
    verb = add_verb(verbs, "app", "mepr_fusion.app.verb:run_app", summary)
    verb.add_argument("--bundle", type=Path, required=True, help="made by `mepr-fusion bundle`")
    verb.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, only here)"
    )
    verb.add_argument("--port", type=int, default=7860, metavar="N", help="(default: 7860)")
    verb.add_argument("--share", action="store_true", help="let Gradio open a public link as well")
    verb.add_argument(
        "--max-seconds", type=float, default=600.0, metavar="S", help="refuse longer files"
    )
    verb.add_argument(
        "--max-mb", type=float, default=200.0, metavar="N", help="refuse larger files"
    )
    verb.add_argument("--samples", type=Path, metavar="DIR", help="clips that the page offers")
    verb.add_argument(
        "--whisper",
        default="small",
        metavar="small|paper|ID_OR_DIR",
        help="which Whisper hears the words (default: small)",
    )
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
