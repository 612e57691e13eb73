"""A report as one HTML file that needs nothing else: no script, no network, no second file."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator

from mepr_fusion.report.blocks import (
    Block,
    Command,
    Listing,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
)

# Nothing may be fetched and nothing run, whatever a name in the data contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6470; --page: #fcfcfb;
  --card: #fff; --line: #e1e4e8; --mark: #f0f6fc; --accent: #0a5c99; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --soft: #a0a8b3; --page: #15181c;
  --card: #1c2025; --line: #343a42; --mark: #22303d; --accent: #79b8f0; }
  figure img { filter: invert(.89) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; }
a { color: var(--accent); }
.verdict { background: var(--mark); border-left: 4px solid var(--accent); margin: 0 0 1.25rem;
  padding: .9rem 1.1rem; border-radius: 0 6px 6px 0; font-size: 1.05rem; max-width: none; }
.note { color: var(--soft); font-size: .875rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .75rem 1.5rem; margin: 0 0 1rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 0; padding: 0;
  list-style: none; font-size: .9rem; max-width: none; }
figure { margin: 1.25rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, caption { color: var(--soft); font-size: .875rem; text-align: left; }
figcaption { margin-top: .4rem; }
caption { padding-bottom: .4rem; }
.scroll { overflow-x: auto; margin: 1rem 0; border-bottom: 1px solid var(--line); }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; white-space: nowrap;
  border-top: 1px solid var(--line); }
th.label, td.label { text-align: left; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page);
  padding-left: 0; }
tr.marked > * { background: var(--mark); font-weight: 600; }
td small { color: var(--soft); font-size: .8em; font-weight: 400; }
tr.marked > :first-child { padding-left: .5rem; }
td.wide { white-space: normal; min-width: 14rem; max-width: 30rem; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0;
  padding: .9rem 1rem; overflow-x: auto; }
@media (max-width: 40rem) { main { padding: 1.25rem 1rem 3rem; } h1 { font-size: 1.4rem; }
  th:first-child, td:first-child { max-width: 11rem; white-space: normal; overflow-wrap: normal; }
  figure.broad img { max-width: none; width: 38rem; } .pan { overflow-x: auto; } }
@media print { .scroll { overflow: visible; } nav { display: none; } }
"""

# A cell longer than this may break into lines.
LONG = 48
# Pixels of a figure per pixel of the page: sharp on screens with small pixels too.
SHRINK = 1.6


def to_html(report: Report) -> str:
    """The report as a complete HTML document."""
    title = html.escape(report.title)
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in report.facts
    )
    links = "".join(
        f'<li><a href="#s{number}">{html.escape(section.title)}</a></li>'
        for number, section in enumerate(report.sections)
    )
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        # An empty icon of its own keeps browsers from asking a server for one.
        '<link rel="icon" href="data:,">',
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
        f"<header>\n<h1>{title}</h1>",
        f'<p class="verdict"><strong>{html.escape(report.verdict)}</strong> '
        f"{html.escape(report.details)}</p>",
        f'<dl>{facts}</dl>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>',
        *(_section(number, section) for number, section in enumerate(report.sections)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _section(number: int, section: Section) -> str:
    title = f'<h2 id="s{number}">{html.escape(section.title)}</h2>'
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f'<section aria-labelledby="s{number}">\n{title}\n{blocks}\n</section>'


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f'<p class="{html.escape(block.style)}">{html.escape(block.text)}</p>'
    if isinstance(block, Listing):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Command):
        return f'<pre tabindex="0"><code>{html.escape(block.text)}</code></pre>'
    if isinstance(block, Picture):
        return _picture(block)
    return "".join(_table(block))


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    # The size is in the PNG's header (bytes 16 to 24); with it the page does not jump on loading.
    width, height = (int.from_bytes(picture.png[at : at + 4], "big") for at in (16, 20))
    broad = ' class="broad"' if width > 1.8 * height else ""
    focus = f' role="region" tabindex="0" aria-label="{html.escape(picture.caption)}"' * bool(broad)
    return (
        f'<figure{broad}><div class="pan"{focus}>'
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt)}" '
        f'width="{round(width / SHRINK)}" height="{round(height / SHRINK)}"></div>'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> Iterator[str]:
    caption = html.escape(table.caption)
    # It scrolls by itself where the page is narrow, by keyboard as well.
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
    yield f"<caption>{caption}</caption><thead><tr>"
    for column, cell in enumerate(table.head):
        label = ' class="label"' if column < table.labels else ""
        yield f'<th scope="col"{label}>{html.escape(cell)}</th>'
    yield "</tr></thead><tbody>\n"
    for number, row in enumerate(table.rows):
        yield '<tr class="marked">' if number in table.marked else "<tr>"
        for column, cell in enumerate(row):
            yield _cell(table, column, cell)
        yield "</tr>\n"
    yield "</tbody></table></div>"


def _cell(table: Table, column: int, cell: str) -> str:
    text = html.escape(cell)
    if column in table.code:
        text = f"<code>{text}</code>"
    if column >= table.labels:
        score, bracket, interval = text.partition(" [")
        return f"<td>{score}" + (f" <small>[{interval}</small>" if bracket else "") + "</td>"
    classes = "label wide" if len(cell) > LONG else "label"
    return f'<td class="{classes}">{text}</td>'
