"""CMU-MOSEI's media: full videos, the sound of full videos, or pre-cut clips of the segments.

`start_s` and `end_s` lie in the full video, so that is the best there is; a pre-cut clip stands for
a segment where there is none, and then has no start and end of its own.

The official pre-cut clips `<video>_<n>` carry the numbers of the transcripts, which are not those
of the labels; clips cut from a label table carry the table's. Which it is shows in the numbers;
official clips without the transcripts are left alone, as most would get another segment's label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mepr_shared.corpora.importers.media_files import MediaFolder, is_video
from mepr_shared.corpora.importers.mosei_labels import Segment
from mepr_shared.corpora.importers.mosei_transcripts import Transcripts, plain_number
from mepr_shared.corpora.importers.report import ImportReport

_CUT = re.compile(r"(?P<video>.+)_(?P<number>\d+)", re.ASCII)


@dataclass(frozen=True)
class Media:
    """A segment's file, and whether it holds the full video."""

    path: Path
    full: bool

    @property
    def kind(self) -> str:
        video = is_video(self.path)
        if self.full:
            return "full videos" if video else "sound of full videos"
        return "pre-cut clips" if video else "sound of pre-cut clips"


def attach_media(
    folder: MediaFolder,
    segments: Iterable[Segment],
    labelled: Mapping[str, frozenset[str]],
    transcripts: Transcripts | None,
    report: ImportReport,
) -> dict[str, Media]:
    """The media of segments by `sample_id`; counted in the report.

    Args:
        folder: where to look.
        segments: the labels that are kept.
        labelled: video -> numbers of all its labels, dropped ones too.
        transcripts: where they are known.
        report: is told.
    """
    found: dict[str, Media] = {}
    used: set[str] = set()
    cut = _cut_clips(folder, labelled)
    spoken = transcripts.spoken if transcripts is not None else {}
    by_label = numbered_by_label(cut, labelled, transcripts.numbers if transcripts else {})
    unused = 0
    for segment in segments:
        sample_id, stem = segment.sample_id, segment.video
        if stem not in folder.by_stem:
            if by_label:
                number: str | None = plain_number(segment.number)
            else:
                number = spoken[sample_id].number if sample_id in spoken else None
                unused += number is None and segment.video in cut
            stem = cut.get(segment.video, {}).get(number or "", "")
        path = folder.get(stem)
        if path is not None:
            found[sample_id] = Media(path, stem == segment.video)
            used.add(stem)
    folder.report(report, sorted(used))
    if unused:
        report.notes.append(
            f"{unused} segments have no media though their video has pre-cut clips: these are not "
            "numbered like the labels; --transcripts FOLDER says which clip is which"
        )
    elif any(not media.full for media in found.values()):
        report.notes.append(
            "pre-cut clips were taken by the numbers of the "
            + ("labels" if by_label else "transcripts")
        )
    for media in found.values():
        report.media_kinds[media.kind] = report.media_kinds.get(media.kind, 0) + 1
    return found


def numbered_by_label(
    cut: Mapping[str, Mapping[str, str]],
    labelled: Mapping[str, frozenset[str]],
    transcribed: Mapping[str, frozenset[str]],
) -> bool:
    """Whether pre-cut clips carry the numbers of the labels (else those of the transcripts).

    Official clips are all there, also those that no label speaks of: a number beyond the labels'
    shows them. Where there is none although the transcripts know more, the clips were cut from the
    labels; where the transcripts know no more either, both are alike and the clips are taken for
    the official ones.

    Args:
        cut: video -> number -> file, of the clips that are there.
        labelled, transcribed: video -> numbers.
    """
    if any(cut[video].keys() - labelled[video] for video in cut):
        return False
    both = [video for video in cut if video in transcribed]
    return not both or any(transcribed[video] - labelled[video] for video in both)


def _cut_clips(
    folder: MediaFolder, labelled: Mapping[str, frozenset[str]]
) -> dict[str, dict[str, str]]:
    """Video -> number -> stem of a pre-cut clip; an id that looks like one is a full video."""
    cut: dict[str, dict[str, str]] = {}
    for stem in folder.by_stem:
        match = _CUT.fullmatch(stem)
        if match and stem not in labelled and match["video"] in labelled:
            cut.setdefault(match["video"], {}).setdefault(plain_number(match["number"]), stem)
    return cut
