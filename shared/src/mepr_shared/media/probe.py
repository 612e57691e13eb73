"""What a media file holds, without decoding more than one picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mepr_shared.media.orientation import orientation
from mepr_shared.media.problem import MediaProblem
from mepr_shared.media.source import Source, decode_errors

if TYPE_CHECKING:
    from av.stream import Stream


@dataclass(frozen=True)
class AudioStream:
    """One audio stream.

    Attributes:
        index: its number in the file.
        codec: FFmpeg's name.
        rate: samples per second.
        start_s, duration_s: on the file's timeline, in seconds; None where nobody says.
    """

    index: int
    codec: str
    rate: int
    channels: int
    start_s: float | None
    duration_s: float | None


@dataclass(frozen=True)
class VideoStream:
    """The video stream, or the picture.

    Attributes:
        codec: FFmpeg's name.
        width, height: in pixels, as shown: after rotation.
        rotation: degrees clockwise (0, 90, 180, 270) by which stored pictures are turned.
        frame_rate: frames per second on average; None where unknown and for a picture.
        frames: how many there are, where the container says so.
        start_s, duration_s: on the file's timeline, in seconds; None where nobody says.
    """

    codec: str
    width: int
    height: int
    rotation: int
    frame_rate: float | None
    frames: int | None
    start_s: float | None
    duration_s: float | None


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
        duration_s: length in seconds; None for a picture and where unknown.
        audio: all audio streams.
        video: the video stream that a player shows; cover art is none.
        is_image: whether the file is a single picture.
    """

    duration_s: float | None
    audio: tuple[AudioStream, ...]
    video: VideoStream | None
    is_image: bool


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Look into a media file.

    Raises:
        MediaProblem: `no_media` where there is no file that can be read; `decode_error` where it
            holds no media, or pictures too large to be decoded.
    """
    with Source(path) as source:
        try:
            video = _video(source)
        except MediaProblem as problem:
            if problem.status != "no_video":
                raise
            video = None
        audio = tuple(
            AudioStream(
                stream.index,
                stream.codec_context.name,
                stream.codec_context.sample_rate,
                stream.codec_context.channels,
                *_times(source, stream),
            )
            for stream in source.container.streams.audio
            if stream.codec_context is not None
        )
        return MediaInfo(source.duration_s, audio, video, source.is_image)


def _video(source: Source) -> VideoStream:
    source.choose_video()
    stream = source.stream
    context = stream.codec_context
    width, height, rotation = context.width, context.height, 0
    try:
        # The rotation comes with the first picture.
        frame = next((f for packet in source.demux() for f in packet.decode()), None)
    except decode_errors():
        frame = None
    if frame is not None:
        width, height, rotation = frame.width, frame.height, orientation(frame).rotation
    if rotation in (90, 270):
        width, height = height, width
    frame_rate = None if source.is_image else stream.average_rate or stream.guessed_rate
    start_s, duration_s = _times(source, stream)
    return VideoStream(
        context.name,
        width,
        height,
        rotation,
        float(frame_rate) if frame_rate else None,
        1 if source.is_image else stream.frames or None,
        start_s,
        None if source.is_image else duration_s,
    )


def _times(source: Source, stream: Stream) -> tuple[float | None, float | None]:
    start, duration = stream.start_time, stream.duration
    tick = stream.time_base or 0
    return (
        None if start is None else float(start * tick) - source.origin_s,
        None if duration is None else float(duration * tick),
    )
