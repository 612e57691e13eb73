"""ChaLearn First Impressions v2 in its official files.

`annotation_{training,validation,test}.pkl` hold one score per clip for five traits and
`interview`, `transcription_*.pkl` the transcripts. The column called "neuroticism" runs in the
direction of stability (r = +0.88 with the interview score) and becomes `emotional_stability`
unflipped. Clips are `<YouTube id>.<number>.mp4`, in sub-folders of 80 (75 for training,
`train-1/training80_01` ... `train-6/training80_75`; 25 each for `val-1/validation80_01` ... and
`test-1/test80_01` ...) or all together in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.corpora.importers import restricted_pickle
from mepr_shared.corpora.importers.media_files import find_media
from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.importers.transcript import strip_marks
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import DataError
from mepr_shared.labels import TRAITS

FILES = {"training": "train", "validation": "val", "test": "test"}
COLUMNS = {trait: trait for trait in TRAITS} | {"emotional_stability": "neuroticism"}
LICENCE = "research use (ChaLearn First Impressions v2 terms)"
_CLIP = re.compile(r"(?P<source>.+)\.\d+\.mp4$")


def read(
    source: Path, *, name: str = "fiv2", strict: bool = False, media: Path | None = None
) -> ImportResult:
    """Import the folder that holds the official pickles.

    Args:
        source: the folder.
        name: of the corpus.
        strict: refuse impossible rows instead of dropping them.
        media: the folder anywhere below which the clips lie; `source` where it is not given.

    Raises:
        DataError: no annotation there, an unreadable or hostile pickle, no such folder of media,
            an impossible row (strict).
    """
    report = ImportReport("fiv2", strict=strict)
    found = _label_files(source)
    clips = find_media(source if media is None else media)
    rows: dict[str, dict[str, Any]] = {}
    for part, split in FILES.items():
        if part not in found:
            report.notes.append(f"no annotation_{part}.pkl: split {split!r} is empty")
            continue
        annotation, transcription = found[part]
        scores = _read_scores(annotation) if annotation else {}
        texts = _read_texts(transcription) if transcription else {}
        where = (annotation or transcription or source).name
        if transcription is None:
            report.notes.append(f"no transcription_{part}.pkl: these clips have no text")
        for clip in sorted({*texts, *(clip for column in scores.values() for clip in column)}):
            report.rows_read += 1
            row = _row(clip, split, scores, texts, report, where)
            if row is None:
                continue
            if row["sample_id"] in rows:
                report.drop(row["sample_id"], "id was read before", where, "duplicate_ids")
                continue
            path = clips.get(row["sample_id"])
            row["media"] = str(path) if path else None
            rows[row["sample_id"]] = row
    clips.report(report, rows)
    return ImportResult(_corpus(list(rows.values()), name, report), report)


def _label_files(source: Path) -> dict[str, tuple[Path | None, Path | None]]:
    found = {}
    for part in FILES:
        pair = [source / f"{kind}_{part}.pkl" for kind in ("annotation", "transcription")]
        annotation, transcription = (path if path.is_file() else None for path in pair)
        # The annotation of the test split is held back: its transcripts alone are unlabelled rows.
        if annotation or (transcription and part == "test"):
            found[part] = (annotation, transcription)
    if not found:
        raise DataError(
            f"{source} holds none of annotation_{{{','.join(FILES)}}}.pkl",
            hint="give the folder with the official First Impressions v2 pickles",
        )
    return found


def _read_scores(path: Path) -> Mapping[str, Mapping[str, Any]]:
    data = restricted_pickle.load(path)
    wanted = set(COLUMNS.values())
    if not isinstance(data, dict) or not wanted <= data.keys():
        raise DataError(f"{path} is not an annotation file: expected {sorted(wanted)}")
    if not all(isinstance(data[key], dict) for key in wanted):
        raise DataError(f"{path}: every trait should map clip names to scores")
    return data


def _read_texts(path: Path) -> Mapping[str, str]:
    data = restricted_pickle.load(path)
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise DataError(f"{path} is not a transcription file: expected clip names and texts")
    return data


def _row(
    clip: str,
    split: str,
    scores: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, str],
    report: ImportReport,
    where: str,
) -> dict[str, Any] | None:
    match = _CLIP.match(clip)
    sample_id = clip.removesuffix(".mp4")
    if match is None:
        report.drop(sample_id, "not named <video>.<number>.mp4", where)
        return None
    values = {trait: _score(scores, column, clip) for trait, column in COLUMNS.items()}
    values["interview"] = _score(scores, "interview", clip)
    for field, value in values.items():
        if not (np.isnan(value) or 0 <= value <= 1):
            report.drop(sample_id, f"{field} is outside [0, 1]", where)
            return None
    traits = [values[trait] for trait in TRAITS]
    report.partly_missing_traits += 0 < int(np.isnan(traits).sum()) < len(TRAITS)
    text = None
    if clip in texts:
        text, marks = strip_marks(texts[clip])
        report.marks_stripped += marks
        report.empty_texts += not text
    return {
        "sample_id": sample_id,
        "split": split,
        "source_id": match["source"],
        "text": text or None,
        "traits": traits,
        "interview": values["interview"],
    }


def _score(scores: Mapping[str, Mapping[str, Any]], column: str, clip: str) -> float:
    value = scores.get(column, {}).get(clip)
    if value is None:
        return float("nan")
    # What is no number is as impossible a score as one outside [0, 1].
    return float(value) if isinstance(value, (int, float, np.number)) else float("inf")


def _corpus(rows: list[dict[str, Any]], name: str, report: ImportReport) -> Corpus:
    if not rows:
        raise DataError("no First Impressions clip was left to import")
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    columns["traits"] = np.array(columns["traits"], dtype=np.float32)
    report.rows_kept = len(rows)
    report.count_media(columns["media"])
    report.note_straddling(columns["source_id"], columns["split"])
    meta = CorpusMeta(
        name,
        licence=LICENCE,
        import_report=report.to_dict(),
        notes=("FIv2's 'neuroticism' is imported as emotional_stability, unflipped",),
    )
    return Corpus.build(meta, columns)
