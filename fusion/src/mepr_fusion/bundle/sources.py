"""Which runs made the exports that a stage-3 run was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.contract.files import sha256_file
from mepr_shared.contract.living import LOCK, read_lock, resolve
from mepr_shared.contract.reader import Export
from mepr_shared.errors import ConfigError, ContractError, did_you_mean
from mepr_shared.train.runs import Run

UNIMODAL = ("stage1", "stage2")
# Runs lie in RUNS/MODALITY/stage2; deeper than this nothing is looked for.
DEPTH = 5

# modality -> corpus -> the export that stage 3 read
Exports = Mapping[str, Mapping[str, Export]]


@dataclass(frozen=True)
class Sources:
    """What a bundle is made of.

    Attributes:
        corpus: the corpus as whose samples inputs are read where nothing else is asked for.
        runs: modality -> the run whose model answers for it.
        exports: modality -> corpus -> the export that stage 3 read.
        left_out: modality -> why it has no run.
        notes: what else should be known.
    """

    corpus: str
    runs: dict[str, Run]
    exports: Exports
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()


def find_sources(
    run: Run,
    *,
    roots: Sequence[Path] = (),
    given: Mapping[str, Path] | None = None,
    without: Sequence[str] = (),
) -> Sources:
    """Find the run behind each modality, by the hash of its weights in the export's manifest.

    A modality is left out where its exports name no weights (they were made by another program),
    or where `roots` hold no run of it at all (another team has it).

    Args:
        run: a stage-3 run.
        roots: folders that runs are looked for in.
        given: modality -> its run, where that is known.
        without: modalities to be left out.

    Raises:
        ContractError: an export is gone; a run that is given is another one; `roots` hold runs of
            a modality, but not the one that was exported; nothing is left.
        ConfigError: a modality that stage 3 does not know.
    """
    given = dict(given or {})
    names = list(run.config["modalities"])
    for name in (*given, *without):
        if name not in names:
            raise ConfigError(
                f"{run.path} has no modality {name!r}", hint=did_you_mean(name, names)
            )
    exports = pinned_exports(run)
    corpus = main_corpus(run, exports)
    found: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    notes = []
    there = _by_modality(roots)
    for name in names:
        if name in without:
            left_out[name] = "left out on request"
            continue
        wanted = _weights(exports[name])
        candidates = [Run.load(given[name])] if name in given else there.get(name, [])
        if not wanted and name not in given:
            left_out[name] = "its exports name no weights: another program made them"
        elif not candidates:
            left_out[name] = "no run of it was found here: another team has it"
        else:
            found[name] = _match(name, wanted, candidates, corpus)
            others = sorted({c for c, sha in wanted.items() if sha != wanted.get(corpus, sha)})
            if others:
                notes.append(f"{name}: {', '.join(others)} was exported by another model")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ContractError(
            f"no modality of {run.path} has a run ({reasons})",
            hint="--runs-root RUNS, or --stage2 MODALITY=RUN",
        )
    return Sources(corpus, found, exports, left_out, tuple(notes))


def pinned_exports(run: Run) -> dict[str, dict[str, Export]]:
    """Modality -> corpus -> the export that a stage-3 run was trained on.

    Raises:
        ContractError: one is gone or cannot be opened.
    """
    root = Path(run.config["exports_root"])
    found: dict[str, dict[str, Export]] = {name: {} for name in run.config["modalities"]}
    for place, export_id in read_lock(run.path / LOCK).items():
        modality, _, corpus = place.partition(":")
        found[modality][corpus] = resolve(root, corpus, modality, export_id)
    return found


def main_corpus(run: Run, exports: Exports) -> str:
    """The corpus that inputs are most like: with emotion labels if there is one, exported for as
    many modalities as possible, and then the one with most training samples."""
    constants, samples = run.metrics["constants"], run.metrics["samples"]

    def rank(name: str) -> tuple[bool, int, int]:
        covered = sum(name in by_corpus for by_corpus in exports.values())
        return constants[name]["emotion"] is not None, covered, samples[name]["train"]

    return max(samples, key=rank)


def _weights(exports: Mapping[str, Export]) -> dict[str, str]:
    """Corpus -> hash of the weights that made its export."""
    known = {corpus: export.manifest.model.weights_sha256 for corpus, export in exports.items()}
    return {corpus: sha256 for corpus, sha256 in known.items() if sha256}


def _match(name: str, wanted: Mapping[str, str], candidates: Sequence[Run], corpus: str) -> Run:
    """The candidate that made the exports; of several models that of `corpus`."""
    hashes = {sha256_file(run.weights_path): run for run in candidates}
    order = [wanted[corpus]] if corpus in wanted else list(wanted.values())
    for sha256 in order:
        if sha256 in hashes:
            return hashes[sha256]
    looked = ", ".join(str(run.path) for run in candidates[:3])
    raise ContractError(
        f"the run that made the exports of {name} is not there: none of {looked} has the weights "
        f"{(order or ['?'])[0][:16]} that their manifests name",
        hint=f"it was trained again since? --stage2 {name}=RUN names it, --without {name} "
        "leaves it out",
    )


def _by_modality(roots: Sequence[Path]) -> dict[str, list[Run]]:
    """Finished stage-1 and stage-2 runs below the roots."""
    found: dict[str, list[Run]] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"no such folder of runs: {root}")
        for folder in _folders(root, DEPTH):
            run = _unimodal(folder)
            if run is not None:
                found.setdefault(run.config["modality"], []).append(run)
    return found


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders with a `config.json`, in order; a run has no runs inside."""
    if (root / "config.json").is_file():
        yield root
        return
    if depth:
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            yield from _folders(folder, depth - 1)


def _unimodal(folder: Path) -> Run | None:
    try:
        run = Run.load(folder)
    except ContractError:
        return None
    finished = run.metrics and (folder / "weights.safetensors").is_file()
    return run if run.kind in UNIMODAL and finished else None


def output_of(export: Export) -> dict[str, Any] | None:
    """How an export's emotion logits are read, as JSON."""
    output = export.manifest.emotion_output
    return None if output is None else dict(vars(output))
