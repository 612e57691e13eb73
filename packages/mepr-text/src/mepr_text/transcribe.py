"""Fills in the texts of a corpus: clips that have media and no text are transcribed.

Every row stays, a text that is there stays as it is, and the columns `text_source` and `asr_*` say
for each row what was done and how sure it is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mepr_shared.contract.frames import store_key
from mepr_shared.corpora.columns import TRANSCRIPT
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.waveform import RATE, stream_waveform
from mepr_text.asr import Transcript, joined
from mepr_text.journal import Journal, Record

# Long recordings are read and transcribed in blocks, so that memory does not grow with them.
BLOCK_S = 600.0
# So much sound is transcribed at once: enough for full batches, little to lose in a crash.
GROUP_S = 120.0
# Clips without sound count for nothing in that, but are to be written down too.
GROUP_CLIPS = 64


class Recogniser(Protocol):
    """What turns sound into text; `asr.Transcriber` is one."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What determines its texts; plain JSON."""

    def transcribe_batch(self, recordings: Sequence[np.ndarray]) -> list[Transcript]:
        """The transcripts of recordings, float32 `[n]` each, 16 kHz mono."""


@dataclass
class TranscriptionSummary:
    """What a transcription did.

    Attributes:
        statuses: clips per status of those that had no text.
        kept: clips whose text was there.
        transcribed, reused: clips transcribed now, and those found in the journal.
        audio_s, seconds: sound that was read now, and wall time.
        problems: up to 20 `sample_id: status reason` lines of clips that are not `ok`.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    transcribed: int = 0
    reused: int = 0
    audio_s: float = 0.0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Clip:
    """A clip on its way; `row` is its place in the index."""

    row: int
    sample_id: str
    media: Path
    start_s: float | None
    end_s: float | None
    input_sha256: str
    parts: list[tuple[float, Transcript]] = field(default_factory=list)
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class _Block:
    """Sound of a clip, from `start_s` after the clip's start."""

    clip: _Clip
    start_s: float
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def transcribe_corpus(
    corpus: Corpus,
    out: Path,
    recogniser: Recogniser,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Corpus, TranscriptionSummary]:
    """Write a copy of a corpus index with its missing texts filled in.

    Args:
        out: the new index; results are kept beside it, in `journal_path(out)`.
        resume: reuse what a former run left there.
        overwrite: replace an index that is there; without `resume`, its journal too.
        on_progress: called with (clips done, clips to do).

    Raises:
        DataError: `out` or its journal is there, or cannot be written.
    """
    check_target(out, resume=resume, overwrite=overwrite)
    started = time.perf_counter()
    key = store_key(recogniser.spec)
    todo = [row for row, text in enumerate(corpus.texts) if not (text or "").strip()]
    summary = TranscriptionSummary(kept=len(corpus) - len(todo))
    records: dict[int, Record] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with Journal(journal_path(out)) as journal:
        if not resume:
            journal.clear()
        journal.describe(key, recogniser.spec)
        clips = _unknown(corpus, todo, key, journal, records, summary)
        for group in _groups(clips, recogniser, summary):
            found = {clip.row: _record(clip, key) for clip in group}
            # What could not even be hashed may be readable next time.
            journal.add(record for record in found.values() if record.input_sha256)
            records |= found
            summary.transcribed += len(found)
            if on_progress:
                on_progress(len(records), len(todo))
    summary.seconds = time.perf_counter() - started
    _summarise(records, summary)
    meta = _meta(corpus.meta, key, recogniser.spec, summary)
    filled = Corpus(meta, _table(corpus, records), corpus.path)
    return filled.write(out, overwrite=overwrite), summary


def check_target(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse before hours of work what would be refused after them.

    Raises:
        DataError: `out` is no .parquet file, or it or its journal is there.
    """
    if out.suffix != ".parquet":
        raise DataError(f"a corpus index is a .parquet file, got {out}")
    existing = [path for path in (out, out.with_suffix(".json")) if path.exists()]
    if existing and not overwrite:
        raise DataError(f"{existing[0]} exists", hint="give another path, or --overwrite")
    journal = journal_path(out)
    if journal.exists() and not (resume or overwrite):
        raise DataError(
            f"{journal} holds transcripts of a former run",
            hint="--resume goes on with them, --overwrite starts anew",
        )


def journal_path(out: Path) -> Path:
    """Where the results for an index lie while it is made, and after."""
    return out.with_suffix(".asr.jsonl")


def _unknown(
    corpus: Corpus,
    rows: Sequence[int],
    key: str,
    journal: Journal,
    records: dict[int, Record],
    summary: TranscriptionSummary,
) -> Iterator[_Clip]:
    """The clips to be transcribed; what is known of the others goes into `records`."""
    columns = [corpus.table[name].to_pylist() for name in ("media", "start_s", "end_s")]
    for row in rows:
        sample_id = corpus.sample_ids[row]
        media, start_s, end_s = (column[row] for column in columns)
        if media is None:
            records[row] = Record(sample_id, "", key, "no_media", "the index names no media file")
            continue
        try:
            sha256 = corpus.input_sha256(row, "media")
        except OSError:  # reading it as media will say why
            sha256 = ""
        known = journal.find(sha256, key)
        if known:
            records[row] = known
            summary.reused += 1
        else:
            yield _Clip(row, sample_id, corpus.media_path(media), start_s, end_s, sha256)


def _groups(
    clips: Iterable[_Clip], recogniser: Recogniser, summary: TranscriptionSummary
) -> Iterator[list[_Clip]]:
    """The clips with their transcripts, in their order, a group at a time."""
    group: list[_Clip] = []
    blocks: list[_Block] = []
    group_s = 0.0
    for clip in clips:
        group.append(clip)
        for block in _read(clip):
            blocks.append(block)
            group_s += block.seconds
            if sum(held.seconds for held in blocks) >= GROUP_S:
                _recognise(blocks, recogniser)
        if group_s >= GROUP_S or len(group) >= GROUP_CLIPS:
            _recognise(blocks, recogniser)
            summary.audio_s += group_s
            yield group
            group, group_s = [], 0.0
    if group:
        _recognise(blocks, recogniser)
        summary.audio_s += group_s
        yield group


def _read(clip: _Clip) -> Iterator[_Block]:
    """A clip's sound; its status is final after the last block."""
    try:
        stream = stream_waveform(
            clip.media, start_s=clip.start_s, end_s=clip.end_s, rate=RATE, chunk_s=BLOCK_S
        )
    except MediaProblem as problem:
        clip.status, clip.reason = problem.status, problem.reason
        return
    for number, samples in enumerate(stream):
        yield _Block(clip, number * BLOCK_S, samples)
    if stream.nothing_finite:
        clip.status, clip.reason = "decode_error", "not one sample is a finite number"
    elif stream.problem:
        clip.status, clip.reason = "partial", stream.problem


def _recognise(blocks: list[_Block], recogniser: Recogniser) -> None:
    """Transcribe blocks and let go of them."""
    found = recogniser.transcribe_batch([block.samples for block in blocks])
    for block, transcript in zip(blocks, found, strict=True):
        block.clip.parts.append((block.start_s, transcript))
    blocks.clear()


def _record(clip: _Clip, key: str) -> Record:
    record = Record(clip.sample_id, clip.input_sha256, key, clip.status, clip.reason)
    if not clip.parts or clip.status == "decode_error":
        return record
    transcript = joined(clip.parts)
    reason = "; ".join(filter(None, (transcript.reason, clip.reason)))
    if not transcript.text:
        return replace(record, status="no_text", reason=reason)
    return replace(
        record,
        reason=reason,
        text=transcript.text,
        language=transcript.language,
        language_probability=transcript.language_probability,
        confidence=transcript.confidence,
        segments=transcript.segments,
    )


def _table(corpus: Corpus, records: dict[int, Record]) -> pa.Table:
    """The index's table with texts and the columns of `TRANSCRIPT`."""
    table = corpus.table
    columns: dict[str, list[Any]] = {"text": list(corpus.texts)}
    for name in TRANSCRIPT:
        # An index that went through this before keeps what it says of its texts.
        known = name in table.column_names
        columns[name] = table[name].to_pylist() if known else [None] * len(table)
    for row, source in enumerate(columns["text_source"]):
        if source is None and row not in records:
            columns["text_source"][row] = "given"
    for row, record in records.items():
        if record.text is not None:
            columns["text"][row] = record.text
            columns["text_source"][row] = "asr"
        columns["asr_status"][row] = record.status
        columns["asr_reason"][row] = record.reason or None
        columns["asr_language"][row] = record.language
        columns["asr_language_probability"][row] = record.language_probability
        columns["asr_confidence"][row] = record.confidence
        columns["asr_model"][row] = record.model
    for name, values in columns.items():
        array = pa.array(values, TRANSCRIPT.get(name, pa.string()))
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, array)
        else:
            table = table.set_column(place, name, array)
    return table


def _meta(
    meta: CorpusMeta, key: str, spec: Mapping[str, Any], summary: TranscriptionSummary
) -> CorpusMeta:
    """The corpus's description with the model, so that `asr_model` can be looked up."""
    report = dict(meta.import_report)
    report["transcriptions"] = {
        **report.get("transcriptions", {}),
        key: {
            "spec": dict(spec),
            "kept": summary.kept,
            "statuses": dict(sorted(summary.statuses.items())),
        },
    }
    return replace(meta, import_report=report)


def _summarise(records: dict[int, Record], summary: TranscriptionSummary) -> None:
    for _, record in sorted(records.items()):
        summary.statuses[record.status] += 1
        if record.status != "ok" and len(summary.problems) < 20:
            line = f"{record.sample_id}: {record.status} {record.reason}"
            summary.problems.append(line.rstrip())
