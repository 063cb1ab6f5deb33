from xml.etree import ElementTree as ET

import pytest

from latency.correction import MeasuredNetwork
from latency.plots import BlockFacts, Blocks, block_times, shares, shares_by_task, stages_text
from tests.latency.tables import BARE, FACTS, TABLE, measured


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
    figure = ET.fromstring(block_times(TABLE, Blocks(TABLE, FACTS)))
    titles = [str(title.text) for title in figure.iter("title")]
    for key, value in TABLE.values_ms(TABLE.standalone_ms).items():
        (title,) = (title for title in titles if title.startswith(f"{key}: "))
        assert title.startswith(f"{key}: {value:.4f} ms, standalone {TABLE.standalone_ms[key]:.4f} ms; ")
