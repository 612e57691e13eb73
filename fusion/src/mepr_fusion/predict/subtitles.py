"""SubRip subtitles (`.srt`) as timed text."""

from __future__ import annotations

import re
from pathlib import Path

from mepr_shared.errors import DataError

_TIME = r"(\d+):([0-5]?\d):([0-5]?\d)[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


def read_srt(path: Path) -> tuple[tuple[float, float, str], ...]:
    """(start in s, end in s, text) of each subtitle, in order of time, without markup.

    Raises:
        DataError: no such file, no UTF-8, or no subtitle in it.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8", hint="iconv -t UTF-8 converts it") from None
    found: list[tuple[float, float, str]] = []
    for number, line in enumerate(lines):
        times = _TIMES.match(line)
        if not times:
            continue
        start, end = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
        if end < start:
            raise DataError(f"{path}, line {number + 1}: the subtitle ends before it starts")
        text = []
        for following in lines[number + 1 :]:
            if not following.strip():
                break
            text.append(_MARKUP.sub("", following).strip())
        found.append((start, end, " ".join(part for part in text if part)))
    if not found:
        raise DataError(
            f"{path} holds no subtitles", hint="1 / 00:00:00,000 --> 00:00:02,000 / words"
        )
    return tuple(sorted(found))


def _seconds(parts: tuple[str, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
