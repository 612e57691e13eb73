"""Why a media file gives nothing: a status of the contract and a line for people."""

from __future__ import annotations

import math

# Containers round their durations, and the last packet of a codec is seldom full.
END_TOLERANCE_S = 0.1


class MediaProblem(Exception):
    """Media that cannot be used. It becomes a row with a status, never the end of a run.

    Args:
        status: one of `contract.statuses.STATUSES`: `no_media`, `no_audio`, `no_video`,
            `decode_error` or `too_short`.
        reason: one line for people, without the path.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Tally:
    """Mishaps of one kind while a file is read: the first in words, the others counted."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._first = ""
        self._count = 0

    def add(self, words: str) -> None:
        """One more."""
        self._first = self._first or words
        self._count += 1

    def __str__(self) -> str:
        """All of them in a few words; empty where there is none."""
        if not self._count:
            return ""
        more = f" and {self._count - 1} more" if self._count > 1 else ""
        return f"{self._what} {self._first}{more}"


def checked_segment(start_s: float | None, end_s: float | None) -> tuple[float, float]:
    """The segment asked for, in seconds: from 0 where no start is given, to infinity without end.

    Raises:
        MediaProblem: `too_short` where it holds no time (a NaN holds none).
    """
    start = 0.0 if start_s is None or start_s < 0 else start_s
    end = end_s if end_s is not None else math.inf
    if not (math.isfinite(start) and start < end):
        raise MediaProblem(
            "too_short", f"the segment starts at {start:.3f} s and ends at {end:.3f} s"
        )
    return start, end


def nothing_there(
    what: str, start_s: float, end_s: float, declared_s: float | None
) -> MediaProblem:
    """The problem of a segment that starts where a stream has ended.

    Args:
        what: "audio" or "video".
        end_s: where what can be decoded ends.
        declared_s: where the container says that the stream ends, if it says so exactly.
    """
    if declared_s is not None and declared_s - max(start_s, end_s) > END_TOLERANCE_S:
        return MediaProblem("decode_error", _cut(what, end_s, declared_s))
    starts = f"the segment starts at {start_s:.3f} s"
    return MediaProblem(
        "too_short", f"{starts}, the {what} ends at {max(end_s, declared_s or 0.0):.3f} s"
    )


def stops_early(what: str, end_s: float, wanted_s: float, declared_s: float | None) -> str:
    """What is missing at the end of a stream; empty where nothing worth a word is.

    Args:
        what, end_s, declared_s: as in `nothing_there`.
        wanted_s: the end asked for, infinite for the whole file.
    """
    if declared_s is not None and min(declared_s, wanted_s) - end_s > END_TOLERANCE_S:
        return _cut(what, end_s, declared_s)
    if math.isfinite(wanted_s) and wanted_s - end_s > END_TOLERANCE_S:
        return f"the {what} ends at {end_s:.2f} s, before the segment's end at {wanted_s:.2f} s"
    return ""


def _cut(what: str, end_s: float, declared_s: float) -> str:
    return f"the {what} stops at {end_s:.2f} s, the file declares {declared_s:.2f} s"
