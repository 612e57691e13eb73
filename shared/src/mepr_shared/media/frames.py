"""Frames of a video, uniform in time: only those that are asked for become RGB."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mepr_shared.errors import require
from mepr_shared.media.frame_decode import SEEK_GAP_S, VideoDecoder
from mepr_shared.media.frame_index import (
    FrameIndex,
    choose,
    count_index,
    frame_interval,
    packets_from,
    read_index,
    shown_between,
    uniform,
)
from mepr_shared.media.orientation import orientation
from mepr_shared.media.problem import MediaProblem, checked_segment, nothing_there, stops_early
from mepr_shared.media.source import Source, decode_errors, describe

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Frames:
    """What was taken.

    Attributes:
        images: RGB, uint8 `[H, W, 3]` each, as shown (rotated), in order of time.
        time_s: float32 `[N]`: when each appears, in seconds since the start of the file.
        status: a status of the contract.
        reason: one line for people; empty where all is well.
    """

    images: list[np.ndarray]
    time_s: np.ndarray
    status: str
    reason: str = ""


def sample_frames(
    path: str | os.PathLike[str],
    count: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    size: int | None = None,
) -> Frames:
    """Take frames uniformly in time. Bad media gives a status and a reason, never an exception.

    The first is the frame on screen at the start; the others are those on screen every
    `(end - start) / count` seconds after. Where there are fewer frames than asked for, all are
    taken; a picture is one frame.

    Args:
        path: a video or a picture.
        count: how many frames.
        start_s, end_s: segment in seconds; the whole file without. Negative starts count as 0.
        size: larger frames are reduced to this longest side, in pixels, while they are converted.

    Raises:
        ValueError: `count` or `size` below 1.
    """
    if count < 1 or (size is not None and size < 1):
        raise ValueError(f"{count} frames of size {size} cannot be taken")
    try:
        segment = checked_segment(start_s, end_s)
        with contextlib.closing(_Sampler(path, size)) as sampler:
            problem = sampler.take(count, *segment)
    except MediaProblem as failure:
        return Frames([], np.zeros(0, np.float32), failure.status, failure.reason)
    times_s = np.array(sampler.times_s, np.float32)
    return Frames(sampler.images, times_s, "partial" if problem else "ok", problem)


class _Sampler:
    """Takes frames of one file.

    Attributes:
        images, times_s: what was taken so far.
    """

    def __init__(self, path: str | os.PathLike[str], size: int | None) -> None:
        self.images: list[np.ndarray] = []
        self.times_s: list[float] = []
        self._size = size
        self._unconverted = ""
        self._source = Source(path)
        try:
            self._source.choose_video()
        except BaseException:
            self._source.close()
            raise
        self._decoder = VideoDecoder(self._source)

    def close(self) -> None:
        self._source.close()

    def take(self, count: int, start_s: float, end_s: float) -> str:
        """Fill `images`; gives what is wrong with them in words, if something is."""
        length_s = self._source.duration_s
        until_s = end_s if length_s is None else min(end_s, length_s)
        if count * SEEK_GAP_S < until_s - start_s < math.inf:
            problem = self._walk(uniform(start_s, until_s, count))
        else:
            problem = self._pick(count, start_s, end_s)
        if not self.images:
            raise MediaProblem("decode_error", f"no frame could be decoded: {problem or 'no data'}")
        return problem

    def _pick(self, count: int, start_s: float, end_s: float) -> str:
        """Look at all packets of the segment, then decode what the chosen frames need."""
        index = read_index(self._source, start_s, end_s)
        if index is None or not index.stamps:
            self._source.restart()
            index = count_index(self._source)
        wanted = self._choose(index, count, start_s, end_s)
        packets: Iterable[Packet] | None = index.packets
        if packets is None:
            self._source.restart()
            packets = packets_from(self._source, 0 if index.counted else start_s)
        self._keep(self._decoder.pick(index, packets, set(wanted)))
        declared_s = self._source.declared_end_s()
        ending = stops_early("video", index.end_s, end_s, declared_s)
        problem = self._problem(index.trouble, ending)
        if len(self.images) < len(wanted) and not problem:
            # Frames that bear other stamps than their packets, as those of some interlaced video.
            self.images.clear()
            self.times_s.clear()
            self._source.restart()
            problem = self._walk(self._seconds(wanted))
        return problem

    def _choose(self, index: FrameIndex, count: int, start_s: float, end_s: float) -> list[int]:
        """The stamps of the frames to take."""
        stamps = sorted(s for s, shown in zip(index.stamps, index.shown, strict=True) if shown)
        if not stamps:
            raise MediaProblem("decode_error", f"no frame found: {index.trouble or 'no data'}")
        if start_s >= index.end_s:
            declared_s = self._source.declared_end_s()
            raise nothing_there("video", start_s, index.end_s, declared_s)
        times_s = self._seconds(stamps)
        inside = shown_between(times_s, start_s, end_s)
        if not len(inside):
            starts = f"the video starts at {times_s[0]:.3f} s"
            raise MediaProblem("too_short", f"the segment ends at {end_s:.3f} s, {starts}")
        chosen = inside[choose(times_s[inside], count, min(end_s, index.end_s))]
        return [stamps[position] for position in chosen]

    def _walk(self, times_s: np.ndarray) -> str:
        self._keep(self._decoder.walk(times_s.tolist()))
        ends_s = self._decoder.last_s + frame_interval(self._source) * self._source.tick_s
        declared_s = self._source.declared_end_s()
        return self._problem(stops_early("video", ends_s, float(times_s[-1]), declared_s))

    def _problem(self, *parts: str) -> str:
        """What went wrong with the frames taken, in one line."""
        return "; ".join(p for p in (self._decoder.damage, self._unconverted, *parts) if p)

    def _keep(self, frames: Iterator[tuple[int, VideoFrame]]) -> None:
        # One for all frames: it keeps its tables.
        reformatter = require("av.video.reformatter", extra="mepr-shared[media]").VideoReformatter()
        for stamp, frame in frames:
            longest = max(frame.width, frame.height)
            scale = min(1.0, (self._size or longest) / longest)
            try:
                rgb = reformatter.reformat(
                    frame,
                    width=max(1, round(frame.width * scale)),
                    height=max(1, round(frame.height * scale)),
                    format="rgb24",
                    interpolation="BICUBIC",
                ).to_ndarray()
            except decode_errors() as error:
                self._unconverted = f"a frame cannot be converted to RGB ({describe(error)})"
                continue
            self.images.append(orientation(frame).turn(rgb))
            self.times_s.append(self._source.seconds(stamp))

    def _seconds(self, stamps: list[int]) -> np.ndarray:
        return np.array([self._source.seconds(stamp) for stamp in stamps])
