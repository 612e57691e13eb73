"""Which corpora and exports a run reads: chosen when it is trained, pinned for ever after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mepr_shared.contract.files import sha256_unchanged
from mepr_shared.contract.living import LOCK, aliases, export_folders, read_lock, resolve
from mepr_shared.contract.reader import Export
from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import ConfigError, ContractError, DataError, did_you_mean
from mepr_shared.train.runs import Run

# (modality, corpus name or None for every corpus) -> export id or alias
Choices = Mapping[tuple[str, str | None], str]


@dataclass(frozen=True)
class Inputs:
    """Corpora, and their exports by (modality, corpus name)."""

    corpora: tuple[Corpus, ...]
    exports: dict[tuple[str, str], Export]


def parse_choices(texts: Iterable[str]) -> dict[tuple[str, str | None], str]:
    """`["text:meld=1f3a", "face=best"]` as `{("text", "meld"): "1f3a", ("face", None): "best"}`.

    Raises:
        ConfigError: not of this form, or one place is given twice.
    """
    choices: dict[tuple[str, str | None], str] = {}
    for text in texts:
        place, _, name = text.partition("=")
        modality, colon, corpus = place.partition(":")
        if not (modality and name) or (colon and not corpus):
            raise ConfigError(f"--export takes MODALITY[:CORPUS]=ID_OR_ALIAS, got {text!r}")
        key = (modality, corpus or None)
        if key in choices:
            raise ConfigError(f"--export names {place!r} twice")
        choices[key] = name
    return choices


def choose(corpus_paths: Sequence[Path], root: Path, choices: Choices) -> Inputs:
    """Read the corpora, and find one export of every modality for each.

    Raises:
        DataError: a corpus that cannot be read, or two of one name.
        ContractError: no exports, several of one modality without a choice, or a damaged one.
        ConfigError: a choice that fits nothing.
    """
    corpora = tuple(Corpus.read(path) for path in corpus_paths)
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise DataError(f"two of the corpora have the same name: {', '.join(names)}")
    if not root.is_dir():
        raise ContractError(f"no such folder of exports: {root}")
    used: set[tuple[str, str | None]] = set()
    exports = {}
    for corpus in names:
        modalities = sorted({path.parent.name for path in export_folders(root, corpus)})
        if not modalities:
            there = sorted({path.parent.parent.name for path in export_folders(root)})
            raise ContractError(
                f"no export for corpus {corpus!r} under {root}",
                hint=f"corpora there: {', '.join(there) or 'none'}",
            )
        for modality in modalities:
            place = _applies(choices, root, corpus, modality)
            used |= {place} if place else set()
            exports[modality, corpus] = resolve(
                root, corpus, modality, choices[place] if place else None
            )
    unused = [place for place in choices if place not in used]
    if unused:
        known = [f"{modality}:{corpus}" for modality, corpus in exports]
        asked = ":".join(part for part in unused[0] if part)
        raise ConfigError(
            f"--export {asked}={choices[unused[0]]}: no such export for these corpora",
            hint=did_you_mean(asked, known),
        )
    check_intact(exports.values())
    return Inputs(corpora, exports)


def _applies(
    choices: Choices, root: Path, corpus: str, modality: str
) -> tuple[str, str | None] | None:
    """The choice for this place: one that names the corpus, or one whose export is here."""
    if (modality, corpus) in choices:
        return modality, corpus
    name = choices.get((modality, None))
    named = aliases(root / corpus / modality)
    folders = {path.name for path in export_folders(root, corpus, modality)}
    return (modality, None) if name is not None and named.get(name, name) in folders else None


def reopen(run: Run) -> Inputs:
    """The corpora and exports that a run was trained on, as its config and lock pin them.

    Raises:
        ContractError: an export is gone, damaged, or not the pinned one.
        DataError: a corpus is gone or cannot be read.
    """
    if "imported_from" in run.config:
        raise ContractError(
            f"{run.path} was imported: it has no corpora to evaluate on",
            hint="mepr_fusion.Run.load(RUN).forward(...) answers for features of yours",
        )
    pinned = read_lock(run.path / LOCK)
    root = Path(run.config["exports_root"])
    exports = {}
    for place, export_id in pinned.items():
        modality, _, corpus = place.partition(":")
        exports[modality, corpus] = resolve(root, corpus, modality, export_id)
    check_intact(exports.values())
    corpora = tuple(Corpus.read(Path(entry["path"])) for entry in run.config["corpora"])
    return Inputs(corpora, exports)


def check_intact(exports: Iterable[Export]) -> None:
    """Refuse an export with a flipped bit: its hashes are those of its manifest.

    Raises:
        ContractError: names the file.
    """
    for export in exports:
        for part in export.manifest.files:
            path = export.path / part.path
            if sha256_unchanged(path) != part.sha256:
                raise ContractError(
                    f"{path} is damaged: its SHA-256 is not that of the manifest",
                    hint=f"`mepr export verify {export.path} --deep` says more; export again",
                )


def describe_corpora(corpora: Sequence[Corpus]) -> list[dict[str, Any]]:
    """What a run's config records of its corpora."""
    return [
        {
            "name": corpus.name,
            "path": str(corpus.path.resolve()) if corpus.path else None,
            "emotion_kind": corpus.meta.scale.kind,
            "samples_sha256": corpus.hashes.samples_sha256,
            "labels_sha256": corpus.hashes.labels_sha256,
        }
        for corpus in corpora
    ]
