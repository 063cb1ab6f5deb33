import pytest

from latency.page.content import Figure, Figures, Table, is_number
from latency.page.plots import axis, make_plot, scatter


@pytest.mark.parametrize(
    ("cell", "expected"), [("1.5", True), ("-2 %", True), ("1x1", True), ("cls", False), ("", False)]
)
def test_cells_that_begin_with_a_digit_are_numbers(cell: str, expected: bool) -> None:
    assert is_number(cell) is expected


def test_a_column_is_numeric_if_all_its_values_are() -> None:
    table = Table(head=["task", "value", "mixed", "empty"], rows=[["cls", "1", "2", "-"], ["det", "-", "two", ""]])
    assert table.numeric == [False, True, False, False]


def test_an_odd_number_of_figures_is_set_in_narrow_columns() -> None:
    plot = make_plot([scatter([1], [2])], x=axis("a"), y=axis("b"), height=123)
    figure = Figure(title="t", caption="c", plot=plot)
    assert figure.height == 123
    assert [Figures(items=[figure] * count).narrow for count in (1, 2, 3, 4)] == [False, False, True, False]
