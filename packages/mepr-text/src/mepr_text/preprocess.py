"""Text -> token windows. Long texts are split into overlapping windows, never cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """One encoder input and the part of it that is kept.

    Attributes:
        clip: index of the text in its batch.
        tokens: token ids without special tokens.
        keep_from, keep_to: which of `tokens` enter the clip's sequence; the rest is only context.
        first, last: whether the text begins or ends in this window.
    """

    clip: int
    tokens: tuple[int, ...]
    keep_from: int
    keep_to: int
    first: bool = True
    last: bool = True


def windows(
    clip: int,
    tokens: Sequence[int],
    context: Sequence[int],
    *,
    size: int,
    overlap: int,
) -> list[Window]:
    """Cover a text with windows of at most `size` tokens; every token is kept exactly once.

    Where two windows overlap, the first half of the shared tokens is kept from the earlier
    window and the second half from the later one, so that each kept token has context on both
    sides.

    Args:
        clip: index of the text in its batch.
        tokens: the text's token ids.
        context: token ids that come before it; trimmed at the front to what the first window
            has room for, at most half of it.
        size: tokens per window.
        overlap: tokens that neighbouring windows share; less than `size`.
    """
    if len(tokens) <= size:
        room = max(0, min(size - len(tokens), size // 2))
        before = tuple(context[max(0, len(context) - room) :]) if room else ()
        return [Window(clip, (*before, *tokens), len(before), len(before) + len(tokens))]
    step = size - overlap
    starts = list(range(0, len(tokens) - overlap, step))
    # The last window is moved back to be full: a short tail alone would have little context.
    starts[-1] = len(tokens) - size
    found: list[tuple[int, int]] = []
    for index, start in enumerate(starts):
        first = 0 if index == 0 else found[-1][1]
        following = starts[index + 1 : index + 2]
        last = (following[0] + start + size) // 2 if following else len(tokens)
        found.append((first, last))
    return [
        Window(
            clip,
            tuple(tokens[start : start + size]),
            first - start,
            last - start,
            first=first == 0,
            last=last == len(tokens),
        )
        for start, (first, last) in zip(starts, found, strict=True)
    ]
