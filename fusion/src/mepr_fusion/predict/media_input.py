"""Looks at an input before anything is computed: is it media, is it small enough, what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mepr_fusion.predict.prediction import InputFacts
from mepr_shared.contract.files import sha256_file
from mepr_shared.errors import DataError
from mepr_shared.media.probe import MediaInfo, probe
from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.source import Source, decode_errors


@dataclass(frozen=True)
class Limits:
    """What is refused: longer than `seconds`, larger than `bytes`."""

    seconds: float = 3600.0
    bytes: int = 2 << 30


def check_input(path: Path, limits: Limits) -> InputFacts:
    """Key facts of a media file.

    Raises:
        DataError: no such file, empty, above a limit, no media, or neither sound nor picture.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no file")
    if not found.st_size:
        raise DataError(f"{path} is empty: 0 bytes")
    if found.st_size > limits.bytes:
        raise DataError(
            f"{path} is {_megabytes(found.st_size)}, more than the limit of "
            f"{_megabytes(limits.bytes)}",
            hint="--max-bytes raises it",
        )
    try:
        info = probe(path)
    except MediaProblem as problem:
        raise DataError(f"{path} is no media: {problem.reason}") from None
    if info.video is None and not info.audio:
        raise DataError(f"{path} has neither picture nor sound")
    duration_s = info.duration_s
    if duration_s is None and not info.is_image:
        duration_s = measured_s(path)
    facts = _facts(path, found.st_size, info, duration_s)
    if facts.duration_s is not None and facts.duration_s > limits.seconds:
        raise DataError(
            f"{path} is {facts.duration_s:.0f} s long, more than the limit of "
            f"{limits.seconds:.0f} s",
            hint="--max-seconds raises it",
        )
    return facts


def measured_s(path: Path) -> float | None:
    """Where the last packet ends: recordings of a browser do not say how long they are.

    Nothing is decoded. None where packets bear no times.
    """
    end_s = None
    with Source(path) as source, contextlib.suppress(*decode_errors()):
        for packet in source.container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                end_s = max(end_s or 0.0, end - source.origin_s)
    return end_s


def _facts(path: Path, size: int, info: MediaInfo, duration_s: float | None) -> InputFacts:
    video, audio = info.video, info.audio[0] if info.audio else None
    kind = "image" if info.is_image else "video" if video else "audio"
    return InputFacts(
        path=str(path),
        name=path.name,
        bytes=size,
        sha256=sha256_file(path),
        kind=kind,  # type: ignore[arg-type]
        duration_s=duration_s,
        width=video.width if video else None,
        height=video.height if video else None,
        frame_rate=video.frame_rate if video else None,
        video_codec=video.codec if video else None,
        audio_codec=audio.codec if audio else None,
        audio_rate=audio.rate if audio else None,
        audio_channels=audio.channels if audio else None,
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size} bytes"
