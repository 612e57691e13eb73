"""Decodes wanted frames of a video, and as few others as can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mepr_shared.media.frame_index import FrameIndex, packets_from, to_decode
from mepr_shared.media.problem import Tally
from mepr_shared.media.source import Source, decode_errors, describe

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Wanted frames farther apart than this are sought one by one; nearer ones are picked out of one
# pass over the packets, which decodes no group of pictures in vain. Encoders set key frames at most
# some seconds apart (x264: 250 frames). In a wider gap a seek saves reading; in a narrower one it
# mostly leads back to a key frame before frames already seen: 30 frames of real clips of 2 to 9 s
# took 10 to 18 times as long by seeking. Of 10 minutes with a key frame every 10 s, 5 frames took
# 0.06 s by seeking and 0.2 s in one pass, 30 frames 0.3 s and 0.4 s.
SEEK_GAP_S = 10.0
# Decoders that may be told packet by packet to leave out a frame that no other frame refers to.
_CAN_SKIP = ("h264", "hevc")
_EPSILON_S = 1e-6


class VideoDecoder:
    """Decodes one video stream, over damage where there is some.

    Attributes:
        last_s: when the last frame that was decoded appears.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.last_s = 0.0
        self._damage = Tally("damaged")

    @property
    def damage(self) -> str:
        """What could not be decoded; empty where all could."""
        return str(self._damage)

    def pick(
        self, index: FrameIndex, packets: Iterable[Packet], wanted: set[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with the wanted stamps, in showing order, from one pass over the packets.

        Groups of pictures without a wanted frame are passed over, and so are, where the decoder
        can, frames that no other frame needs.

        Yields:
            stamp, frame.
        """
        context = self._source.stream.codec_context
        skips = context.name in _CAN_SKIP and not index.counted
        # Frames are counted as they come, so every one must come.
        needed = [True] * len(index.stamps)
        if not index.counted:
            needed = to_decode(index.stamps, index.keys, wanted)
        missing = set(wanted)
        counter = iter(index.stamps)

        def taken(frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
            for frame in frames:
                stamp = next(counter, None) if index.counted else frame.pts
                if stamp in missing:
                    missing.discard(stamp)
                    yield stamp, frame

        feeding = False
        for packet, need in zip(packets, needed, strict=False):
            if need:
                if skips:
                    context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from taken(self._decode(packet))
            elif feeding:
                yield from taken(self._drain())
            feeding = need
            if not missing:
                break
        if missing:
            yield from taken(self._drain())
        if skips:
            context.skip_frame = "DEFAULT"

    def walk(self, times_s: Sequence[float]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames on screen at sorted times, by decoding onwards and seeking over wide gaps.

        A seek pays where a key frame lies in the gap. That is not known beforehand: it is tried in
        gaps above `SEEK_GAP_S`, and no more once a seek has led back to what was decoded already.

        Yields:
            stamp, frame; a frame that is on screen at several times once.
        """
        frames = self._frames_from(times_s[0])
        seeks = True
        held: VideoFrame | None = None
        ahead: VideoFrame | None = None
        given: int | None = None
        for time_s in times_s:
            seen_s = None if held is None else self._seconds(held)
            if seeks and seen_s is not None and time_s - seen_s > SEEK_GAP_S:
                frames, held = self._frames_from(time_s), None
                ahead = next(frames, None)
                seeks = ahead is not None and self._seconds(ahead) > seen_s
            while (frame := ahead or next(frames, None)) is not None:
                ahead = None
                if held is not None and self._seconds(frame) > time_s + _EPSILON_S:
                    ahead = frame
                    break
                held = frame
            if held is not None and held.pts is not None and held.pts != given:
                given = held.pts
                yield given, held

    def _frames_from(self, start_s: float) -> Iterator[VideoFrame]:
        try:
            for packet in packets_from(self._source, start_s):
                yield from (frame for frame in self._decode(packet) if frame.pts is not None)
        except decode_errors() as error:
            self._note(None, error)

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        try:
            frames = packet.decode()
        except decode_errors() as error:
            self._note(packet.pts, error)
            return []
        for frame in frames:
            self.last_s = max(self.last_s, self._seconds(frame))
            if frame.is_corrupt:
                self._note(frame.pts, None)
        return frames

    def _drain(self) -> list[VideoFrame]:
        """What the decoder still holds; it can be fed from a key frame on after that."""
        context = self._source.stream.codec_context
        try:
            frames = context.decode(None)
        except decode_errors() as error:
            self._note(None, error)
            frames = []
        context.flush_buffers()
        return frames

    def _note(self, stamp: int | None, error: BaseException | None) -> None:
        when = "" if stamp is None else f"at {self._source.seconds(stamp):.2f} s "
        what = "frame" if error is None else describe(error)
        self._damage.add(f"{when}({what})")

    def _seconds(self, frame: VideoFrame) -> float:
        return self._source.seconds(frame.pts or 0)
