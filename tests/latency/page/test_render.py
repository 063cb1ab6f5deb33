"""The HTML is read without a browser; ``tests/browser`` opens pages in one."""

import json
import re
import subprocess
import sys

import pytest

from latency.page.content import (
    EmbeddedImage,
    Facts,
    Figure,
    Figures,
    Folded,
    Gallery,
    Item,
    Notes,
    Page,
    Section,
    Table,
    Text,
)
from latency.page.plots import axis, make_plot, plain, scatter
from latency.page.render import plot_json, render
from tests.html_pages import Elements, mistakes_of

HOSTILE = [
    "</title><script>alert('&amp;\"')</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; {{ 7 * 7 }} {% raw %}",
]


def figure(text: str = "A plot") -> Figure:
    plot = make_plot([scatter([1, 2], [3, 4], name=text, text=[plain(text)] * 2)], x=axis(text), y=axis("y"))
    return Figure(title=text, caption=text, plot=plot, table=Table(head=[text, "y"], rows=[[text, "3"]]), wide=True)


def page(text: str, *, plots: bool = True) -> Page:
    table = Table(head=[text, "value"], rows=[[text, "1"], ["b", "2"]], caption=text, marked={1: "used"})
    items: list[Item] = [
        Text(paragraphs=[text], style="warning"),
        Facts(values={text: text}),
        table,
        Gallery(title=text, images=[EmbeddedImage(url="data:,", alt=text, caption=text)]),
        Notes(items=[text]),
        Folded(summary=text, items=[table]),
    ]
    if plots:
        items += [figure(text), Figures(items=[figure(text), figure(text)])]
    sections = [Section(name=name, title=text, items=items) for name in ("a", "b", "c")]
    return Page(title=text, kicker=text, lead=[Text(paragraphs=[text])], sections=sections, footer=text)


@pytest.mark.parametrize("text", ["plain", *HOSTILE])
def test_every_kind_of_content_is_valid_and_escaped(text: str) -> None:
    html = render(page(text))
    assert mistakes_of(html) == []
    elements = Elements(html)
    words = " ".join(text.split())
    assert (elements.of("h1")[0].text, elements.of("title")[0].text) == (words, f"{words}: {words}")
    for tag in ("h2", "h3", "dt", "dd", "caption", "li", "summary", "p"):
        assert words in [element.text for element in elements.of(tag)], tag
    assert {element.attributes["src"] for element in elements.of("img")} == {"data:,"}
    assert not [element for element in elements.all for name in element.attributes if name.startswith("on")]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_json_of_a_plot_ends_no_element_and_keeps_its_texts(text: str) -> None:
    written = plot_json(figure(text))
    assert not set("<>&") & set(written)
    assert json.loads(written)["layout"]["xaxis"]["title"]["text"] == plain(text)


def test_plotly_is_in_a_page_once_and_only_if_there_is_a_plot() -> None:
    with_plots, without = render(page("x")), render(page("x", plots=False))
    assert len(re.findall("plotly.js v", with_plots)) == 1
    assert len(without) < 30_000
    assert not Elements(without).of("script")


def test_a_page_forbids_itself_to_load_anything() -> None:
    html = render(page("x"))
    policy = next(element for element in Elements(html).of("meta") if "http-equiv" in element.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data: blob:;")
    own = html.replace(re.findall("<script>.*?</script>", html, re.DOTALL)[0], "")  # without plotly.js
    assert not re.search(r"https?:|//\w|url\(|@import", own)


def test_jinja_and_plotly_load_on_use() -> None:
    code = "import latency.html_report, latency.page.render, sys; print({'jinja2', 'plotly'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
