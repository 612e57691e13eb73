"""`mepr-text transcribe`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mepr_shared import config
from mepr_shared.cli.output import emit, emit_json, say
from mepr_shared.cli.progress import progress
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, require
from mepr_text.asr import Transcriber
from mepr_text.asr_settings import PROFILES, AsrSettings
from mepr_text.transcribe import check_target, journal_path, transcribe_corpus


def run_transcribe(arguments: argparse.Namespace) -> int:
    """Fill in the texts of clips that have media and none."""
    check_target(arguments.out, resume=arguments.resume, overwrite=arguments.overwrite)
    settings = asr_settings(arguments)
    corpus = Corpus.read(arguments.corpus)
    require("av", extra="mepr-text[asr]")
    transcriber = Transcriber.open(settings, arguments.device)
    with progress(f"transcribe {corpus.name}") as update:
        _, summary = transcribe_corpus(
            corpus,
            arguments.out,
            transcriber,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            on_progress=update,
        )
    for problem in summary.problems:
        say(f"  {problem}")
    speed = summary.audio_s / summary.seconds if summary.audio_s else None
    record = {
        "corpus": corpus.name,
        "out": str(arguments.out),
        "journal": str(journal_path(arguments.out)),
        "model": settings.model,
        "kept": summary.kept,
        "transcribed": summary.transcribed,
        "reused": summary.reused,
        "statuses": dict(sorted(summary.statuses.items())),
        "audio_s": round(summary.audio_s, 2),
        "seconds": round(summary.seconds, 2),
        "times_real_time": None if speed is None else round(speed, 1),
    }
    if arguments.json:
        emit_json(record)
    else:
        shown = [name for name in record if name not in ("out", "journal")]
        emit(arguments, [record], shown)
        say(f"index: {arguments.out}")
    return 0


def asr_settings(arguments: argparse.Namespace) -> AsrSettings:
    """The settings of `--profile` or `--model`, `--language` and `--set asr.KEY=VALUE`."""
    base = config.to_dict(PROFILES[arguments.profile or "small"])
    if arguments.model:
        # What else a profile says was measured with its own model.
        base = {"model": arguments.model}
    if arguments.language:
        base["language"] = arguments.language
    given: Mapping[str, Any] = config.parse_assignments(arguments.set)
    unknown = sorted(set(given) - {"asr"})
    if unknown:
        raise ConfigError(
            f"transcribe reads asr.* only, not {unknown[0]!r}", hint="--set asr.KEY=VALUE"
        )
    return config.build(AsrSettings, base, given.get("asr", {}), where="asr")
