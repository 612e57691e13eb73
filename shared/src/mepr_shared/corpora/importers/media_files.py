"""Media files below a folder, by name: published corpora come flat, nested, and as links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mepr_shared.corpora.importers.report import NAMED_IDS, ImportReport, joined
from mepr_shared.errors import DataError

VIDEO = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"}
)
AUDIO = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"}
)


def is_video(path: Path) -> bool:
    """Whether a name says that the file holds pictures (and, as a rule, sound)."""
    return path.suffix.lower() in VIDEO


@dataclass(frozen=True)
class MediaFolder:
    """What lies below a folder.

    Attributes:
        folder: the folder.
        by_stem: file name without extension -> its files, video before sound, each in order of
            path.
        problems: what could not be looked at, in words.
    """

    folder: Path
    by_stem: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def get(self, stem: str) -> Path | None:
        """The best file of that name: video before sound, then the first in order of path."""
        return self.by_stem.get(stem, (None,))[0]

    def __iter__(self) -> Iterator[Path]:
        return (path for paths in self.by_stem.values() for path in paths)

    def report(self, report: ImportReport, stems: Iterable[str]) -> None:
        """Note what could not be looked at, and the names among `stems` that lie in two places."""
        report.notes += self.problems
        twice = [stem for stem in stems if self._has_rivals(stem)]
        if twice:
            report.notes.append(
                f"{len(twice)} names lie in more than one folder, the first in order of path is "
                f"taken: {joined(twice)}"
            )

    def _has_rivals(self, stem: str) -> bool:
        paths = self.by_stem.get(stem, ())
        rivals = {os.path.realpath(p) for p in paths if is_video(p) == is_video(paths[0])}
        return len(rivals) > 1


def find_media(folder: Path) -> MediaFolder:
    """All media files below a folder, told by their extension; links are followed, loops are not.

    Hidden files (also the `._` ones that macOS packs into archives) are no media.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder of media: {folder}")
    problems: list[str] = []
    unwritable: list[str] = []
    found: dict[str, list[Path]] = {}
    for path in _walk(folder, problems):
        if path.suffix.lower() not in VIDEO | AUDIO or path.name.startswith("."):
            continue
        if not path.is_file():
            problems.append(f"{printable(str(path))} is a link to nothing, or no file")
        elif not _is_text(str(path)):
            unwritable.append(printable(path.name))
        else:
            found.setdefault(path.stem, []).append(path)
    if unwritable:
        problems.append(f"left out, as their paths are not UTF-8: {joined(unwritable)}")
    by_stem = {
        stem: tuple(sorted(paths, key=lambda path: not is_video(path)))
        for stem, paths in found.items()
    }
    if len(problems) > NAMED_IDS:
        problems[NAMED_IDS:] = [f"{len(problems) - NAMED_IDS} more problems below {folder}"]
    return MediaFolder(folder, by_stem, tuple(problems))


def printable(text: str) -> str:
    """A file name as it can be shown on one line."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _walk(folder: Path, problems: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(f"cannot look into {printable(str(error.filename))}: {error.strerror}")

    seen = set()
    for parent, subfolders, files in os.walk(
        os.path.abspath(folder), followlinks=True, onerror=unreadable
    ):
        real = os.path.realpath(parent)
        if real in seen:  # a loop of links, or a second link to the same folder
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield from (Path(parent) / file for file in sorted(files))


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
