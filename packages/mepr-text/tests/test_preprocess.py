"""Windows cover a text exactly once, whatever its length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mepr_text.preprocess import windows

size_and_overlap = st.integers(4, 40).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, size // 2))
)


@given(size_and_overlap, st.integers(1, 300), st.integers(0, 50))
def test_every_token_is_kept_exactly_once_in_order(shape, length, before):
    size, overlap = shape
    tokens = list(range(1000, 1000 + length))
    context = list(range(before))
    found = windows(7, tokens, context, size=size, overlap=overlap)
    kept = [t for w in found for t in w.tokens[w.keep_from : w.keep_to]]
    assert kept == tokens
    assert all(len(w.tokens) <= size for w in found)
    assert [w.first for w in found] == [True] + [False] * (len(found) - 1)
    assert [w.last for w in found] == [False] * (len(found) - 1) + [True]
    assert {w.clip for w in found} == {7}


def test_neighbouring_windows_share_their_overlap_half_and_half():
    first, second = windows(0, range(16), [], size=10, overlap=4)
    assert first.tokens == tuple(range(10)) and second.tokens == tuple(range(6, 16))
    assert (first.keep_from, first.keep_to) == (0, 8)
    assert (second.keep_from, second.keep_to) == (2, 10)


def test_context_comes_before_the_text_and_is_not_kept():
    (window,) = windows(0, [5, 6], [1, 2, 3], size=8, overlap=2)
    assert window.tokens == (1, 2, 3, 5, 6)
    assert window.tokens[window.keep_from : window.keep_to] == (5, 6)


@pytest.mark.parametrize(("length", "room"), [(2, 4), (6, 2), (8, 0)])
def test_context_is_trimmed_at_the_front_to_the_room_there_is(length, room):
    (window,) = windows(0, range(100, 100 + length), range(50), size=8, overlap=2)
    assert window.keep_from == room
    assert window.tokens[:room] == tuple(range(50 - room, 50))
