import pytest

from latency.correction import MeasuredNetwork
from latency.plots import (
    BlockFacts,
    Blocks,
    block_times,
    correction_by_time,
    errors_by_size,
    predicted_against_measured,
    predictions,
    shares,
    shares_by_task,
    stages_text,
    time_by_macs,
)
from tests.latency.tables import BARE, FACTS, STANDALONE, TABLE, WHOLE, measured


def test_shares_are_relative_to_the_total_predicted_time() -> None:
    first = MeasuredNetwork(task="det", blocks={"stem@8": 1, "conv_a@4": 3}, macs=1, measurement=measured(4))
    second = MeasuredNetwork(task="det", blocks={"stem@8": 1}, macs=1, measurement=measured(1))
    part = shares(BARE, [first, second])
    assert part == pytest.approx({"stem@8": 0.25, "conv_a@4": 0.75, "conv_b@4": 0, "conv_b@2": 0, "head_x@8": 0})
    by_task = shares_by_task(TABLE, Blocks(TABLE, FACTS))
    assert list(by_task) == ["cls", "det"]
    assert [list(parts) for parts in by_task.values()] == [["stride 2", "stride 4", "stride 8", "heads"]] * 2
    assert [sum(parts.values()) for parts in by_task.values()] == pytest.approx([1, 1])


@pytest.mark.parametrize(("stages", "text"), [((), ""), ((3,), "3"), ((0, 1, 2), "0-2"), ((0, 2, 3, 5), "0, 2-3, 5")])
def test_stages_are_formatted_as_ranges(stages: tuple[int, ...], text: str) -> None:
    assert stages_text(BlockFacts(key="a", strides=(4,), stages=stages, macs=1)) == text


def test_blocks_are_grouped_by_stride_and_blocks_of_another_space_come_last() -> None:
    blocks = Blocks(TABLE, FACTS[:3])
    assert blocks.groups == {
        "stride 2": ["stem@8"],
        "stride 8": ["conv_b@2"],
        "heads": ["head_x@8"],
        "of another space": ["conv_a@4", "conv_b@4"],
    }
    assert [blocks.describe(key) for key in ("conv_b@2", "head_x@8", "conv_a@4")] == [
        "stages 1-2, 4",
        "head",
        "of another space",
    ]


def test_every_block_has_a_bar_with_its_latencies() -> None:
    figure = block_times(TABLE, Blocks(TABLE, FACTS))
    drawn = {
        key: value
        for trace in figure.plot.data
        if trace.type == "bar"
        for key, value in zip(trace.y, trace.x, strict=True)
    }
    assert drawn == TABLE.values_ms(TABLE.standalone_ms)
    (marks,) = [trace for trace in figure.plot.data if trace.type == "scatter"]
    assert dict(zip(marks.y, marks.x, strict=True)) == TABLE.standalone_ms


def test_predictions_are_the_sums_of_the_values_in_use() -> None:
    of_key = {(point.key, point.predictor): point for point in predictions(TABLE)}
    for key, network in WHOLE.items():
        plain_sum = sum(STANDALONE[block] * times for block, times in network.blocks.items())
        point = of_key[key, "plain sum"]
        assert point.predicted_ms - TABLE.overhead_ms == pytest.approx(plain_sum, abs=2 * TABLE.overhead_ms)
        assert point.measured_ms == network.measurement.latency_ms_median
    assert {point.predictor for point in predictions(BARE.changed(networks=WHOLE))} == {"plain sum"}


def test_marks_lie_at_the_measured_and_the_predicted_time() -> None:
    points = predictions(TABLE)
    for figure, expected in (
        (predicted_against_measured(TABLE), {(point.measured_ms, point.predicted_ms) for point in points}),
        (errors_by_size(TABLE), {(point.measured_ms, 100 * point.error) for point in points}),
    ):
        marks = [trace for trace in figure.plot.data if trace.mode == "markers"]
        assert {mark for trace in marks for mark in zip(trace.x, trace.y, strict=True)} == expected


def test_blocks_lie_at_their_multiply_adds_and_the_change_by_the_correction() -> None:
    blocks = Blocks(TABLE, FACTS)
    assert TABLE.correction is not None
    corrected = TABLE.correction.latency_ms
    by_macs = {(block.macs / 1e6, STANDALONE[block.key]) for block in FACTS}
    change = {(time, 100 * (corrected[key] / time - 1)) for key, time in STANDALONE.items()}
    for figure, expected in ((time_by_macs(TABLE, blocks), by_macs), (correction_by_time(TABLE, blocks), change)):
        marks = [trace for trace in figure.plot.data if trace.mode == "markers"]
        assert {mark for trace in marks for mark in zip(trace.x, trace.y, strict=True)} == expected
