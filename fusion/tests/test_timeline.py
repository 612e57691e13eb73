"""Windows over a recording, subtitles, and what is known of a file before it is read."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mepr_fusion.predict.media_input import Limits, check_input
from mepr_fusion.predict.subtitles import read_srt
from mepr_fusion.predict.timeline import Span, spans, spread, texts
from mepr_shared.errors import ConfigError, DataError


@given(st.floats(0.1, 500), st.floats(1, 60), st.floats(0.3, 1))
def test_windows_cover_a_recording(duration: float, window: float, share: float) -> None:
    found = spans(duration, window, max(0.5, share * window))
    if duration <= window:
        assert found == [Span()]
        return
    starts, ends = [s.start_s for s in found], [s.end_s for s in found]
    assert starts[0] == 0 and ends[-1] == pytest.approx(duration)
    assert all(e - s == pytest.approx(window) for s, e in zip(starts, ends, strict=True))
    # Less than a microsecond between two windows is rounding, and worth no third one.
    assert all(later <= end + 1e-6 for later, end in zip(starts[1:], ends, strict=False))
    assert all(a < b for a, b in pairwise(starts))


def test_no_window_is_added_for_nothing() -> None:
    assert spans(None, 30) == spans(30.0, 30) == [Span()]
    assert len(spans(90.0, 30)) == 3 and len(spans(0.3, 1, 0.5)) == 1
    assert [s.start_s for s in spans(91.0, 30)] == [0, 30, 60, 61]
    for window, hop in ((0.5, None), (float("nan"), None), (10, 11), (10, 0.1)):
        with pytest.raises(ConfigError):
            spans(20.0, window, hop)


def test_every_word_has_a_window() -> None:
    words = [f"w{number}" for number in range(50)]
    windows = spans(100.0, 20)
    assert " ".join(spread(" ".join(words), windows, 100.0)).split() == words
    segments = [(0.0, 5.0, " a  b "), (18.0, 21.0, "c"), (99.0, 100.0, "d")]
    assert texts(segments, windows) == ["a b c", "", "", "", "d"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no subtitles"),
        (b"1\n00:00:00 --> 00:00:01\nno fractions\n", "holds no subtitles"),
        (b"1\n00:00:02,000 --> 00:00:01,000\nback\n", "line 2: the subtitle ends before"),
        (b"\xff\xfe1\x00", "is not UTF-8"),
    ],
)
def test_subtitles_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_srt(tmp_path / "a.srt")


def test_subtitles(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(
        "2\n00:01:00,5 --> 00:01:02.25\n{\\an8}<font color=red>two\nlines</font>\n\n"
        "1\n0:00:01,000 --> 0:00:02,000\n-\n"
    )
    assert read_srt(tmp_path / "a.srt") == ((1.0, 2.0, "-"), (60.5, 62.25, "two lines"))


def test_a_recording_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    """As browsers make them: Matroska, written live."""
    av = pytest.importorskip("av")
    path = tmp_path / "webcam.webm"
    with av.open(str(path), "w", format="matroska", options={"live": "1"}) as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(30):
            samples = np.zeros((1, 800), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = 8000, number * 800, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    facts = check_input(path, Limits())
    assert facts.kind == "audio" and facts.duration_s == pytest.approx(3.0, abs=0.15)
    with pytest.raises(DataError, match="more than the limit"):
        check_input(path, Limits(seconds=2.0))
