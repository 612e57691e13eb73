"""Decoded audio frames of a file, each with its place on the file's timeline."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mepr_shared.media.problem import MediaProblem, Tally
from mepr_shared.media.source import Source, decode_errors, describe

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

# Decoding starts this long before the samples that are asked for: frames of MP3 borrow bits from
# up to half a second before, AAC and Opus overlap, and the resampler looks back. Where that place
# is not found (as it happens close to the end of a FLAC file), a farther one is tried.
PREROLLS_S = (0.5, 5.0, 30.0)
# What a recording can be; beyond it is a damaged header.
_RATES = range(1_000, 768_001)
_CHANNELS = range(1, 65)
# More planes than a frame's struct holds pointers cannot be looked at safely through PyAV.
_MOST_PLANES = 8
# What lies beyond (full scale is 1) cannot be squared and summed in float32: as good as infinite.
_LOUDEST = 1e9
_FLOATS = {"flt": np.float32, "fltp": np.float32, "dbl": np.float64, "dblp": np.float64}


@dataclass(frozen=True)
class Placed:
    """A frame and where it lies.

    Attributes:
        position: its first sample, counted at the frame's own rate from the start of the file;
            None where the container does not say.
        after_damage: samples before it may be missing.
    """

    frame: AudioFrame
    position: int | None
    after_damage: bool


class AudioFrames:
    """Reads one audio stream, over damage where there is some.

    Attributes:
        samples: samples decoded since `from_s`, all channels.
        not_finite: how many of them were NaN or infinite; they are 0 in the frames.
    """

    def __init__(self, source: Source) -> None:
        """Read the stream chosen in `source`.

        Raises:
            MediaProblem: `decode_error` where that is no sound that can be.
        """
        context = source.stream.codec_context
        rate, channels = context.sample_rate, context.channels
        if rate not in _RATES or channels not in _CHANNELS:
            raise MediaProblem(
                "decode_error", f"audio of {channels} channels at {rate} Hz is no recording"
            )
        self.samples = 0
        self.not_finite = 0
        self._source = source
        self._tick_s = source.tick_s
        self._damage = Tally("damaged")

    def read(self, from_s: float) -> Generator[Placed, None, None]:
        """Frames from the file's reading position on.

        Args:
            from_s: damage before this time is not counted.
        """
        damaged = False
        try:
            for packet in self._source.demux():
                # A packet that cannot be decoded is left out; the next one may be sound.
                try:
                    frames = packet.decode()
                except decode_errors() as error:
                    damaged = True
                    self._note(error, packet.pts, from_s)
                    continue
                for frame in frames:
                    start_s = self._seconds(frame.pts)
                    position = None if start_s is None else round(start_s * frame.sample_rate)
                    asked = (
                        position is None or position + frame.samples > from_s * frame.sample_rate
                    )
                    self._make_finite(frame, asked)
                    yield Placed(frame, position, damaged)
                    damaged = False
        except decode_errors() as error:
            self._note(error, None, from_s)

    def seek(self, time_s: float) -> bool:
        """Move the reading position to a time or before it; False where that fails."""
        return self._source.seek(time_s)

    @property
    def damage(self) -> str:
        """What could not be decoded; empty where all could."""
        return str(self._damage)

    def _note(self, error: BaseException, stamp: int | None, from_s: float) -> None:
        time_s = self._seconds(stamp)
        if time_s is None:
            self._damage.add(f"({describe(error)})")
        elif time_s >= from_s:
            self._damage.add(f"at {time_s:.2f} s ({describe(error)})")

    def _seconds(self, stamp: int | None) -> float | None:
        return None if stamp is None else stamp * self._tick_s - self._source.origin_s

    def _make_finite(self, frame: AudioFrame, asked: bool) -> None:
        """Set NaN and infinity to 0, in place and before a resampler spreads them."""
        dtype = _FLOATS.get(frame.format.name)
        channels = frame.layout.nb_channels
        planar = frame.format.is_planar
        if dtype is None or (planar and channels > _MOST_PLANES):
            return
        for plane in frame.planes[: channels if planar else 1]:
            values = plane_values(plane, dtype, frame.samples * (1 if planar else channels))
            finite = np.abs(values) <= _LOUDEST
            if not finite.all():
                values[~finite] = 0
            if asked:
                self.samples += values.size
                self.not_finite += values.size - int(np.count_nonzero(finite))


def plane_values(plane: Any, dtype: Any, count: int) -> np.ndarray:
    """The samples of a frame's plane `[count]`, shared with it."""
    return np.frombuffer(plane, dtype, count)
