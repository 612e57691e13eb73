"""What is said in CMU-MOSEI's segments, from the official files.

Either the folder of segmented transcripts (`Transcript/Segmented/Combined/<video>.txt`, lines
`<video>___<n>___<start>___<end>___<text>`) or the CMU SDK's `CMU_MOSEI_TimestampedWords.csd`.

The transcripts number all segments of a video, the labels only the labelled ones, in another order:
a line belongs to a label by its time, not by its number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mepr_shared.corpora.importers.csd import VideoSequence, sequences
from mepr_shared.corpora.importers.media_files import printable
from mepr_shared.corpora.importers.mosei_labels import Segment
from mepr_shared.corpora.importers.report import ImportReport
from mepr_shared.corpora.importers.transcript import read_text, repair_characters, strip_marks
from mepr_shared.errors import DataError

WORDS_FILE = "CMU_MOSEI_TimestampedWords.csd"
FOLDERS = (
    ".",
    "Segmented/Combined",
    "Transcript/Segmented/Combined",
    "Raw/Transcript/Segmented/Combined",
)
PAUSE = "sp"
# Two stretches are one from this share of their joint time on; neighbours in the labels reach .63.
SAME = 0.65


@dataclass(frozen=True)
class Spoken:
    """What a segment's transcript is.

    Attributes:
        text: without marks; None where nothing is said.
        number: of the segment in the official transcripts, which is also that of the official
            pre-cut clips; None from timed words.
    """

    text: str | None
    number: str | None = None


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of the segments that have one.

    Attributes:
        spoken: sample_id -> transcript.
        numbers: video -> all numbers that the segmented transcripts know; empty from timed words.
    """

    spoken: Mapping[str, Spoken]
    numbers: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Line:
    """A line of a segmented transcript; times in s, NaN where it states none."""

    number: str
    start_s: float
    end_s: float
    text: str


def read_transcripts(path: Path, segments: Iterable[Segment], report: ImportReport) -> Transcripts:
    """The transcripts of labelled segments; what was not found is counted in the report.

    Args:
        path: the folder of segmented transcripts (or `Raw`, or what `Raw` is in), or the `.csd`
            file of timed words (or the folder that holds it).
        segments: the labels.
        report: is told.

    Raises:
        DataError: neither of both, a broken file, a line that is none (strict).
        MissingDependency: a `.csd` file without h5py.
    """
    by_video: dict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_video[segment.video].append(segment)
    words = path / WORDS_FILE if path.is_dir() else path
    folder = next((path / name for name in FOLDERS if any((path / name).glob("*.txt"))), None)
    if folder is not None:
        return _from_lines(folder, by_video, report)
    if words.suffix == ".csd" and words.is_file():
        return _from_words(words, by_video, report)
    raise DataError(
        f"{path} holds no transcripts of CMU-MOSEI",
        hint=f"give the folder Transcript/Segmented/Combined, or {WORDS_FILE}",
    )


def plain_number(number: str) -> str:
    """A segment's number in its shortest form."""
    return str(int(number)) if number.isdecimal() else number


def _from_lines(
    folder: Path, by_video: Mapping[str, list[Segment]], report: ImportReport
) -> Transcripts:
    spoken: dict[str, Spoken] = {}
    numbers: dict[str, frozenset[str]] = {}
    counts = {"by time": 0, "by number": 0, "missing": 0}
    without_file = 0
    broken: list[str] = []
    for video, segments in by_video.items():
        path = folder / f"{video}.txt"
        if not path.is_file():
            without_file += 1
            counts["missing"] += len(segments)
            continue
        lines = list(_lines(path, broken))
        numbers[video] = frozenset(line.number for line in lines)
        for segment in segments:
            line, how = _line_of(segment, lines)
            counts[how] += 1
            if line is not None:
                text = _clean(line.text, report)
                spoken[segment.sample_id] = Spoken(text, line.number)
    if broken:
        if report.strict or not spoken:
            raise DataError(
                f"{broken[0]}: no <video>___<n>___<start>___<end>___<text>",
                hint="segmented transcripts of CMU-MOSEI look like this",
            )
        report.notes.append(f"{len(broken)} lines are no transcripts, the first: {broken[0]}")
    if without_file:
        report.notes.append(f"{without_file} videos have no file in {folder}")
    report.transcripts = counts
    return Transcripts(spoken, numbers)


def _lines(path: Path, broken: list[str]) -> Iterator[Line]:
    # Not splitlines(): ids and texts may hold characters that it takes for line ends.
    for number, row in enumerate(read_text(path).split("\n"), start=1):
        row = row.strip()
        # The id comes off first: it may itself hold or end in underscores.
        fields = row.removeprefix(path.stem + "___").split("___", 3)
        if row.startswith(path.stem + "___") and len(fields) == 4:
            start_s, end_s = _seconds(fields[1]), _seconds(fields[2])
            yield Line(plain_number(fields[0].strip()), start_s, end_s, fields[3])
        elif row:
            broken.append(f"{printable(path.name)}, line {number}")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _line_of(segment: Segment, lines: list[Line]) -> tuple[Line | None, str]:
    """A segment's line: the same time; the same number only where the line states no time."""
    best = max(lines, key=lambda line: _overlap(segment, line), default=None)
    if best is not None and _overlap(segment, best) >= SAME:
        return best, "by time"
    for line in lines:
        timeless = not line.start_s < line.end_s
        if timeless and line.number == plain_number(segment.number):
            return line, "by number"
    return None, "missing"


def _overlap(segment: Segment, line: Line) -> float:
    """Common time by the time that either takes; 0 for a line without times."""
    if not line.start_s < line.end_s:
        return 0.0
    common = min(segment.end_s, line.end_s) - max(segment.start_s, line.start_s)
    either = max(segment.end_s, line.end_s) - min(segment.start_s, line.start_s)
    return max(0.0, common) / either


def _from_words(
    path: Path, by_video: Mapping[str, list[Segment]], report: ImportReport
) -> Transcripts:
    spoken: dict[str, Spoken] = {}
    without = set(by_video)
    for found in sequences(path, by_video):
        without.discard(found.video)
        words, middles = _words(found)
        for segment in by_video[found.video]:
            inside = (middles >= segment.start_s) & (middles < segment.end_s)
            said = " ".join(words[row] for row in np.flatnonzero(inside))
            spoken[segment.sample_id] = Spoken(_clean(said, report))
    missing = sum(map(len, by_video.values())) - len(spoken)
    report.transcripts = {"from timed words": len(spoken), "missing": missing}
    if without:
        report.notes.append(f"{len(without)} videos have no words in {path.name}")
    return Transcripts(spoken, {})


def _words(found: VideoSequence) -> tuple[list[str], np.ndarray]:
    """Words in order of time and the middle of each in s; pauses are no words."""
    features = found.features
    if features.dtype.kind not in "SO" or features.ndim > 2 or features.size != len(features):
        raise DataError(
            f"{found.where}: features {features.shape} of {features.dtype} are no words",
            hint=f"the words are in {WORDS_FILE}",
        )
    middles = found.intervals.mean(axis=1)
    order = np.argsort(middles, kind="stable")
    pairs = [(_word(features.reshape(-1)[row]), middles[row]) for row in order]
    pairs = [(word, middle) for word, middle in pairs if word not in ("", PAUSE)]
    return [word for word, _ in pairs], np.array([middle for _, middle in pairs])


def _word(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").strip()
        except UnicodeDecodeError:
            return value.decode("cp1252", "replace").strip()
    return str(value).strip()


def _clean(text: str, report: ImportReport) -> str | None:
    text, marks = strip_marks(" ".join(repair_characters(text).split()))
    report.marks_stripped += marks
    report.empty_texts += not text
    return text or None
