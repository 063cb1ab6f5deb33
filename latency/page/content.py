"""The contents of a page as values: sections with text, facts, tables, figures, images and lists.

A module that reports something builds these values; ``render.py`` makes HTML of them. Texts are plain: the templates
escape them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Paragraphs."""

    kind: ClassVar[str] = "text"
    paragraphs: Sequence[str]
    style: str = ""
    """"soft" for remarks, "summary" for the most important sentences, "warning" for what needs attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values of a few settings or figures."""

    kind: ClassVar[str] = "facts"
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose first column names the rows."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    """Names of the columns, with units."""
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Mapping[int, str] = field(default_factory=dict)
    """By number of a row: its class, such as "used" or "unstable"."""

    @property
    def numeric(self) -> list[bool]:
        """By column: whether its cells are numbers, which are aligned at the right."""
        columns = [
            [row[number] for row in self.rows if row[number] not in ("", "-")] for number in range(len(self.head))
        ]
        return [bool(cells) and all(is_number(cell) for cell in cells) for cells in columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot with its title, how to read it, and the numbers of its marks."""

    kind: ClassVar[str] = "figure"
    title: str
    caption: str
    plot: "Plot"
    table: Table | None = None
    """The numbers of the plot, for readers who do not see it; folded below it."""
    wide: bool = False
    """Whether it needs the whole width of the page."""

    @property
    def height(self) -> int:
        """Height of the plot in pixels."""
        return int(self.plot.layout.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedImage:
    """An image inside of the page."""

    url: str
    """A data URL."""
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Images side by side, under a title."""

    kind: ClassVar[str] = "gallery"
    title: str
    images: Sequence[EmbeddedImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """A list of sentences."""

    kind: ClassVar[str] = "notes"
    items: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """Contents that are shown on demand."""

    kind: ClassVar[str] = "folded"
    summary: str
    items: Sequence["Item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures side by side where the page is wide enough."""

    kind: ClassVar[str] = "figures"
    items: Sequence[Figure]

    @property
    def narrow(self) -> bool:
        """Whether three stand side by side on a usual screen: so that no row has one figure alone."""
        return len(self.items) % 2 == 1 and len(self.items) > 1


Item: TypeAlias = Text | Facts | Table | Figure | Gallery | Notes | Folded | Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page under a heading."""

    name: str
    """Of the anchor: small letters and hyphens."""
    title: str
    items: Sequence[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    kicker: str
    """A few words above the title: what the page is about."""
    lead: Sequence[Item]
    """Contents before the first section."""
    sections: Sequence[Section]
    footer: str


def is_number(cell: str) -> bool:
    """Whether a cell of a table is a number, maybe with a sign, a unit, or a remark in brackets."""
    return cell.lstrip("+-")[:1].isdigit()


def side_by_side(figures: Sequence[Figure | None]) -> list[Item]:
    """The figures that there are, side by side; nothing if there is none."""
    shown = [figure for figure in figures if figure is not None]
    return [Figures(items=shown)] if shown else []
