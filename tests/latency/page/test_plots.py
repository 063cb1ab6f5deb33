import pytest

from latency.page.plots import (
    COLOURS,
    axis,
    bars,
    colour,
    colour_bar,
    dash,
    heatmap,
    make_plot,
    number,
    plain,
    scatter,
    series_table,
    symbol,
)


def test_the_first_series_differ_in_colour_and_shape() -> None:
    looks = [(colour(n), symbol(n)) for n in range(COLOURS)]
    assert len({look[0] for look in looks}) == len({look[1] for look in looks}) == COLOURS
    assert (colour(COLOURS), symbol(COLOURS), dash(COLOURS)) == (colour(0), symbol(0), dash(0))


def test_texts_are_shown_as_they_are() -> None:
    assert plain("<a href='x'>&</a>") == "&lt;a href='x'&gt;&amp;&lt;/a&gt;"
    assert scatter([1], [2], name="<b>").name == "&lt;b&gt;"
    assert axis("<i>")["title"]["text"] == colour_bar("<i>")["title"]["text"] == "&lt;i&gt;"


def test_a_plot_has_the_values_of_its_traces() -> None:
    traces = [scatter([1, 2], [3, 4]), bars([5], ["a"]), heatmap([[0.5]], x=["u"], y=["v"])]
    plot = make_plot(traces, x=axis("x"), y=axis("y", type="log"), barmode="stack")
    assert [trace.type for trace in plot.data] == ["scatter", "bar", "heatmap"]
    assert (plot.data[0].x, plot.data[0].y, plot.data[1].x) == ((1, 2), (3, 4), (5,))
    assert (plot.layout.yaxis.type, plot.layout.barmode) == ("log", "stack")


def test_series_of_different_steps_are_one_table() -> None:
    table = series_table("step", {"cls": {10: 0.5, 20: 0.25}, "det": {20: 1.0}})
    assert table.rows == [["10", "0.5", "-"], ["20", "0.25", "1"]]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.01235"), (9999, "9999"), (31_830_000, "31.83 M"), (-2e10, "-20 G")]
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text
