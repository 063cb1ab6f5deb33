"""Every page in a browser: no error, no request, no empty plot, nothing wider than the window, usable by keyboard."""

from pathlib import Path

import pytest

from tests.browser.browser import Browser
from tests.browser.conftest import PAGES
from tests.html_pages import mistakes_of

pytestmark = pytest.mark.slow
WIDTHS = (360, 1280, 2560)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_at_every_width(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    opened = browser.open(pages[name], width=width)
    assert opened.messages == []
    assert opened.requests == []
    assert opened.overflow == 0
    assert opened.marks
    assert [plot for plot, marks in opened.marks.items() if marks == 0] == []


@pytest.mark.parametrize("name", PAGES)
def test_the_structure_and_the_size_of_a_page_are_right(pages: dict[str, Path], name: str) -> None:
    html = pages[name].read_text(encoding="utf-8")
    assert mistakes_of(html) == []
    assert len(html.encode()) < 6_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_have_the_colours_of_the_theme(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    opened = browser.open(pages["search"], width=1280, scheme=scheme)
    assert opened.messages == []
    ink = browser.run("return getComputedStyle(document.body).color")
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    texts = browser.run(
        "return [...new Set([...document.querySelectorAll('.legendtext')].map((text) => getComputedStyle(text).fill))]"
    )
    assert texts == [ink]
    assert (brightness(ink) < brightness(paper)) == (scheme == "light")
    assert "var(" not in browser.run("return document.querySelector('.plot svg').outerHTML")


def brightness(colour: str) -> float:
    """Sum of the channels of "rgb(1, 2, 3)"."""
    return sum(float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3])


def test_a_change_of_the_theme_draws_the_plots_again(browser: Browser, pages: dict[str, Path]) -> None:
    fill = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    browser.open(pages["search"], width=1280, scheme="light")
    light = browser.run(fill)
    browser.emulate("dark")
    assert browser.run(fill) != light


def test_the_keyboard_reaches_the_content_and_what_unfolds(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["search"], width=1280)
    assert browser.press("TAB") == "a.skip#"
    assert browser.run("return document.querySelector('.skip').getBoundingClientRect().top") >= 0
    assert browser.press("ENTER") == "main.#content"
    folded = "document.querySelectorAll('details').forEach((details) => { details.open = false; });"
    browser.run(f"{folded} document.querySelector('summary').focus()")
    browser.press("ENTER")
    assert browser.run("return document.querySelector('details').open")
