import math
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.svg import Axis, Bar, Point, bars, linear_ticks, log_ticks, marker, scatter

MEANT = [
    (linear_ticks, (3.78, 23.4), (0, 5, 10, 15, 20, 25)),
    (linear_ticks, (-0.2, 0.1), (-0.2, -0.1, 0, 0.1)),
    (linear_ticks, (0, 0), (0, 0.1)),
    (linear_ticks, (5, 5), (5, 5.1)),
    (log_ticks, (0.03, 1.1), (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)),
    (log_ticks, (0.002, 900), (1e-3, 1e-2, 0.1, 1, 10, 100, 1000)),
    (log_ticks, (5, 5), (5, 10)),
    (log_ticks, (999.9999999999999, 1500), (500, 1000, 2000)),  # its logarithm is rounded to 3
]


def mantissa(value: float) -> float:
    """The number scaled to 1 or more and below 10; 0 stays."""
    return float(f"{abs(value):.6e}".partition("e")[0])


@pytest.mark.parametrize(("ticks", "span", "expected"), MEANT)
def test_ticks_equal_a_manual_choice(
    ticks: Callable[[float, float], tuple[float, ...]], span: tuple[float, float], expected: tuple[float, ...]
) -> None:
    assert ticks(*span) == expected


@given(
    low=st.floats(-1e9, 1e9, allow_subnormal=False),
    span=st.floats(1e-3, 1e9),
    most=st.integers(3, 12),
)
def test_linear_ticks_are_few_even_and_round_and_cover_the_range(low: float, span: float, most: int) -> None:
    high = low + span
    ticks = linear_ticks(low, high, most)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= most
    assert ticks[0] <= low + 1e-9 * step
    assert ticks[-1] >= high - 1e-9 * step
    assert ticks[0] > low - step * 1.001
    assert ticks[-1] < high + step * 1.001
    assert [b - a for a, b in pairwise(ticks)] == pytest.approx([step] * (len(ticks) - 1), rel=1e-3)
    assert min(abs(mantissa(step) - factor) for factor in (1, 2, 5, 10)) < 1e-3


@given(low=st.floats(1e-9, 1e9), factor=st.floats(1, 1e9), most=st.integers(3, 12))
def test_logarithmic_ticks_are_few_and_round_and_cover_the_range(low: float, factor: float, most: int) -> None:
    high = low * factor
    ticks = log_ticks(low, high, most)
    assert 2 <= len(ticks) <= most
    assert ticks[0] <= low * (1 + 1e-12)
    assert ticks[-1] >= high * (1 - 1e-12)
    assert list(ticks) == sorted(set(ticks))
    assert {mantissa(tick) for tick in ticks} <= {1, 2, 5}


@given(value=st.floats(0.02, 2))
def test_a_logarithmic_axis_gives_equal_factors_equal_lengths(value: float) -> None:
    axis = Axis.logarithmic("ms", [0.02, 2])
    assert (axis.part(0.02), axis.part(2)) == pytest.approx((0, 1))
    assert axis.part(value) == pytest.approx(math.log10(value / 0.02) / 2)


def test_points_are_at_their_values_with_their_tooltips() -> None:
    axis = Axis.linear("<ms>", [0, 10])
    points = [Point(x=0, y=0, title='a & "b"', look=0), Point(x=10, y=5, title="c", look=7, style="hollow")]
    drawn = ET.fromstring(scatter(axis, axis, points, lines=[[(0, 0), (10, 10)]]))
    marks = drawn.findall("path")
    assert [mark.findtext("title") for mark in marks] == ['a & "b"', "c"]
    assert [mark.get("class") for mark in marks] == ["mark look0", "mark look1 hollow"]
    assert [mark.get("transform") for mark in marks] == ["translate(54.0 284.0)", "translate(428.0 147.0)"]
    assert [text.text for text in drawn.findall("text")].count("<ms>") == 2
    line = drawn.find("svg/polyline")
    assert line is not None
    assert line.get("points") == "0.0,274.0 374.0,0.0"


def test_bars_have_the_length_of_their_values_under_their_groups() -> None:
    def bar(name: str, value: float, reference: float | None = None) -> Bar:
        return Bar(name=name, value=value, note=f"{value} ms", title=name, look=0, reference=reference)

    axis = Axis.linear("ms", [0, 4])
    drawn = ET.fromstring(bars(axis, [("first", [bar("a<b", 1, 2)]), ("second", [bar("c", 4)])]))
    widths = [float(rectangle.get("width", "")) for rectangle in drawn.iter("rect")]
    assert widths == [105, 210, 420]
    texts = [text.text for text in drawn.iter("text")]
    assert [text for text in texts if text in ("first", "a<b", "second", "c")] == ["first", "a<b", "second", "c"]
    height = float(drawn.get("viewBox", "").split()[3])
    assert all(float(text.get("y", "0")) < height for text in drawn.iter("text"))


def test_a_marker_is_the_mark_of_its_points() -> None:
    mark = ET.fromstring(marker(2, "faint")).find("path")
    axis = Axis.linear("ms", [0, 1])
    drawn = ET.fromstring(scatter(axis, axis, [Point(x=0, y=0, title="", look=2, style="faint")])).find("path")
    assert mark is not None
    assert drawn is not None
    assert (mark.get("class"), mark.get("d")) == (drawn.get("class"), drawn.get("d"))
