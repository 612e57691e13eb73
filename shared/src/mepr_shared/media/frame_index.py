"""Where the frames of a video lie: which ones to take, and what must be decoded to get them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mepr_shared.media.source import Source, decode_errors, describe

if TYPE_CHECKING:
    from av.packet import Packet

# Compressed packets are kept between looking and decoding while they fit in here.
KEPT_BYTES = 64 << 20
# A frame is decoded at most so much before its turn to be shown.
_REORDER_S = 1.0
_EPSILON_S = 1e-6


@dataclass
class FrameIndex:
    """The packets of a video from a key frame before a segment to the segment's end.

    Attributes:
        stamps, keys, shown: per packet in decoding order: its presentation time stamp; whether
            decoding can begin there; False where the container has cut the frame away, so that it
            only serves others.
        counted: there are no time stamps; `stamps` are those of frames in the order of showing.
        end_s: where the last frame ends.
        packets: the packets, or None where they are too many to keep; `bytes` in all.
        trouble: what ended the reading too soon; empty where nothing did.
    """

    stamps: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    counted: bool = False
    end_s: float = 0.0
    packets: list[Packet] | None = field(default_factory=list)
    bytes: int = 0
    trouble: str = ""


def read_index(source: Source, start_s: float, end_s: float) -> FrameIndex | None:
    """Read the packets of a segment without decoding them; None where one has no time stamp."""
    index = FrameIndex()
    tick_s, interval = source.tick_s, frame_interval(source)
    try:
        for packet in packets_from(source, start_s):
            if packet.pts is None:
                if packet.size:
                    return None
                break
            # Nothing that this packet or a later one holds is shown before this time.
            decoded_s = packet.pts * tick_s - _REORDER_S
            if packet.dts is not None:
                decoded_s = packet.dts * tick_s
            if decoded_s - source.origin_s > end_s:
                break
            _add(index, packet, packet.pts)
            last = packet.pts + (packet.duration or interval)
            index.end_s = max(index.end_s, last * tick_s - source.origin_s)
    except decode_errors() as error:
        index.trouble = describe(error)
    return index


def count_index(source: Source) -> FrameIndex:
    """Count the packets of a video without time stamps: the frame rate makes up for them.

    Args:
        source: just opened.
    """
    index = FrameIndex(counted=True)
    interval = frame_interval(source)
    try:
        for packet in source.demux():
            if packet.size:
                _add(index, packet, len(index.stamps) * interval)
    except decode_errors() as error:
        index.trouble = describe(error)
    index.end_s = source.seconds(len(index.stamps) * interval)
    return index


def packets_from(source: Source, start_s: float) -> Iterator[Packet]:
    """Packets from a key frame on that is shown at or before a time; where that cannot be sought,
    from the beginning.

    Args:
        source: at its beginning, where `start_s` is 0.
    """
    # Some containers find a place by the time of decoding, and the picture there is shown later;
    # others land between key frames.
    for margin_s in (0.0, _REORDER_S, 10 * _REORDER_S):
        if start_s <= margin_s or not source.seek(start_s - margin_s):
            continue
        packets = source.demux()
        for packet in packets:
            if packet.pts is None or source.seconds(packet.pts) > start_s:
                break
            if packet.is_keyframe:
                return itertools.chain([packet], packets)
        packets.close()
    if start_s > 0:
        source.restart()
    return source.demux()


def shown_between(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """Of sorted times `[N]`, positions of the frames on screen from a start to before an end."""
    first = max(0, int(np.searchsorted(times_s, start_s + _EPSILON_S, side="right")) - 1)
    return np.arange(first, int(np.searchsorted(times_s, end_s - _EPSILON_S)))


def uniform(start_s: float, end_s: float, count: int) -> np.ndarray:
    """`count` times `[count]` evenly from a start, which is the first, to before an end."""
    return start_s + (end_s - start_s) * np.arange(count) / count


def choose(times_s: np.ndarray, count: int, end_s: float) -> np.ndarray:
    """Of sorted times `[N]`, positions of the frames on screen at `count` uniform times.

    All of them where there are no more than `count`.
    """
    if len(times_s) <= count:
        return np.arange(len(times_s))
    wanted = uniform(times_s[0], end_s, count)
    return np.unique(np.searchsorted(times_s, wanted + _EPSILON_S, side="right") - 1)


def to_decode(stamps: Sequence[int], keys: Sequence[bool], wanted: set[int]) -> list[bool]:
    """Which packets the frames with the wanted stamps need: from their key frame to themselves.

    A frame that is decoded after a key frame and shown before it (in an open group of pictures)
    needs the group before as well.
    """
    needed = [False] * len(stamps)
    group, group_before = 0, 0
    for position, stamp in enumerate(stamps):
        if keys[position]:
            group, group_before = position, group
        if stamp in wanted:
            first = group_before if stamp < stamps[group] else group
            needed[first : position + 1] = [True] * (position + 1 - first)
    return needed


def frame_interval(source: Source) -> int:
    """The usual distance of two frames in units of the stream's time stamps."""
    stream = source.stream
    rate = stream.average_rate or stream.guessed_rate
    return round(1 / (rate * stream.time_base)) if rate and stream.time_base else 1


def _add(index: FrameIndex, packet: Packet, stamp: int) -> None:
    index.stamps.append(stamp)
    index.keys.append(packet.is_keyframe)
    index.shown.append(not packet.is_discard)
    index.bytes += packet.size
    if index.packets is not None:
        index.packets.append(packet)
        if index.bytes > KEPT_BYTES:
            index.packets = None
