"""What `mepr extract` does: several modalities over corpora, with one pass over the videos."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mepr_shared import config
from mepr_shared.cli.output import emit, say
from mepr_shared.cli.progress import progress
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, did_you_mean
from mepr_shared.extract.engine import ExtractionSummary, extract_together
from mepr_shared.plugin import Extractor, Modality, discover, get_modality


def run_extract(arguments: argparse.Namespace) -> int:
    """`mepr extract`."""
    corpora = [Corpus.read(path) for path in arguments.corpus]
    modalities = _modalities(arguments.modalities, corpora)
    changes = _changes(arguments, modalities)
    pairs = [
        (modality, _open(modality, arguments.profile, changes.get(modality.name, {}), arguments))
        for modality in modalities
    ]
    for corpus in corpora:
        given = [pair for pair in pairs if _has_input(corpus, pair[0])]
        for modality, _ in pairs:
            if all(modality is not m for m, _ in given):
                inputs = " or ".join(modality.inputs)
                say(f"skip {modality.name} x {corpus.name}: no clip has {inputs}")
        with progress(f"extract {corpus.name}", unit="clips x modalities") as update:
            summaries = extract_together(given, corpus, arguments.store, on_progress=update)
        for (modality, _), summary in zip(given, summaries, strict=True):
            emit_summary(arguments, corpus.name, modality.name, summary)
    say(f"peak memory: {peak_memory(arguments.device)}")
    return 0


def emit_summary(
    arguments: argparse.Namespace, corpus: str, modality: str, summary: ExtractionSummary
) -> None:
    """One record on stdout, the clips with a problem on stderr."""
    record = {
        "corpus": corpus,
        "modality": modality,
        "store": str(summary.store),
        "extracted": summary.extracted,
        "reused": summary.reused,
        "seconds": round(summary.seconds, 2),
        "statuses": dict(summary.statuses),
    }
    if summary.parts:
        parts = {name: round(seconds, 2) for name, seconds in summary.parts.items()}
        record["parts"] = parts if arguments.json else _words(parts)
    for problem in summary.problems:
        say(f"  {problem}")
    emit(arguments, [record], list(record))


def peak_memory(device: str) -> str:
    """The largest resident size of this process so far, and the device's where it has its own."""
    try:
        import resource
    except ImportError:  # Windows
        return "not known on this system"
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:.0f} MiB"
    if device.startswith("cuda"):
        import torch

        peak += f", {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB on {device}"
    return peak


def _words(parts: Mapping[str, float]) -> str:
    return " ".join(f"{name} {seconds:g}" for name, seconds in parts.items())


def _modalities(names: str | None, corpora: Sequence[Corpus]) -> list[Modality]:
    """The modalities that are named, or all that load and have input.

    Raises:
        ConfigError: one is not installed or does not load, or there is none.
    """
    if names is not None:
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        chosen = [get_modality(name) for name in dict.fromkeys(wanted)]
    else:
        found = discover()
        for entry in found:
            if entry.problem:
                say(f"skip {entry.distribution}: it does not load: {entry.problem}")
        chosen = [
            entry.modality
            for entry in found
            if entry.modality and any(_has_input(corpus, entry.modality) for corpus in corpora)
        ]
    if not chosen:
        raise ConfigError(
            "no modality to extract",
            hint="`mepr modalities` lists what is installed; pip install mepr-face",
        )
    return chosen


def _has_input(corpus: Corpus, modality: Modality) -> bool:
    return any(any(corpus.column(kind)) for kind in modality.inputs)


def _changes(arguments: argparse.Namespace, modalities: Sequence[Modality]) -> dict[str, Any]:
    """`--set` by modality."""
    given = config.parse_assignments(arguments.set)
    names = [modality.name for modality in modalities]
    for name, table in given.items():
        if name not in names or not isinstance(table, dict):
            raise ConfigError(
                f"--set takes MODALITY.KEY=VALUE, not {name!r}",
                hint=did_you_mean(name, names),
            )
    return given


def _open(
    modality: Modality, profile: str, changes: Mapping[str, Any], arguments: argparse.Namespace
) -> Extractor:
    table = config.read_toml(modality.profiles[profile])["encoder"]
    # Those that look at pictures have these two; a modality without them has nothing to batch so.
    fields = {field.name for field in dataclasses.fields(modality.encoder_settings)}
    speed = {"batch": _batch(arguments.batch), "workers": arguments.workers}
    mine = {name: value for name, value in speed.items() if name in fields}
    settings: Any = config.build(
        modality.encoder_settings, table, mine, changes, where=f"{modality.name}: encoder"
    )
    return modality.open_extractor(settings, device=arguments.device)


def _batch(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"--batch {text}: it takes auto or a number of 1 or more")
    return int(text)
