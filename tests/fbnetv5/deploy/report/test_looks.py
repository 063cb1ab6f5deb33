import pytest

from fbnetv5.deploy.report.looks import axis_label, cost_text, line, look, marker, metric_of, scaled, unit_text
from fbnetv5.tasks import task_types


def test_a_task_has_one_colour_in_lines_and_marks_and_no_two_share_it() -> None:
    tasks = list(task_types())
    assert len({line(task)["color"] for task in tasks}) == len(tasks)
    assert all(line(task)["color"] == marker(task)["color"] for task in tasks)
    assert line("cls", width=3)["width"] == 3
    assert look("a task of someone else") == len(tasks)


def test_costs_have_their_units() -> None:
    assert (cost_text(5e6, "macs"), cost_text(1.5, "ms")) == ("5.0M", "1.5 ms")
    assert (unit_text("macs"), unit_text("params")) == ("multiply-adds", "parameters")
    assert metric_of("det").name == "ap"


@pytest.mark.parametrize(
    ("unit", "value", "label"), [("macs", 2.0, "multiply-adds, millions"), ("ms", 2e6, "predicted latency in ms")]
)
def test_multiply_adds_are_in_millions(unit: str, value: float, label: str) -> None:
    assert (scaled(2e6, unit), axis_label(unit)) == (value, label)
