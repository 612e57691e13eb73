"""The corpus index: who the samples are, where their media lie, and all their labels.

On disk `<corpus>.parquet` (one row per clip, sorted by `sample_id`) and `<corpus>.json` (name,
version, licence, label orders, counts, hashes). The JSON is written last and its hashes must fit
the table: a pair that does not belong together is refused.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mepr_shared.corpora import columns as col
from mepr_shared.corpora import hashing
from mepr_shared.corpora.files import replacing
from mepr_shared.corpora.hashing import CorpusHashes
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, SPLITS, TRAITS, EmotionScale, emotion_targets

FORMAT = "mepr-corpus"
FORMAT_VERSION = "1.0"


@dataclass(frozen=True)
class CorpusMeta:
    """What is true of a corpus as a whole.

    Attributes:
        name: a plain folder name; exports and stores lie under it.
        scale: how emotions are stated.
        version: of the data, as its publisher or owner counts.
        licence: a note on what the data may be used for.
        emotions, traits: order of the label values.
        counts: rows, rows per split, labelled rows per task, rows with text and with media.
        hashes: of samples, inputs and labels.
        import_report: what the importer read, dropped and noticed.
        tombstones: samples withdrawn from the corpus.
        notes: anything a user of the corpus should know.
    """

    name: str
    scale: EmotionScale = field(default_factory=EmotionScale)
    version: str = "1"
    licence: str = ""
    emotions: tuple[str, ...] = EMOTIONS
    traits: tuple[str, ...] = TRAITS
    counts: Mapping[str, Any] = field(default_factory=dict)
    hashes: CorpusHashes | None = None
    import_report: Mapping[str, Any] = field(default_factory=dict)
    tombstones: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of `<corpus>.json`."""
        data = dataclasses.asdict(self)
        scale, hashes = data.pop("scale"), data.pop("hashes") or {}
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "emotion_kind": scale["kind"],
            "emotion_max": scale["maximum"],
            "present_above": scale["present_above"],
            **data,
            **hashes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> CorpusMeta:
        """The reverse of `to_json`.

        Raises:
            DataError: not a corpus JSON, a newer major version, or another label order.
        """
        if data.get("format") != FORMAT:
            raise DataError(f"{where} is no corpus index: format {data.get('format')!r}")
        major = str(data.get("format_version", "")).partition(".")[0]
        if major != FORMAT_VERSION.partition(".")[0]:
            raise DataError(
                f"{where} has format version {data.get('format_version')!r}, "
                f"this program reads {FORMAT_VERSION}",
                hint="pip install --upgrade mepr-shared",
            )
        for key, ours in (("emotions", EMOTIONS), ("traits", TRAITS)):
            if list(data.get(key, ())) != list(ours):
                raise DataError(f"{where}: order of {key} is {data.get(key)}, not {list(ours)}")
        known = {f.name for f in dataclasses.fields(cls)} - {"scale", "hashes"}
        plain = {key: data[key] for key in known & data.keys()}
        for key in ("emotions", "traits", "tombstones", "notes"):
            plain[key] = tuple(plain.get(key, ()))
        try:
            scale = EmotionScale(
                data["emotion_kind"], float(data["emotion_max"]), float(data["present_above"])
            )
            hashes = CorpusHashes(*(data[f.name] for f in dataclasses.fields(CorpusHashes)))
            return cls(scale=scale, hashes=hashes, **plain)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} is incomplete: {error}") from None


class Corpus:
    """An index in memory.

    Attributes:
        meta: what is true of the corpus as a whole; its counts and hashes fit the table.
        table: the rows, sorted by `sample_id`.
        path: the Parquet file it was read from or written to; None before that.
    """

    def __init__(self, meta: CorpusMeta, table: pa.Table, path: Path | None = None) -> None:
        """Wrap a table that `columns.to_table` made; `Corpus.build` is the usual way in.

        Raises:
            DataError: the table breaks a rule of the index.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", meta.name):
            raise DataError(
                f"corpus name {meta.name!r} cannot be a folder name",
                hint="use letters, digits, '.', '_' and '-'",
            )
        col.check(table, meta.scale)
        self.table = table
        self.path = path
        self.meta = dataclasses.replace(
            meta,
            counts=count_rows(table),
            hashes=hashing.corpus_hashes(table, meta.scale),
        )

    @classmethod
    def build(cls, meta: CorpusMeta, columns: Mapping[str, Any]) -> Corpus:
        """A corpus from columns of equal length, in any order (see `columns.to_table`)."""
        return cls(meta, col.to_table(columns))

    @classmethod
    def read(cls, path: str | Path) -> Corpus:
        """Read `<corpus>.parquet` with the `<corpus>.json` beside it.

        Raises:
            DataError: a file is missing or broken, or the two do not belong together.
        """
        path = Path(path)
        meta = CorpusMeta.from_json(_read_json(path), str(path.with_suffix(".json")))
        corpus = cls(meta, _read_table(path), path)
        for name in (f.name for f in dataclasses.fields(CorpusHashes)):
            if getattr(meta.hashes, name) != getattr(corpus.hashes, name):
                raise DataError(
                    f"{path} does not fit {path.with_suffix('.json').name}: {name} differs",
                    hint="an interrupted write or an edit by hand; import the corpus again",
                )
        return corpus

    def write(self, path: str | Path, *, overwrite: bool = False) -> Corpus:
        """Write table and JSON, each replaced atomically, the JSON last.

        Media inside the index's folder are stored relative to it, others absolute. Samples
        withdrawn from the index that is overwritten stay withdrawn: importing a corpus again
        does not bring a person back.

        Returns:
            the corpus as it is on disk (its `path` set).

        Raises:
            DataError: one of the files exists and `overwrite` is not set, or cannot be written.
        """
        path = Path(path)
        if path.suffix != ".parquet":
            raise DataError(f"a corpus index is a .parquet file, got {path}")
        json_path = path.with_suffix(".json")
        existing = [file for file in (path, json_path) if file.exists()]
        if existing and not overwrite:
            raise DataError(f"{existing[0]} exists", hint="give another path, or overwrite it")
        tombstones = _merged_tombstones(self.meta.tombstones, _tombstones_at(json_path))
        withdrawn = pa.array([stone["sample_id"] for stone in tombstones], pa.string())
        stored = pa.array(self._stored_media(path.parent), pa.string())
        table = self.table.set_column(
            self.table.schema.get_field_index("media"), "media", stored
        ).filter(pc.invert(pc.is_in(self.table["sample_id"], withdrawn)))
        written = Corpus(dataclasses.replace(self.meta, tombstones=tombstones), table, path)
        text = json.dumps(written.meta.to_json(), ensure_ascii=False, indent=2) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as staged, replacing(json_path) as staged_json:
                pq.write_table(written.table, staged.path, compression="zstd")
                staged_json.path.write_text(text, "utf-8")
                staged.commit()
                staged_json.commit()
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from None
        return written

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} rows)"

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def hashes(self) -> CorpusHashes:
        assert self.meta.hashes is not None  # set by the constructor
        return self.meta.hashes

    @cached_property
    def sample_ids(self) -> list[str]:
        return self.table["sample_id"].to_pylist()

    @cached_property
    def texts(self) -> list[str | None]:
        return self.table["text"].to_pylist()

    @cached_property
    def splits(self) -> np.ndarray:
        """`[N]` objects: `train`, `val`, `test` or None."""
        return self.column("split")

    @cached_property
    def source_ids(self) -> np.ndarray:
        """`[N]` objects; a sample without a source is a source of its own."""
        sources = pc.coalesce(self.table["source_id"], self.table["sample_id"])
        return np.array(sources.to_pylist(), dtype=object)

    @cached_property
    def emotion_values(self) -> np.ndarray:
        """`[N, 7]` float32 raw values; rows of NaN are unlabelled."""
        return col.label_matrix(self.table["emotion"], len(EMOTIONS))

    @cached_property
    def trait_values(self) -> np.ndarray:
        """`[N, 5]` float32 in [0, 1]; NaN where a trait is missing."""
        return col.label_matrix(self.table["traits"], len(TRAITS))

    def emotion_targets(self) -> np.ndarray:
        """`[N, 7]` float32 targets as `labels.emotion_targets` defines them."""
        return emotion_targets(self.emotion_values, self.meta.scale)

    def column(self, name: str) -> np.ndarray:
        """A column as `[N]` objects, None where null.

        Raises:
            DataError: no such column.
        """
        if name not in self.table.column_names:
            raise DataError(
                f"corpus {self.name!r} has no column {name!r}",
                hint="columns: " + ", ".join(self.table.column_names),
            )
        return np.array([*self.table[name].to_pylist(), None], dtype=object)[:-1]

    def select(self, *, split: str | None = None, fold: int | None = None) -> np.ndarray:
        """Row indices `[n]` of a split and/or a fold, ascending.

        Raises:
            DataError: no such split, or the corpus has no folds.
        """
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            if split not in SPLITS:
                raise DataError(f"unknown split {split!r}", hint="known: " + ", ".join(SPLITS))
            chosen &= self.splits == split
        if fold is not None:
            chosen &= self.column("fold") == fold
        return np.flatnonzero(chosen)

    def take(self, rows: np.ndarray) -> Corpus:
        """The corpus of some rows (indices, any order); its hashes are its own."""
        table = self.table.take(pa.array(np.sort(np.asarray(rows, dtype=np.int64))))
        return Corpus(self.meta, table, self.path)

    def media_path(self, media: str) -> Path:
        """Where a file named in the `media` column lies."""
        return self.path.parent / media if self.path is not None else Path(media)

    def media_sha256(self, path: Path | None) -> str | None:
        """sha256 of a media file's bytes; None where there is no file.

        Remembered while the file's size and time stay the same, so that many segments of one
        video cost one reading.
        """
        return hashing.file_sha256(path) if path is not None and path.is_file() else None

    def input_sha256(self, row: int, kind: str) -> str:
        """What the features of a row depend on: its text, or its media bytes and segment.

        A file that is not there hashes as such, so that its row is extracted once it appears.

        Raises:
            DataError: `kind` is neither `text` nor `media`.
        """
        if kind == "text":
            return hashing.sha256_json(["text", self.texts[int(row)]])
        if kind == "media":
            names = ("media", "start_s", "end_s")
            media, start, end = (self.table[name][int(row)].as_py() for name in names)
            content = self.media_sha256(self.media_path(media)) if media is not None else None
            return hashing.sha256_json(["media", content, start, end])
        raise DataError(f"unknown input kind {kind!r}", hint="known: text, media")

    def _stored_media(self, folder: Path) -> list[str | None]:
        folder = folder.resolve()
        stored: list[str | None] = []
        for media in self.table["media"].to_pylist():
            if media is None:
                stored.append(None)
                continue
            path = Path(os.path.abspath(self.media_path(media)))
            inside = path.is_relative_to(folder)
            stored.append((path.relative_to(folder) if inside else path).as_posix())
        return stored


def count_rows(table: pa.Table) -> dict[str, Any]:
    """Rows in all, per split, labelled per task, with text and with media."""
    splits = pc.value_counts(table["split"].combine_chunks()).to_pylist()
    per_split = {str(item["values"] or "none"): item["counts"] for item in splits}
    order = [name for name in (*SPLITS, "none") if name in per_split]
    return {
        "rows": len(table),
        "split": {name: per_split[name] for name in order},
        **{
            name: len(table) - table[name].null_count
            for name in ("emotion", "traits", "text", "media")
        },
        "sources": pc.count_distinct(table["source_id"]).as_py(),
    }


def _tombstones_at(json_path: Path) -> list[Mapping[str, Any]]:
    try:
        return list(json.loads(json_path.read_text("utf-8")).get("tombstones", ()))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        # Taken for "none", the withdrawn would come back without a word.
        raise DataError(
            f"{json_path} cannot be read, so it may hold withdrawals that must be kept: {error}",
            hint="repair it, or write to another path",
        ) from None


def _merged_tombstones(*lists: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    merged = {stone["sample_id"]: stone for stones in lists for stone in stones}
    return tuple(merged[sample_id] for sample_id in sorted(merged))


def _read_json(path: Path) -> dict[str, Any]:
    json_path = path.with_suffix(".json")
    for file in (path, json_path):
        if not file.is_file():
            raise DataError(
                f"no such corpus file: {file}",
                hint="a corpus is X.parquet with X.json beside it; `mepr corpus import` makes both",
            )
    try:
        data = json.loads(json_path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{json_path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{json_path} is no corpus index: not a JSON object")
    return data


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None
    missing = [name for name in col.REQUIRED if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    try:
        return col.to_table({name: table[name] for name in table.column_names})
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
