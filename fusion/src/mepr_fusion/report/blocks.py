"""What a report is made of, and how it looks in Markdown. `report_html` writes the same as HTML.

Every text here is plain: corpora, exports and paths are other people's words, and both writers
escape them.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paragraph:
    """Plain text; `strong` for the one a hurried reader should see, `note` for small print."""

    text: str
    style: str = "plain"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `labels` columns name the row, the others are figures.

    Attributes:
        marked: numbers of rows that are shown bold.
        code: numbers of columns that hold identifiers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    marked: frozenset[int] = frozenset()
    code: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A figure: its file name without suffix, its PNG, what it shows in words, a caption."""

    name: str
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Listing:
    """Items of a list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Command:
    """Something to copy into a shell."""

    text: str


Block = Paragraph | Table | Picture | Listing | Command


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole report: title, verdict and its details, facts as (name, value), sections."""

    title: str
    verdict: str
    details: str = ""
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [block for block in blocks if isinstance(block, Picture)]


def to_markdown(report: Report, figures: str = "figures") -> str:
    """The report in Markdown; figures are files `FIGURES/NAME.png` beside it."""
    lines = [
        f"# {plain(report.title)}",
        "",
        f"**{plain(report.verdict)}** {plain(report.details)}",
        "",
    ]
    if report.facts:
        lines += [". ".join(f"{name}: {plain(value)}" for name, value in report.facts) + ".", ""]
    for section in report.sections:
        lines += [f"## {plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_lines(block, figures), ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    for mark in ("\\", "|", "`", "*"):
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped.replace("](", "]\\(")


def _lines(block: Block, figures: str) -> list[str]:
    if isinstance(block, Paragraph):
        return [f"**{plain(block.text)}**" if block.style == "strong" else plain(block.text)]
    if isinstance(block, Listing):
        return [f"- {plain(item)}" for item in block.items]
    if isinstance(block, Command):
        return ["```bash", *block.text.replace("```", "").splitlines(), "```"]
    if isinstance(block, Picture):
        return [f"![{plain(block.alt)}]({figures}/{block.name}.png)", "", plain(block.caption)]
    return _table(block)


def _table(table: Table) -> list[str]:
    rule = ["---"] * table.labels + ["---:"] * (len(table.head) - table.labels)
    lines = [plain(table.caption) + ":", ""] if table.caption else []
    lines += ["| " + " | ".join(map(plain, table.head)) + " |", "|" + "|".join(rule) + "|"]
    for number, row in enumerate(table.rows):
        cells = [
            f"`{cell.replace('`', '')}`" if column in table.code else plain(cell)
            for column, cell in enumerate(row)
        ]
        if number in table.marked:
            cells[0] = f"**{cells[0]}**"
        lines.append("| " + " | ".join(cells) + " |")
    return lines
