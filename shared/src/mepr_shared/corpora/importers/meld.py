"""MELD (Multimodal EmotionLines Dataset): utterances of dialogues with one of seven emotions.

`{train,dev,test}_sent_emo.csv`. The numbers of dialogues start anew in every split, so ids carry
the split. Times in the files are those of the whole episode and are not used.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.importers.transcript import read_text, repair_characters
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import EMOTIONS, EmotionScale, emotion_name

FILES = {"train": "train", "dev": "val", "test": "test"}
FIELDS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
LICENCE = "GPL-3.0 (MELD repository); transcripts of the series Friends"


def read(source: Path, *, name: str = "meld", strict: bool = False) -> ImportResult:
    """Import the folder that holds the official CSV files; a split without a file is empty.

    Args:
        source: the folder.
        name: of the corpus.
        strict: refuse impossible rows instead of dropping them.

    Raises:
        DataError: none of the files is there, a column is missing, an impossible row (strict).
    """
    report = ImportReport("meld", strict=strict)
    files = {part: source / f"{part}_sent_emo.csv" for part in FILES}
    if not any(path.is_file() for path in files.values()):
        raise DataError(
            f"{source} holds none of {', '.join(path.name for path in files.values())}",
            hint="give the folder with MELD's label files",
        )
    columns: dict[str, list] = {key: [] for key in _COLUMNS}
    emotions: list[int] = []
    seen: set[str] = set()
    for part, path in files.items():
        if not path.is_file():
            report.notes.append(f"no {path.name}: split {FILES[part]!r} is empty")
            continue
        for line, record in _records(path):
            report.rows_read += 1
            dialogue = f"{FILES[part]}_dia{record['Dialogue_ID'].strip()}"
            sample_id = f"{dialogue}_utt{record['Utterance_ID'].strip()}"
            where = f"{path.name}, line {line}"
            try:
                emotion = EMOTIONS.index(emotion_name(record["Emotion"]))
                order = int(record["Utterance_ID"])
            except (DataError, ValueError):
                report.drop(sample_id, "no such emotion, or no utterance number", where)
                continue
            if sample_id in seen:
                report.drop(sample_id, "id was read before", where, "duplicate_ids")
                continue
            seen.add(sample_id)
            text = " ".join(repair_characters(record["Utterance"]).split())
            report.empty_texts += not text
            speaker = repair_characters(record["Speaker"]).strip() or None
            row = (sample_id, FILES[part], dialogue, speaker, dialogue, order, text or None)
            for key, value in zip(_COLUMNS, row, strict=True):
                columns[key].append(value)
            emotions.append(emotion)
    if not emotions:
        raise DataError(f"{source}: no MELD utterance was left to import")
    report.rows_kept = len(emotions)
    report.note_straddling(columns["source_id"], columns["split"])
    one_hot = np.eye(len(EMOTIONS), dtype=np.float32)[emotions]
    meta = CorpusMeta(
        name,
        EmotionScale("single_label"),
        licence=LICENCE,
        import_report=report.to_dict(),
        notes=("source_id is the dialogue; the main speakers occur in every split",),
    )
    return ImportResult(Corpus.build(meta, {**columns, "emotion": one_hot}), report)


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [field for field in FIELDS if field not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    try:
        for record in reader:
            if any(record[field] is None for field in FIELDS):
                raise DataError(f"{path}, line {reader.line_num}: fewer fields than the header")
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None


_COLUMNS = (
    "sample_id",
    "split",
    "source_id",
    "speaker_id",
    "context_id",
    "context_order",
    "text",
)
