"""Which frames are taken, and which packets that needs."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_shared.media.frame_index import choose, shown_between, to_decode, uniform


def test_uniform_times_include_the_start_and_not_the_end() -> None:
    np.testing.assert_allclose(uniform(2.0, 4.0, 4), [2.0, 2.5, 3.0, 3.5])


@pytest.mark.parametrize("count", [1, 2, 7, 30, 99])
def test_of_evenly_spaced_frames_every_nth_is_taken(count: int) -> None:
    times_s = np.arange(100) / 25
    expected = [k * 100 // count for k in range(count)]
    assert choose(times_s, count, 4.0).tolist() == expected


@pytest.mark.parametrize("count", [100, 101, 1000])
def test_no_frame_is_taken_twice(count: int) -> None:
    assert choose(np.arange(100) / 25, count, 4.0).tolist() == list(range(100))


def test_uneven_frames_are_taken_by_time_and_not_by_number() -> None:
    # Ten frames in the first second, then one a second: a frame stays until the next.
    times_s = np.concatenate([np.arange(10) / 10, np.arange(1, 10)])
    assert times_s[choose(times_s, 5, 10.0)].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.0, 9.0, [0, 1, 2, 3]),
        (1.0, 3.0, [1, 2]),
        (1.5, 2.5, [1, 2]),
        (1.2, 1.4, [1]),
        (0.0, 0.1, [0]),
        (7.0, 8.0, [3]),
    ],
)
def test_frames_on_screen_in_a_segment(start_s: float, end_s: float, expected: list[int]) -> None:
    assert shown_between(np.arange(4.0), start_s, end_s).tolist() == expected


def test_before_the_first_frame_nothing_is_on_screen() -> None:
    assert shown_between(np.arange(2.0, 5.0), 0.0, 1.5).tolist() == []


def needed(stamps: list[int], keys: str, *wanted: int) -> str:
    """Packets to decode as a string of `x` and `.`; keys likewise."""
    flags = to_decode(stamps, [key == "K" for key in keys], set(wanted))
    return "".join("x" if flag else "." for flag in flags)


def test_groups_without_a_wanted_frame_are_not_decoded() -> None:
    stamps = list(range(9))
    assert needed(stamps, "K..K..K..", 4) == "...xx...."
    assert needed(stamps, "K..K..K..", 0, 7) == "x.....xx."
    assert needed(stamps, "K..K..K..") == "........."
    assert needed(stamps, "K........", 2) == "xxx......"


def test_order_of_decoding_is_not_order_of_showing() -> None:
    # Shown 0 1 2 3, decoded 0 3 1 2: frame 1 needs 3.
    assert needed([0, 3, 1, 2], "K...", 1) == "xxx."
    assert needed([0, 3, 1, 2], "K...", 3) == "xx.."


def test_an_open_group_needs_the_group_before() -> None:
    # Frame 4 is decoded after the key frame 6 and shown before it.
    assert needed([0, 2, 1, 6, 4, 5, 8], "K..K...", 4) == "xxxxx.."
    assert needed([0, 2, 1, 6, 4, 5, 8], "K..K...", 8) == "...xxxx"


def test_without_a_key_frame_everything_before_is_needed() -> None:
    assert needed([0, 1, 2, 3], "....", 2) == "xxx."
