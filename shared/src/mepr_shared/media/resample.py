"""From decoded frames to mono samples on one grid of time, by libswresample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mepr_shared.errors import require
from mepr_shared.media.audio_frames import Placed, plane_values

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

# With libswresample's own defaults (32 taps, cut-off .97) a tone of 9 kHz leaves an alias of
# -60 dB at 16 kHz. With these, at the same speed: tones up to 5 kHz within -98 dB, aliases from
# 8.6 kHz on below -90 dB.
_FILTER = {"filter_size": "64", "cutoff": "0.95"}
# Weights of a mix to float add up to more than 1 unless told otherwise: stereo would gain 3 dB.
_MIX = {"out_chlayout": "mono", "rematrix_maxval": "1.0"}
# Time stamps in whole milliseconds, or from a live stream, jitter; a longer jump is a real gap.
_JITTER_S = 0.05
# A longer jump is a broken time stamp, and its silence would fill the memory.
_LONGEST_GAP_S = 3600.0
# Sample formats that need no library: what is stored, and its way to float32.
_DIRECT: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "u8": ("u1", lambda x: (x.astype(np.float32) - 128) / 128),
    "s16": ("i2", lambda x: x.astype(np.float32) / 2**15),
    "s32": ("i4", lambda x: x.astype(np.float32) / 2**31),
    "flt": ("f4", np.copy),
    "dbl": ("f8", lambda x: x.astype(np.float32)),
}

Block = tuple[int, np.ndarray]


def to_grid(
    frames: Iterable[Placed], rate: int, *, from_s: float = 0.0, limit_s: float = math.inf
) -> Iterator[Block]:
    """Mono samples at `rate`, each block with the index of its first: sample i is the time i/rate.

    Frames that follow each other are resampled as one run. A gap in the time stamps or another
    sample format begins a new run; blocks never overlap, and what lies between two is silence.
    The grid is the same wherever reading starts, so a segment equals that slice of the whole.

    Args:
        frames: in order. A stamp that runs backwards, or an hour ahead, is taken as following on.
        from_s: the first frame lies about here, or before.
        limit_s: where the stream ends; stamps beyond are taken as following on.

    Yields:
        index, float32 `[n]`.
    """
    run: _Run | None = None
    for placed in frames:
        frame = placed.frame
        if run is None:
            position = placed.position or 0
            if _too_far(position - from_s * frame.sample_rate, placed, limit_s):
                position = 0
            run = _Run(frame, position, rate)
        else:
            follows = round(run.position * frame.sample_rate / run.kind[2])
            jumps = _is_gap(placed, follows, limit_s)
            if jumps or run.kind != _kind(frame):
                yield from run.flush()
                run = _Run(frame, (placed.position or 0) if jumps else follows, rate)
        yield from run.push(frame)
    if run is not None:
        yield from run.flush()


def _is_gap(placed: Placed, follows: int, limit_s: float) -> bool:
    if placed.position is None:
        return False
    gap = placed.position - follows
    shortest_s = 0.0 if placed.after_damage else _JITTER_S
    return gap > shortest_s * placed.frame.sample_rate and not _too_far(gap, placed, limit_s)


def _too_far(gap: float, placed: Placed, limit_s: float) -> bool:
    rate = placed.frame.sample_rate
    return gap > _LONGEST_GAP_S * rate or (placed.position or 0) > limit_s * rate


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


class _Run:
    """Frames of one kind without a gap.

    Attributes:
        kind: sample format, channel layout and rate of the frames.
        position: of the next input sample, at the input's rate.
    """

    def __init__(self, frame: AudioFrame, position: int, rate: int) -> None:
        self.kind = _kind(frame)
        self.position = position
        self._rate = rate
        name, _, source_rate = self.kind
        # Input and output samples coincide every `step` input samples. Silence from the last such
        # place to the first sample puts the output on the grid; it is not given out.
        common = math.gcd(source_rate, rate)
        step = source_rate // common
        lead = position % step
        self._index = (position - lead) // step * (rate // common)
        self._first = self._end()
        plain = name.removesuffix("p")
        self._graph: _Graph | None = None
        if source_rate != rate or frame.layout.nb_channels != 1 or plain not in _DIRECT:
            self._graph = _Graph(frame, rate, lead)
        else:
            self._dtype, self._to_float = _DIRECT[plain]

    def push(self, frame: AudioFrame) -> Iterator[Block]:
        self.position += frame.samples
        if self._graph is None:
            samples = self._to_float(plane_values(frame.planes[0], self._dtype, frame.samples))
            return self._place([samples])
        return self._place(self._graph.push(frame))

    def flush(self) -> Iterator[Block]:
        if self._graph is not None:
            yield from self._place(self._graph.push(None))

    def _place(self, outputs: list[np.ndarray]) -> Iterator[Block]:
        for samples in outputs:
            index = self._index
            self._index += len(samples)
            head = max(0, self._first - index)
            samples = samples[head : max(head, self._end() - index)]
            if len(samples):
                yield index + head, samples

    def _end(self) -> int:
        """The first output sample that is not before the next input sample."""
        return -(-self.position * self._rate // self.kind[2])


class _Graph:
    """libswresample as an FFmpeg filter graph: any format, layout and rate to mono float32."""

    def __init__(self, frame: AudioFrame, rate: int, lead: int) -> None:
        graph = require("av.filter", extra="mepr-shared[media]").Graph()
        source_rate = str(frame.sample_rate)
        nodes = [
            graph.add(
                "abuffer",
                sample_rate=source_rate,
                sample_fmt=frame.format.name,
                channel_layout=frame.layout.name,
                time_base=f"1/{source_rate}",
            )
        ]
        if lead:
            nodes.append(graph.add("adelay", delays=f"{lead}S", all="1"))
        options = {"sample_rate": str(rate), "out_sample_fmt": "flt", **_MIX, **_FILTER}
        nodes.append(graph.add("aresample", **options))
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes)
        graph.configure()
        # The nodes live as long as their graph.
        self._all, self._input, self._output = graph, nodes[0], nodes[-1]

    def push(self, frame: AudioFrame | None) -> list[np.ndarray]:
        """Output that is ready after one more frame, or the rest after None."""
        self._input.push(frame)
        ready: list[np.ndarray] = []
        while True:
            try:
                output = self._output.pull()
            except (BlockingIOError, EOFError):
                return ready
            ready.append(plane_values(output.planes[0], np.float32, output.samples))
