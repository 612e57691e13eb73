"""Sound of any media file as mono float32 samples: whole, a segment, or a stream of chunks.

Times are seconds since the start of the file's timeline, the same for audio and video. Where the
audio begins later than the file, or pauses, the samples are 0, so that sample i of a segment is
always the sound at `start_s + i / rate`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from mepr_shared.media.audio_frames import PREROLLS_S, AudioFrames, Placed
from mepr_shared.media.problem import (
    MediaProblem,
    Tally,
    checked_segment,
    nothing_there,
    stops_early,
)
from mepr_shared.media.resample import Block, to_grid
from mepr_shared.media.source import Source, decode_errors, describe

RATE = 16_000
# One bit of 16 is 3e-5: only digital silence lies below.
SILENT_PEAK = 1e-5
# Silence of a long gap is given in pieces, to keep memory bounded.
_SILENCE = 1 << 20


@dataclass(frozen=True)
class Waveform:
    """What was read.

    Attributes:
        samples: float32 `[n]`, mono, full scale = 1; None unless `status` is `ok` or `partial`.
        rate: samples per second.
        status: a status of the contract.
        reason: one line for people; empty where all is well.
    """

    samples: np.ndarray | None
    rate: int
    status: str
    reason: str = ""

    @property
    def duration_s(self) -> float:
        """Length of what was read, in seconds."""
        return 0.0 if self.samples is None else len(self.samples) / self.rate


class WaveformStream:
    """An iterable of chunks, float32 `[n]` mono; made by `stream_waveform`. It is read once.

    Attributes:
        rate: samples per second.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        start_s: float | None,
        end_s: float | None,
        rate: int,
        chunk_s: float,
    ) -> None:
        self.rate = rate
        self._start_s, self._end_s = checked_segment(start_s, end_s)
        self._chunk = round(chunk_s * rate)
        if self._chunk < 1:
            raise ValueError(f"a chunk of {chunk_s} s holds no sample")
        # The next sample to give, and the one to stop before: neighbours share no sample.
        self._next = round(self._start_s * rate)
        self._last = None if math.isinf(self._end_s) else round(self._end_s * rate)
        if self._last == self._next:
            raise MediaProblem("too_short", f"the segment holds no sample at {rate} Hz")
        self._end_index = 0
        self._ended = False
        self._failure = ""
        self._pauses = Tally("nothing is stored")
        self._source = Source(path)
        try:
            self._source.choose_audio()
            self._declared_s = self._source.declared_end_s()
            self._frames = AudioFrames(self._source)
            self._blocks = self._segment(self._grid())
            self._head = next(self._blocks, None)
            if self._head is None:
                raise self._nothing()
        except BaseException:
            self._source.close()
            raise

    def __iter__(self) -> Iterator[np.ndarray]:
        held: list[np.ndarray] = [] if self._head is None else [self._head]
        self._head = None
        count = sum(map(len, held))
        for block in self._blocks:
            held.append(block)
            count += len(block)
            if count >= self._chunk:
                samples = _joined(held)
                full = count - count % self._chunk
                yield from np.split(samples[:full], range(self._chunk, full, self._chunk))
                # A copy, lest a view keeps the chunk that was given alive.
                held, count = [samples[full:].copy()], count - full
        if count:
            yield _joined(held)

    def close(self) -> None:
        """Close the file; reading to the end does it too."""
        self._blocks.close()
        self._source.close()

    @property
    def problem(self) -> str:
        """What is wrong with the samples given so far; complete after the last chunk.

        Not empty means status `partial`: something was damaged or left out (its time is silent),
        not finite (set to 0), or the sound ends before the segment or the file does.
        """
        lost = self._frames.not_finite
        finite = f"{lost} samples were not finite and are set to 0" if lost else ""
        pauses = str(self._pauses)
        parts = (finite, self._frames.damage, pauses, self._failure, self._ending())
        return "; ".join(part for part in parts if part)

    @property
    def nothing_finite(self) -> bool:
        """Whether not one sample so far was a finite number."""
        return 0 < self._frames.samples == self._frames.not_finite

    def _grid(self) -> Iterator[Block]:
        # One second of slack for containers that round.
        limit_s = math.inf if self._declared_s is None else self._declared_s + 1.0
        try:
            frames = self._placed()
            yield from to_grid(frames, self.rate, from_s=self._start_s, limit_s=limit_s)
        except decode_errors() as error:
            self._failure = f"the audio cannot be converted ({describe(error)})"

    def _placed(self) -> Iterator[Placed]:
        """Frames from a little before the start on; from the very first where that is unknown."""
        start_s = self._start_s
        # Near the start the decoder's own handling of encoder delay is the surest.
        if start_s > 1.0:
            for before_s in PREROLLS_S:
                if not self._frames.seek(start_s - before_s):
                    continue
                frames = self._frames.read(start_s)
                first = next(frames, None)
                if first is None:
                    if self._declared_s is not None and start_s >= self._declared_s:
                        return
                elif _begins_before(first, start_s):
                    yield first
                    yield from frames
                    return
                frames.close()
            # Nowhere before the start can be found by a time stamp.
            self._source.restart()
            self._frames = AudioFrames(self._source)
        yield from self._frames.read(start_s)

    def _segment(self, blocks: Iterator[Block]) -> Generator[np.ndarray, None, None]:
        """Samples of the segment, silence included."""
        try:
            for index, samples in blocks:
                if 0 < self._end_index < index and self._next < index:
                    begin_s, end_s = self._end_index / self.rate, index / self.rate
                    self._pauses.add(f"from {begin_s:.2f} to {end_s:.2f} s")
                self._end_index = index + len(samples)
                while index > self._next and not self._done():
                    silence = min(index, self._last or index) - self._next
                    yield self._given(np.zeros(min(silence, _SILENCE), np.float32))
                samples = samples[max(0, self._next - index) :]
                if self._last is not None:
                    samples = samples[: max(0, self._last - self._next)]
                if len(samples):
                    yield self._given(samples)
                if self._done():
                    return
            self._ended = True
        finally:
            self._source.close()

    def _given(self, samples: np.ndarray) -> np.ndarray:
        self._next += len(samples)
        return samples

    def _done(self) -> bool:
        return self._last is not None and self._next >= self._last

    def _ending(self) -> str:
        if not self._ended:
            return ""
        return stops_early("audio", self._next / self.rate, self._end_s, self._declared_s)

    def _nothing(self) -> MediaProblem:
        """Why there is not one sample."""
        end_s = self._end_index / self.rate
        trouble = self._failure or self._frames.damage
        if trouble and not end_s:
            return MediaProblem("decode_error", f"no audio could be decoded: {trouble}")
        return nothing_there("audio", self._start_s, end_s, self._declared_s)


def stream_waveform(
    path: str | os.PathLike[str],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    rate: int = RATE,
    chunk_s: float = 30.0,
) -> WaveformStream:
    """Read sound in chunks, in memory that does not grow with the file.

    The file is entered at `start_s` by seeking; samples are exact where the container's time
    stamps are, and within one codec frame where it has none (MP3, raw AAC).

    Args:
        path: a media file with any container, codec, rate, channels and sample format.
        start_s, end_s: segment in seconds; negative starts count as 0.
        rate: samples per second of the result.
        chunk_s: length of every chunk but the last.

    Raises:
        MediaProblem: where not one sample can be had: `no_media`, `no_audio`, `decode_error`,
            `too_short`. Trouble after that shows in the stream's `problem`.
    """
    return WaveformStream(path, start_s, end_s, rate, chunk_s)


def read_waveform(
    path: str | os.PathLike[str],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    rate: int = RATE,
    shortest_s: float = 0.0,
    longest_s: float | None = None,
) -> Waveform:
    """Read sound at once. Bad media gives a status and a reason, never an exception.

    Args:
        path, start_s, end_s, rate: as in `stream_waveform`.
        shortest_s: less sound than this is `too_short`.
        longest_s: read at most this much from the start of the segment; where that leaves out
            something, the status is `partial`.
    """
    most = math.inf if longest_s is None else round(longest_s * rate)
    chunks: list[np.ndarray] = []
    count = 0
    try:
        # Small chunks where there is a limit, lest much beyond it is decoded.
        chunk_s = 30.0 if longest_s is None else 1.0
        stream = stream_waveform(path, start_s=start_s, end_s=end_s, rate=rate, chunk_s=chunk_s)
        for chunk in stream:
            chunks.append(chunk)
            count += len(chunk)
            if count > most:
                stream.close()
                break
    except MediaProblem as problem:
        return Waveform(None, rate, problem.status, problem.reason)
    samples = _joined(chunks)
    if stream.nothing_finite:
        return Waveform(None, rate, "decode_error", "not one sample is a finite number")
    if len(samples) < shortest_s * rate:
        found = len(samples) / rate
        reason = f"{found:.3f} s of audio, {shortest_s:.3f} s are needed"
        return Waveform(None, rate, "too_short", reason)
    # Silence at the beginning says nothing about what was not read.
    if count <= most and max(samples.max(), -samples.min()) < SILENT_PEAK:
        return Waveform(None, rate, "no_audio", f"the audio is silent (peak below {SILENT_PEAK})")
    reason = stream.problem
    if longest_s is not None and count > most:
        samples = samples[: round(longest_s * rate)]
        limit = f"only the first {longest_s:.2f} s are read"
        reason = f"{limit}; {reason}" if reason else limit
    return Waveform(samples, rate, "partial" if reason else "ok", reason)


def _begins_before(placed: Placed, time_s: float) -> bool:
    return placed.position is not None and placed.position <= time_s * placed.frame.sample_rate


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
