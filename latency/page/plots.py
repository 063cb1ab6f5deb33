"""Plotly figures in the look of the pages: colours that follow the page's light or dark theme, and plain texts.

Colours are CSS variables of ``templates/style.css``, such as ``var(--c0)``; the script of the page puts their values
in, and draws the plots again when the theme changes. Plotly loads on use.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from latency.page.content import Table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

COLOURS = 8
"""Number of colours of series; colour-blind readers can distinguish neighbours, and each has a shape of its own."""
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
HEIGHT = 320
"""Usual height of a plot in pixels."""
INK, SOFT, GRID, PAPER, BAND, CLEAR = (
    "var(--ink)",
    "var(--soft)",
    "var(--grid)",
    "var(--paper)",
    "var(--band)",
    "rgba(0,0,0,0)",
)
SCALE = ((0.0, "var(--scale-low)"), (0.5, "var(--scale-middle)"), (1.0, "var(--scale-high)"))
"""Colours from low to high values."""


def colour(number: int) -> str:
    """The colour of a series."""
    return f"var(--c{number % COLOURS})"


def symbol(number: int) -> str:
    """The shape of a series' points."""
    return SYMBOLS[number % COLOURS]


def dash(number: int) -> str:
    """The dashes of a series' line."""
    return DASHES[number % COLOURS]


def plain(text: str) -> str:
    """A text for a plot that shows every character as it is: Plotly reads some HTML."""
    return escape(text, quote=False)


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """An axis with a title that has the unit."""
    return {
        "title": {"text": plain(title), "font": {"color": SOFT, "size": 12}, "standoff": 10},
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "tickfont": {"color": SOFT, "size": 11},
        "automargin": True,
        "ticks": "",
        **settings,
    }


def make_plot(
    traces: Sequence[Any],
    *,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    height: int = HEIGHT,
    legend: bool = True,
    **layout: Any,
) -> "Plot":
    """A figure of these traces on the axes of ``axis``."""
    from plotly import graph_objects

    return graph_objects.Figure(
        data=traces,
        layout={
            "template": graph_objects.layout.Template(),
            "height": height,
            "margin": {"l": 48, "r": 12, "t": 8, "b": 44},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
            "hoverlabel": {"bgcolor": PAPER, "bordercolor": SOFT, "font": {"color": INK}, "align": "left"},
            "hovermode": "closest",
            "showlegend": legend,
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "font": {"size": 12}},
            "xaxis": dict(x),
            "yaxis": dict(y),
            **layout,
        },
    )


def scatter(x: Sequence[Any], y: Sequence[Any], *, name: str = "", **settings: Any) -> Any:
    """Points or lines."""
    from plotly import graph_objects

    return graph_objects.Scatter(x=list(x), y=list(y), name=plain(name), **settings)


def bars(x: Sequence[Any], y: Sequence[Any], *, name: str = "", **settings: Any) -> Any:
    """Bars."""
    from plotly import graph_objects

    return graph_objects.Bar(x=list(x), y=list(y), name=plain(name), **settings)


def heatmap(z: Sequence[Sequence[float | None]], *, x: Sequence[Any], y: Sequence[Any], **settings: Any) -> Any:
    """Cells coloured by value."""
    from plotly import graph_objects

    defaults: dict[str, Any] = {"colorscale": [list(stop) for stop in SCALE], "xgap": 1, "ygap": 1}
    return graph_objects.Heatmap(z=[list(row) for row in z], x=list(x), y=list(y), **defaults | settings)


def colour_bar(title: str, **settings: Any) -> dict[str, Any]:
    """The legend of a colour scale, beside the plot."""
    return {
        "title": {"text": plain(title), "font": {"color": SOFT, "size": 11}},
        "thickness": 10,
        "outlinewidth": 0,
        "tickfont": {"color": SOFT, "size": 11},
        **settings,
    }


def series_table(x: str, columns: Mapping[str, Mapping[Any, float]], *, digits: int = 4) -> Table:
    """The numbers of several series in one table, a row for each value of x.

    Args:
        x: name of the first column.
        columns: by name of a series with its unit: value by x.
        digits: significant digits.
    """
    keys = sorted({key for values in columns.values() for key in values})
    rows = [
        [f"{key:g}", *(number(values[key], digits) if key in values else "-" for values in columns.values())]
        for key in keys
    ]
    return Table(head=[x, *columns], rows=rows)


def number(value: float, digits: int = 4) -> str:
    """A number with this many significant digits, in thousands, millions or billions above 10,000."""
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= max(factor, 1e4):
            return f"{value / factor:.{digits}g}{letter}"
    return f"{value:.{digits}g}"
