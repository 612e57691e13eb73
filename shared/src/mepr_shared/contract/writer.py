"""Writing an export: parts first, then the manifest, then one rename."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mepr_shared import config
from mepr_shared.contract.files import (
    checked_name,
    disk_errors,
    rename_directory,
    replace,
    sha256_file,
    sha256_json,
    take_lock,
    write_json,
)
from mepr_shared.contract.producer import producer
from mepr_shared.contract.reader import Export
from mepr_shared.contract.schema import (
    CorpusLike,
    CorpusRef,
    EmotionOutput,
    LabelSpaces,
    Manifest,
    ModelInfo,
    PartFile,
    Producer,
    sealed,
)
from mepr_shared.contract.statuses import WITHDRAWN
from mepr_shared.contract.summary import (
    PartSummary,
    summarise,
    total_counts,
    total_stats,
    uneven_columns,
    widths_of,
)
from mepr_shared.contract.table import (
    SampleRows,
    build_rows,
    interleave,
    schema_columns,
    take,
    write_part,
)
from mepr_shared.contract.verify import MANIFEST, verify
from mepr_shared.errors import ConfigError, ContractError

STAGING = ".staging-"


@dataclass(frozen=True)
class ExportInfo:
    """What an export is, apart from its rows.

    Attributes:
        modality: its name; any other than the five joins the fusion the same way.
        stage: of the model, e.g. `"stage2"`.
        model: see `ModelInfo`.
        emotion_output: None only where no row has emotion logits.
        train_rows: whether predictions for training rows come from models that saw them.
        generated_by: see `producer`.
    """

    modality: str
    stage: str
    model: ModelInfo = field(default_factory=ModelInfo)
    emotion_output: EmotionOutput | None = None
    train_rows: Literal["in_sample", "out_of_fold"] = "in_sample"
    generated_by: list[Producer] = field(
        default_factory=lambda: [producer("mepr-shared", "mepr_shared")]
    )


@dataclass(frozen=True)
class _Done:
    """A part that is on the disk."""

    file: PartFile
    summary: PartSummary


class ExportWriter:
    """Writes one export of a corpus; parts that an earlier run finished are kept.

    Give rows for everything in `pending()`, then call `commit()`. Until then nothing that could
    be taken for an export exists. The same rows give the same bytes and the same id.

    Args:
        root: folder of all exports.
        corpus: its index. Every sample gets a row.
        info: what is exported.
        part_rows: rows per part.
        reuse: an older export of the same model; its rows are taken over where their
            `source_sha256` is still that of `source_sha256`. Withdrawn rows stay withdrawn.
        source_sha256: with `reuse`: `sample_id -> hash` of what a row is computed from now.

    Attributes:
        already_there: after `commit`, whether the same export existed.

    Raises:
        ContractError: duplicate ids, no samples, `reuse` from another model, disk full, or another
            process writes the same export.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        corpus: CorpusLike,
        info: ExportInfo,
        part_rows: int = 65536,
        reuse: Export | None = None,
        source_sha256: Mapping[str, str] | None = None,
    ) -> None:
        self.already_there = False
        self._info = info
        self._corpus = CorpusRef(
            corpus.name, corpus.hashes.samples_sha256, corpus.hashes.labels_sha256
        )
        self._splits = dict(zip(corpus.sample_ids, corpus.splits, strict=True))
        if len(self._splits) != len(corpus.sample_ids):
            raise ContractError(f"corpus {corpus.name!r} holds a sample_id twice")
        if not self._splits:
            raise ContractError(f"corpus {corpus.name!r} has no samples")
        ids = sorted(self._splits)
        self._parts = [ids[i : i + part_rows] for i in range(0, len(ids), part_rows)]
        self._reuse = reuse
        self._reusable = _reusable(reuse, info, source_sha256 or {})
        folder = Path(root) / checked_name(corpus.name, "corpus name")
        self._folder = folder / checked_name(info.modality, "modality name")
        self._stage = self._folder / f"{STAGING}{self._stage_key()}"
        with disk_errors(self._stage):
            (self._stage / "done").mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self._stage / ".lock")
            (self._stage / "export" / "samples").mkdir(parents=True, exist_ok=True)
            self._done = self._resume()

    def pending(self) -> list[tuple[int, list[str]]]:
        """Parts still to be written: their number and the sorted ids whose rows are wanted."""
        wanted = []
        for index in range(len(self._parts)):
            ids = self._fresh(index)
            if index not in self._done and ids:
                wanted.append((index, ids))
        return wanted

    def write_part(self, index: int, columns: Mapping[str, Any]) -> None:
        """Write one part.

        Args:
            index: its number, from `pending`.
            columns: aligned with its ids; see `table.build_rows`.

        Raises:
            ContractError: a rule is broken (see `table.build_rows`), or the disk is full.
        """
        if not 0 <= index < len(self._parts):
            raise ContractError(f"no part {index}: the export has {len(self._parts)}")
        fresh = self._fresh(index)
        rows = build_rows(fresh, [self._splits[key] for key in fresh], columns)
        rows = self._with_reused(index, rows)
        summary = summarise(rows)
        if "emotion_logits" in summary.widths and self._info.emotion_output is None:
            raise ContractError(
                "the export has emotion logits, but emotion_output does not say how to read them"
            )
        self._check_consistent({**{i: d.summary for i, d in self._done.items()}, index: summary})
        relative = f"samples/part-{index:05d}-of-{len(self._parts):05d}.parquet"
        path = self._stage / "export" / relative
        with disk_errors(self._stage):
            unfinished = path.with_name(f".{path.name}.partial")
            write_part(unfinished, rows)
            replace(unfinished, path)
            keys = self._parts[index]
            size, digest = path.stat().st_size, sha256_file(path)
            file = PartFile(relative, size, digest, len(keys), keys[0], keys[-1])
            self._done[index] = _Done(file, summary)
            # The done-record comes last: a part without one is written again.
            write_json(self._record(index), dataclasses.asdict(self._done[index]))

    def commit(self) -> Path:
        """Publish the export; gives its folder.

        Raises:
            ContractError: parts are pending, or a damaged export has the same id.
        """
        pending = self.pending()
        if pending:
            raise ContractError(
                f"{len(pending)} parts are not written, first of sample {pending[0][1][0]!r}"
            )
        for index in range(len(self._parts)):
            if index not in self._done:
                self.write_part(index, {"status": []})
        content = sealed(self._manifest())
        target = self._folder / content["export_id"]
        with disk_errors(target):
            if not target.exists():
                write_json(self._stage / "export" / MANIFEST, content)
                with contextlib.suppress(FileExistsError):
                    rename_directory(self._stage / "export", target)
                    shutil.rmtree(self._stage)
                    return target
            findings = verify(target, deep=True)
            if findings:
                raise ContractError(
                    f"an export with this id exists and is damaged: {findings[0].message}",
                    hint=f"remove {target} and run the same command again",
                )
            self.already_there = True
            shutil.rmtree(self._stage)
        return target

    def _manifest(self) -> Manifest:
        done = [self._done[index] for index in range(len(self._parts))]
        summaries = [part.summary for part in done]
        widths = {name: max(found) for name, found in widths_of(summaries).items()}
        return Manifest(
            export_id="",
            modality=self._info.modality,
            corpus=self._corpus,
            stage=self._info.stage,
            generated_by=self._info.generated_by,
            model=self._info.model,
            label_spaces=LabelSpaces(),
            emotion_output=self._info.emotion_output,
            train_rows=self._info.train_rows,
            schema=schema_columns(widths),
            counts=total_counts(summaries),
            stats=total_stats(summaries),
            files=[part.file for part in done],
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            manifest_sha256="",
        )

    def _stage_key(self) -> str:
        """What makes two runs parts of one export. Who runs it when is not among it."""
        content: dict[str, Any] = dataclasses.asdict(self._info)
        content.pop("generated_by")
        content |= {"corpus": dataclasses.asdict(self._corpus), "ids": self._parts}
        if self._reuse is not None:
            content["reuse"] = [self._reuse.export_id, sorted(self._reusable)]
        try:
            return sha256_json(content)[:16]
        except (TypeError, ValueError) as error:
            raise ContractError(f"the model's info is not plain JSON: {error}") from None

    def _fresh(self, index: int) -> list[str]:
        return [key for key in self._parts[index] if key not in self._reusable]

    def _with_reused(self, index: int, fresh: SampleRows) -> SampleRows:
        ids = self._parts[index]
        old = [key for key in ids if key in self._reusable]
        if self._reuse is None or not old:
            return fresh
        reused = take(self._reuse.rows, self._reuse.row_of(old))
        reused.text["split"] = [self._splits[key] for key in old]
        return interleave(reused, fresh)

    def _check_consistent(self, summaries: Mapping[int, PartSummary]) -> None:
        parts = list(summaries.values())
        for name, widths in widths_of(parts).items():
            if len(widths) > 1:
                raise ContractError(f"{name} has several widths: {sorted(widths)}")
        for name in uneven_columns(parts):
            raise ContractError(f"{name} is given for some samples of status ok, not for all")

    def _record(self, index: int) -> Path:
        return self._stage / "done" / f"part-{index:05d}.json"

    def _resume(self) -> dict[int, _Done]:
        """Parts whose done-record and hash fit; everything else is removed."""
        done: dict[int, _Done] = {}
        export = self._stage / "export"
        (export / MANIFEST).unlink(missing_ok=True)
        for index in range(len(self._parts)):
            try:
                content = json.loads(self._record(index).read_bytes())
                part = config.build(_Done, content, where=str(self._record(index)))
                if sha256_file(export / part.file.path) == part.file.sha256:
                    done[index] = part
            except (OSError, ValueError, ConfigError):
                continue  # not finished, so it is written again
        keep = {part.file.path for part in done.values()}
        for path in (export / "samples").iterdir():
            if path.relative_to(export).as_posix() not in keep:
                path.unlink()
        return done


def _reusable(
    reuse: Export | None, info: ExportInfo, source_sha256: Mapping[str, str]
) -> frozenset[str]:
    """Samples whose row in `reuse` still holds."""
    if reuse is None:
        return frozenset()
    old = reuse.manifest
    ours = (info.modality, info.model.weights_sha256, info.model.config_sha256)
    theirs = (old.modality, old.model.weights_sha256, old.model.config_sha256)
    if (*ours, info.emotion_output, info.train_rows) != (
        *theirs,
        old.emotion_output,
        old.train_rows,
    ):
        raise ContractError(
            f"{reuse.path} is from another model; its rows cannot be taken over",
            hint="export without --update",
        )
    rows = zip(reuse.sample_ids, reuse.source_sha256, reuse.status, strict=True)
    return frozenset(
        key
        for key, source, status in rows
        if status == WITHDRAWN or (source is not None and source == source_sha256.get(key))
    )
