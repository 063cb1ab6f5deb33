"""Makes one HTML file of a page's contents: templates by Jinja2 with all texts escaped, plots by Plotly.

The file opens anywhere: it contains plotly.js once, loads nothing, and its content security policy forbids to. Jinja2
and Plotly load on use.
"""

import json
from functools import cache
from typing import TYPE_CHECKING

from latency.page.content import Figure, Item, Page

if TYPE_CHECKING:
    from jinja2 import Environment


def render(page: Page) -> str:
    """Render the page as HTML text."""
    environment = _environment()
    return environment.get_template("page.html").render(page=page, plotly=_plotly_script(page))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("latency.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plot_json"] = plot_json
    return environment


def plot_json(figure: Figure) -> str:
    """The plot as JSON that may stand in a script element: no character of it ends the element."""
    text = json.dumps(json.loads(figure.plot.to_json()), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly_script(page: Page) -> str:
    """The text of plotly.js; empty for a page without a plot."""
    items = [*page.lead, *(item for section in page.sections for item in section.items)]
    if not any(_has_plot(item) for item in items):
        return ""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _has_plot(item: Item) -> bool:
    return item.kind == "figure" or any(
        _has_plot(inner) for inner in getattr(item, "items", ()) if hasattr(inner, "kind")
    )
