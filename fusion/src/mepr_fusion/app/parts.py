"""Pieces that all panels are made of. Every text given here is plain, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence


def section(name: str, title: str, body: str, *, wide: bool = False) -> str:
    """A panel; `body` is HTML already."""
    place = f"mepr-{name}"
    return (
        f'<section id="{place}" aria-labelledby="{place}-title"{" class=wide" * wide}>'
        f'<h2 id="{place}-title">{html.escape(title)}</h2>{body}</section>'
    )


def note(text: str) -> str:
    """Small print."""
    return f'<p class="note">{html.escape(text, quote=False)}</p>'


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    labels: int = 1,
    total: int | None = None,
) -> str:
    """A table that scrolls by itself where it is too wide."""

    def cell(tag: str, column: int, text: str) -> str:
        style = ' class="label"' if column < labels else ""
        return f"<{tag}{style}>{html.escape(text)}</{tag}>"

    top = "".join(cell("th", column, text) for column, text in enumerate(head))
    body = "".join(
        f"<tr{' class=total' * (number == total)}>"
        + "".join(cell("td", column, text) for column, text in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    said = html.escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said}"><table>'
        f"<caption>{said}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
