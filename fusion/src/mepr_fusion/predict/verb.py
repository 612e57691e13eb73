"""`mepr-fusion predict`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.verb import stage3_run
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.predict.media_input import Limits
from mepr_fusion.predict.output import Output
from mepr_fusion.predict.prediction import Prediction
from mepr_fusion.predict.predictor import Predictor
from mepr_fusion.predict.show import show
from mepr_shared.cli.output import emit_json, say
from mepr_shared.errors import ConfigError, DataError, MeprError

# What is taken from a folder; a file that is named is always tried.
SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts"),
    *(".mts", ".3gp", ".ogv", ".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac", ".wma"),
    *(".aiff", ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
)


def run_predict(arguments: argparse.Namespace) -> int:
    """Answer for every file; 2 where none could be answered, else 0."""
    files = collect_files(arguments.input)
    _check(arguments, files)
    predictor = _load(arguments)
    if arguments.text is None and arguments.srt is None:
        predictor.open_ears()
    output = Output(arguments.out, overwrite=arguments.overwrite) if arguments.out else None
    answered = 0
    for number, file in enumerate(files, 1):
        label = f"{number}/{len(files)} {file.name}" if len(files) > 1 else file.name
        try:
            with _told(label) as progress:
                prediction = _answer(predictor, file, arguments, progress)
        except DataError as error:
            if len(files) == 1:
                raise
            say(f"{label}: error: {error}")
            if arguments.json:
                emit_json({"input": {"path": str(file), "name": file.name}, "error": str(error)})
            if output:
                output.add_error(file, str(error))
            continue
        answered += 1
        if output:
            output.add(prediction)
        if arguments.json:
            emit_json(prediction.to_dict())
        else:
            print(show(prediction), flush=True)
    if output and answered:
        say(f"wrote {output.finish()}")
    if len(files) > 1:
        say(f"{answered} of {len(files)} files answered")
    return 0 if answered else MeprError.exit_code


def collect_files(inputs: Sequence[Path]) -> list[Path]:
    """The files that are named, and the media in the folders that are; each once, in order.

    Raises:
        DataError: a folder without media.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise DataError(f"no media in the folder {path}")
        found += inside
    return list(dict.fromkeys(found))


def _check(arguments: argparse.Namespace, files: Sequence[Path]) -> None:
    """Refuse before models are loaded what would be refused after."""
    if (arguments.text is not None or arguments.srt is not None) and len(files) > 1:
        raise ConfigError("--text and --srt are for one file", hint=f"{len(files)} are given")
    if arguments.run is None and arguments.runs_root:
        raise ConfigError("--runs-root goes with --run")


def _load(arguments: argparse.Namespace) -> Predictor:
    names = arguments.modalities
    options: dict[str, Any] = {
        "device": arguments.device,
        "modalities": None if names is None else [n.strip() for n in names.split(",") if n.strip()],
        "corpus": arguments.corpus,
        "speech": arguments.whisper,
        "language": arguments.language,
    }
    if arguments.run is None:
        return _loaded(Predictor.load(arguments.bundle, **options))
    run = stage3_run(arguments.run)
    roots = arguments.runs_root or [run.path.resolve().parent]
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(run, find_sources(run, roots=roots), Path(folder) / "bundle")
        return _loaded(Predictor.load(bundle, **options))


def _loaded(predictor: Predictor) -> Predictor:
    for name, (_, reason) in predictor.absent.items():
        say(f"without {name}: {reason}")
    return predictor


def _answer(
    predictor: Predictor,
    file: Path,
    arguments: argparse.Namespace,
    progress: Callable[[str, int, int], None],
) -> Prediction:
    return predictor.predict(
        file,
        text=arguments.text,
        srt=arguments.srt,
        frames=arguments.frames,
        window_s=arguments.window,
        hop_s=arguments.hop,
        limits=Limits(arguments.max_seconds, arguments.max_bytes),
        progress=progress,
    )


@contextmanager
def _told(label: str) -> Iterator[Callable[[str, int, int], None]]:
    """What is done now, on stderr, each part once."""
    last = ""

    def tell(part: str, done: int, total: int) -> None:
        nonlocal last
        words = f"{label}: {part}" + (f" {done}/{total}" if total > 1 else "")
        if words != last:
            last = words
            say(words)

    yield tell
