"""The report in a real browser: nothing fails, nothing is fetched, nothing sticks out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mepr_shared.testing.browser import Tab, open_browser

SMALL = ("fit.epochs=2", "model.width=16", "model.heads=2")


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[..., Tab]]:
    with open_browser() as open_tab:
        yield open_tab


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory: pytest.TempPathFactory, command) -> Path:
    """`report.html` of a small run, in a folder with nothing else."""
    folder = tmp_path_factory.mktemp("report")
    command("mepr", "corpus", "demo", folder, "--features-only", "--clips", 240)
    [corpus] = folder.rglob("*.json")
    corpus = corpus.with_suffix(".parquet")
    for name in ("audio", "face"):
        source = corpus.parent / f"{name}.parquet"
        where = ("--corpus", corpus, "--from", source, "--out", folder / "exports")
        command("mepr", "export", "create", "--modality", name, *where)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    where = ("--corpus", corpus, "--exports", folder / "exports", "--run", folder / "run")
    command("mepr-fusion", "train", *where, *settings)
    alone = folder / "alone" / "report.html"
    alone.parent.mkdir()
    return (folder / "run" / "report.html").rename(alone)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_opens_without_errors_and_fits(browser, report: Path, width: int, dark: bool) -> None:
    tab = browser(report.as_uri(), width=width, dark=dark)
    assert tab.errors == []
    assert tab.requests == [report.as_uri()]
    assert tab.overflow() <= 0
    figures = tab.page.evaluate(
        "[...document.images].map(image => [image.naturalWidth, image.alt.length])"
    )
    assert len(figures) >= 4 and all(wide > 200 and alt > 20 for wide, alt in figures)


@pytest.mark.slow
def test_wide_tables_scroll_and_keep_their_first_column(browser, report: Path) -> None:
    tab = browser(report.as_uri(), width=390)
    moved = tab.page.evaluate(
        """() => {
            const box = [...document.querySelectorAll('.scroll')]
                .find(box => box.scrollWidth > box.clientWidth);
            const cell = box.querySelector('tbody tr :first-child');
            const before = cell.getBoundingClientRect().left;
            box.scrollLeft = 150;
            return [box.scrollLeft, cell.getBoundingClientRect().left - before];
        }"""
    )
    assert moved[0] == 150 and abs(moved[1]) < 1


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_schemes(browser, report: Path, dark: bool) -> None:
    """Contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3)."""
    tab = browser(report.as_uri(), dark=dark)
    colours = tab.page.evaluate(
        """() => ['body', '.note', '.verdict', 'figcaption', 'a'].map(name => {
            const element = document.querySelector(name);
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)')
                behind = behind.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        })"""
    )
    for ink, paper in colours:
        light, deep = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (deep + 0.05) >= 4.5, (ink, paper)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    values = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
