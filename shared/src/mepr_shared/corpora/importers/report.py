"""What an importer says about the files it read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mepr_shared.corpora.index import Corpus
from mepr_shared.errors import DataError

NAMED_IDS = 10


@dataclass
class ImportReport:
    """Counts of everything an importer read, dropped, changed or noticed.

    Attributes:
        importer: its name.
        strict: refuse impossible rows instead of dropping them.
        rows_read: rows in the files.
        rows_kept: rows in the index.
        dropped: reason -> ids of the rows left out (all of them; shown ones are the first).
        duplicate_ids: rows dropped because their id had been read before.
        out_of_range: rows dropped because a label is impossible.
        straddling_sources: sources with clips in more than one split (a warning).
        negative_starts: segments that began before 0 and were clamped.
        partly_missing_traits: rows with some traits, not all.
        empty_texts: rows whose transcript is there, but empty.
        marks_stripped: transcribers' marks and time codes taken out of texts.
        unknown_names: media files whose name is not one of the corpus.
        media_found, media_missing: rows whose media file is there, or is not.
        media_kinds: what was found, where a corpus comes in several forms -> rows.
        transcripts: how transcripts from files of their own were found -> rows.
        notes: anything else, in words.
    """

    importer: str
    strict: bool = False
    rows_read: int = 0
    rows_kept: int = 0
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    duplicate_ids: int = 0
    out_of_range: int = 0
    straddling_sources: int = 0
    straddling_clips: dict[str, int] = field(default_factory=dict)
    negative_starts: int = 0
    partly_missing_traits: int = 0
    empty_texts: int = 0
    marks_stripped: int = 0
    unknown_names: int = 0
    media_found: int = 0
    media_missing: int = 0
    media_kinds: dict[str, int] = field(default_factory=dict)
    transcripts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, sample_id: str, reason: str, where: str, kind: str = "out_of_range") -> None:
        """Record a row that cannot be kept.

        Args:
            sample_id: the row.
            reason: without the row's own values, so that equal reasons are counted together.
            where: file (and line) for the message.
            kind: the counter beside: `out_of_range`, `duplicate_ids` or `unknown_names`.

        Raises:
            DataError: in strict mode.
        """
        if self.strict:
            raise DataError(
                f"{where}: {sample_id}: {reason}", hint="without --strict the row is dropped"
            )
        self.dropped[reason].append(sample_id)
        setattr(self, kind, getattr(self, kind) + 1)

    def leave_out(self, sample_id: str, reason: str) -> None:
        """Record a sound row that was not asked for; strict mode has nothing against it."""
        self.dropped[reason].append(sample_id)

    def count_media(self, media: Iterable[str | None]) -> None:
        """Count the rows kept that have a media file, and those that have none."""
        has = [path is not None for path in media]
        self.media_found = sum(has)
        self.media_missing = len(has) - self.media_found

    def note_straddling(self, sources: Iterable[str], splits: Iterable[str | None]) -> None:
        """Count the sources found in several splits, and the val/test clips they reach."""
        pairs = [(source, split) for source, split in zip(sources, splits, strict=True) if split]
        where: dict[str, set[str]] = defaultdict(set)
        for source, split in pairs:
            where[source].add(split)
        self.straddling_sources = sum(len(found) > 1 for found in where.values())
        seen = Counter(
            split for source, split in pairs if split != "train" and "train" in where[source]
        )
        self.straddling_clips = dict(sorted(seen.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the index's JSON; of dropped rows the count and the first ids."""
        data = {key: value for key, value in vars(self).items() if key != "dropped"}
        data["dropped"] = {
            reason: {"rows": len(ids), "first_ids": ids[:NAMED_IDS]}
            for reason, ids in sorted(self.dropped.items())
        }
        return data

    def lines(self) -> list[str]:
        """The report for people, one finding a line; what did not occur is left out."""
        out = [f"{self.importer}: {self.rows_read} rows read, {self.rows_kept} kept"]
        for reason, ids in sorted(self.dropped.items()):
            out.append(f"dropped {len(ids)}: {reason} ({joined(ids)})")
        counted: Mapping[str, int] = {
            "segments began below 0 and were clamped": self.negative_starts,
            "rows lack some of the five traits (masked per trait)": self.partly_missing_traits,
            "rows have an empty transcript": self.empty_texts,
            "marks and time codes stripped from transcripts": self.marks_stripped,
            "rows have their media": self.media_found,
            "rows have no media file (text and labels only)": self.media_missing,
        }
        out += [f"{count} {what}" for what, count in counted.items() if count]
        for title, kinds in (("media", self.media_kinds), ("transcripts", self.transcripts)):
            if kinds:
                out.append(f"{title}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()))
        if self.straddling_sources:
            reached = ", ".join(f"{n} clips of {s}" for s, n in self.straddling_clips.items())
            out.append(
                f"warning: {self.straddling_sources} sources lie in more than one split"
                + (f"; {reached} come from a source that is also in train" if reached else "")
            )
        return out + self.notes


def joined(ids: Sequence[str]) -> str:
    """The first ids, for people."""
    return ", ".join(ids[:NAMED_IDS]) + (", ..." if len(ids) > NAMED_IDS else "")


@dataclass(frozen=True)
class ImportResult:
    """A corpus (not yet written) and what happened on the way."""

    corpus: Corpus
    report: ImportReport
