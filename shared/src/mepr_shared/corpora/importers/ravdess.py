"""RAVDESS (Livingstone & Russo 2018): everything is in the file names.

`MM-VC-EE-II-SS-RR-AA.ext`: modality, vocal channel, emotion, intensity, statement, repetition and
actor, in the official folders (`Actor_01`, `Video_Speech_Actor_01`, ...) or any others. Calm counts
as neutral: seven classes, not comparable with the eight of most papers.

A take may be there with sound and picture (01), as sound alone (03) and as picture alone (02):
one row stands for it, of the first of these. The same actor is never in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mepr_shared.corpora.importers.media_files import MediaFolder, find_media, printable
from mepr_shared.corpora.importers.report import ImportReport, ImportResult
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.errors import ConfigError, DataError
from mepr_shared.labels import EMOTIONS, EmotionScale, emotion_name

ACTORS = range(1, 25)
VAL, TEST = frozenset(range(17, 21)), frozenset(range(21, 25))
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
LICENCE = "CC BY-NC-SA 4.0 (RAVDESS)"

_FULL, _PICTURE, _SOUND = "01", "02", "03"
_SONG = "02"
_PREFERENCE = (_FULL, _SOUND, _PICTURE)
_EMOTIONS = dict(
    zip(
        (f"{number:02}" for number in range(1, 9)),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
        strict=True,
    )
)
_CHANNELS = {"01": "speech", "02": "song"}
_INTENSITIES = {"01": "normal", "02": "strong"}
_SUBJECTS = {"01": "kids", "02": "dogs"}
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)", re.ASCII)
_FIELDS = {
    "modality": _PREFERENCE,
    "vocal channel": _CHANNELS,
    "emotion": _EMOTIONS,
    "intensity": _INTENSITIES,
    "statement": STATEMENTS,
    "repetition": ("01", "02"),
    "actor": frozenset(f"{number:02}" for number in ACTORS),
}


@dataclass(frozen=True)
class Clip:
    """A file name taken apart; the fields are the two digits of the name."""

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    actor: str

    @property
    def sample_id(self) -> str:
        return "-".join((self.modality, *self.take))

    @property
    def take(self) -> tuple[str, ...]:
        """What the clip shows, however it was recorded."""
        return (
            *(self.channel, self.emotion, self.intensity),
            *(self.statement, self.repetition, self.actor),
        )


def read(
    source: Path,
    *,
    name: str = "ravdess",
    strict: bool = False,
    songs: bool = False,
    video_only: bool = False,
    statements: bool = False,
    val: Collection[int] | None = None,
    test: Collection[int] | None = None,
) -> ImportResult:
    """Import all clips below a folder.

    Args:
        source: the folder.
        name: of the corpus.
        strict: refuse files with an impossible name and clips that are there twice, instead of
            leaving them out.
        songs: keep the songs too.
        video_only: keep a take that is only there without its sound.
        statements: give the two sentences as text; they say nothing about the emotion.
        val, test: actors of these splits (17-20 and 21-24, less those that the other one was
            given); all others are training.

    Raises:
        DataError: no such folder, no clip in it, an impossible name or a second copy (strict).
        ConfigError: an actor in both splits, or one that there is not.
    """
    split_of = _splits(val, test)
    report = ImportReport("ravdess", strict=strict)
    if not source.is_dir():
        raise DataError(f"{source} is no folder", hint="give the one that holds the clips")
    media = find_media(source)
    report.notes += media.problems
    clips = _clips(media, report)
    kept = _selected(clips, report, songs=songs, video_only=video_only)
    if not kept:
        raise DataError(
            f"{source} holds no RAVDESS clip"
            + (
                f" that was asked for; left out: {'; '.join(report.dropped)}"
                if media.by_stem
                else ""
            ),
            hint="clips are named like 03-01-05-02-01-02-14.wav",
        )
    _note_empty_splits(report, kept, split_of)
    return ImportResult(
        _corpus(name, [(clip, clips[clip]) for clip in kept], split_of, report, statements), report
    )


def _splits(val: Collection[int] | None, test: Collection[int] | None) -> dict[int, str]:
    """Actor -> split."""
    strangers = sorted({*(val or ()), *(test or ())} - set(ACTORS))
    if strangers:
        raise ConfigError(f"RAVDESS has no actor {strangers[0]}", hint="actors are 1 to 24")
    both = sorted(set(val or ()) & set(test or ()))
    if both:
        raise ConfigError(f"actor {both[0]} cannot be in val and in test")
    chosen_val = set(VAL) - set(test or ()) if val is None else set(val)
    chosen_test = set(TEST) - set(val or ()) if test is None else set(test)
    return {
        actor: "val" if actor in chosen_val else "test" if actor in chosen_test else "train"
        for actor in ACTORS
    }


def _clips(media: MediaFolder, report: ImportReport) -> dict[Clip, Path]:
    """All clips by their names; what is wrong with the others is reported."""
    clips: dict[Clip, Path] = {}
    for path in sorted(media):
        report.rows_read += 1
        stem, where = printable(path.stem), printable(path.name)
        match = _NAME.fullmatch(path.stem)
        if match is None:
            reason = "the file name is not seven two-digit numbers (MM-VC-EE-II-SS-RR-AA)"
            report.drop(stem, reason, where, "unknown_names")
            continue
        wrong = [
            field
            for (field, known), value in zip(_FIELDS.items(), match.groups(), strict=True)
            if value not in known
        ]
        clip = Clip(*match.groups())
        if wrong:
            report.drop(stem, f"RAVDESS has no such {wrong[0]}", where)
        elif clip in clips:
            report.drop(stem, "the same clip was read before", str(path), "duplicate_ids")
        else:
            clips[clip] = path
    return clips


def _selected(
    clips: Collection[Clip], report: ImportReport, *, songs: bool, video_only: bool
) -> list[Clip]:
    """One clip of each take that was asked for."""
    takes: dict[tuple[str, ...], Clip] = {}
    for clip in sorted(clips, key=lambda clip: _PREFERENCE.index(clip.modality)):
        first = takes.get(clip.take)
        if clip.channel == _SONG and not songs:
            report.leave_out(clip.sample_id, "songs (--songs keeps them)")
        elif first is not None:
            with_it = "with sound and picture" if first.modality == _FULL else "with sound"
            report.leave_out(clip.sample_id, f"the same take is there {with_it}")
        elif clip.modality == _PICTURE and not video_only:
            report.leave_out(clip.sample_id, "pictures without sound (--video-only keeps them)")
        else:
            takes[clip.take] = clip
    return list(takes.values())


def _note_empty_splits(report: ImportReport, kept: list[Clip], split_of: dict[int, str]) -> None:
    present = {split_of[int(clip.actor)] for clip in kept}
    for split in ("train", "val", "test"):
        actors = [actor for actor, where in split_of.items() if where == split]
        if actors and split not in present:
            named = ", ".join(map(str, actors))
            report.notes.append(f"no clip of the actors {named}: split {split!r} is empty")


def _corpus(
    name: str,
    clips: list[tuple[Clip, Path]],
    split_of: dict[int, str],
    report: ImportReport,
    statements: bool,
) -> Corpus:
    names = [f"actor_{clip.actor}" for clip, _ in clips]
    emotions = [EMOTIONS.index(emotion_name(_EMOTIONS[clip.emotion])) for clip, _ in clips]
    columns: dict[str, Any] = {
        "sample_id": [clip.sample_id for clip, _ in clips],
        "split": [split_of[int(clip.actor)] for clip, _ in clips],
        "source_id": names,
        "speaker_id": names,
        "media": [str(path) for _, path in clips],
        "emotion": np.eye(len(EMOTIONS), dtype=np.float32)[emotions],
        "group_gender": ["male" if int(clip.actor) % 2 else "female" for clip, _ in clips],
        "group_intensity": [_INTENSITIES[clip.intensity] for clip, _ in clips],
        "group_statement": [_SUBJECTS[clip.statement] for clip, _ in clips],
        "group_channel": [_CHANNELS[clip.channel] for clip, _ in clips],
    }
    if statements:
        columns["text"] = [STATEMENTS[clip.statement] for clip, _ in clips]
    report.rows_kept = len(clips)
    report.count_media(columns["media"])
    report.media_kinds = _kinds([clip for clip, _ in clips])
    report.note_straddling(names, columns["split"])
    meta = CorpusMeta(
        name,
        EmotionScale("single_label"),
        licence=LICENCE,
        import_report=report.to_dict(),
        notes=("calm counts as neutral: 7 classes, not comparable with 8-class papers",),
    )
    return Corpus.build(meta, columns)


def _kinds(clips: list[Clip]) -> dict[str, int]:
    names = {_FULL: "with sound and picture", _SOUND: "sound alone", _PICTURE: "picture alone"}
    counts = {title: sum(c.modality == kind for c in clips) for kind, title in names.items()}
    return {title: count for title, count in counts.items() if count}
