"""Transcripts beside the index that they will be part of, one JSON line per clip.

A run that was killed goes on from here. A line counts only for the same media bytes, segment, model
and settings; the last line may be torn, since it is written when the power fails.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from mepr_shared.contract.files import flush
from mepr_shared.errors import DataError


@dataclass(frozen=True)
class Record:
    """What was found for one clip.

    Attributes:
        sample_id: the clip.
        input_sha256: of its media bytes and segment.
        model: key of the model and its settings.
        status, reason: as in the index.
        text: None where there is none.
        language, language_probability, confidence: as in `asr.Transcript`.
        segments: (start in s, end in s, text), counted from the start of the clip.
    """

    sample_id: str
    input_sha256: str
    model: str
    status: str
    reason: str = ""
    text: str | None = None
    language: str | None = None
    language_probability: float | None = None
    confidence: float | None = None
    segments: tuple[tuple[float, float, str], ...] = ()


class Journal:
    """The records of a run and of those before it.

    Args:
        path: the file; it is made where there is none.

    Raises:
        DataError: another process writes it, or a line in its middle is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._described: set[str] = set()
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._records = self._read()
        except BlockingIOError:
            self._file.close()
            raise DataError(
                f"another process is writing {path}", hint="wait until it has ended"
            ) from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def find(self, input_sha256: str, model: str) -> Record | None:
        """The record of the same input and model, whichever clip it was made for."""
        return self._records.get((input_sha256, model))

    def clear(self) -> None:
        """Forget everything."""
        self._records = {}
        self._described = set()
        self._file.truncate(0)

    def describe(self, model: str, spec: Mapping[str, Any]) -> None:
        """Write down what a model's key stands for."""
        if model not in self._described:
            self._write([{"model": model, "spec": dict(spec)}])
            self._described.add(model)

    def add(self, records: Iterable[Record]) -> None:
        """Append records; they are on the disk when this returns."""
        records = list(records)
        self._write([asdict(record) for record in records])
        self._records |= {(r.input_sha256, r.model): r for r in records}

    def _write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._file.write(text.encode())
        flush(self._file)

    def _read(self) -> dict[tuple[str, str], Record]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # Torn: what is appended must not continue it.
            self._file.truncate(whole)
        records = {}
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                found = json.loads(line)
                if "spec" in found:
                    self._described.add(found["model"])
                    continue
                record = _record(found)
                records[record.input_sha256, record.model] = record
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{self.path}, line {number} is no transcript: {error}",
                    hint="remove the line, or start anew with --overwrite",
                ) from None
        return records


def _record(found: Mapping[str, Any]) -> Record:
    values = {item.name: found[item.name] for item in fields(Record)}
    for name in ("sample_id", "input_sha256", "model", "status", "reason"):
        if not isinstance(values[name], str):
            raise TypeError(f"{name} is {values[name]!r}")
    if not isinstance(values["text"], str | None):
        raise TypeError(f"text is {values['text']!r}")
    segments = tuple(
        (float(start), float(end), str(text)) for start, end, text in found["segments"]
    )
    return Record(**{**values, "segments": segments})
