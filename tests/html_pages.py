"""Reads the HTML of a page without a browser: elements with their texts, and mistakes of its structure."""

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "img", "br", "hr", "input"}
"""Elements without an end."""


@dataclass(slots=True)
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text in it, that of inner elements too."""
        return " ".join("".join(self.parts).split())


class Elements(HTMLParser):
    """Collects the elements of a page in order, and mistakes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[Element] = []
        self.mistakes: list[str] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        self.mistakes += [f"<{element.tag}> has no end" for element in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.mistakes += [f"<{tag}> has {name} twice" for name, count in Counter(names).items() if count > 1]
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.all.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1].tag != tag:
            self.mistakes.append(f"</{tag}> ends {self._open[-1].tag if self._open else 'nothing'}")
            return
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.parts.append(data)

    def of(self, tag: str) -> list[Element]:
        """The elements with a tag."""
        return [element for element in self.all if element.tag == tag]


def mistakes_of(page: str) -> list[str]:
    """What is wrong with the structure of a page, for browsers and for screen readers."""
    elements = Elements(page)
    mistakes = list(elements.mistakes)
    if not page.startswith("<!DOCTYPE html>") or not elements.of("html")[0].attributes.get("lang"):
        mistakes.append("no doctype or no language")
    if [title.text for title in elements.of("title")] in ([], [""]):
        mistakes.append("no title")
    levels = [int(element.tag[1]) for element in elements.all if element.tag in ("h1", "h2", "h3", "h4")]
    if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
        mistakes.append(f"headings of levels {levels}")
    identifiers = Counter(element.attributes["id"] for element in elements.all if "id" in element.attributes)
    mistakes += [f"id {name} occurs twice" for name, count in identifiers.items() if count > 1]
    mistakes += [
        f"{element.attributes['href']} leads nowhere"
        for element in elements.of("a")
        if element.attributes.get("href", "")[:1] != "#" or element.attributes["href"][1:] not in identifiers
    ]
    mistakes += ["an image without a text" for image in elements.of("img") if not image.attributes.get("alt")]
    plots = [element for element in elements.all if "plot" in element.attributes.get("class", "").split()]
    return mistakes + ["a plot without a text" for plot in plots if not plot.attributes.get("aria-label")]
