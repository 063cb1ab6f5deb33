"""The contents of the report are checked as values; one test reads its HTML."""

from typing import Any

import pytest

from latency.correction import correct, split
from latency.html_report import BlockFacts, make_page, render
from latency.page.content import Figure, Figures, Page, Table, Text
from latency.table import LatencyTable
from tests.html_pages import Elements, mistakes_of
from tests.latency.tables import BARE, FACTS, STANDALONE, TABLE, WHOLE, measured

HOSTILE = "</title><script>alert('&amp;\"')</script>"


def items_of(page: Page) -> list[Any]:
    return [*page.lead, *(item for section in page.sections for item in section.items)]


def figures(page: Page) -> dict[str, Figure]:
    """The figures by title."""
    singles = [item for item in items_of(page) if isinstance(item, Figure)]
    groups = [figure for item in items_of(page) if isinstance(item, Figures) for figure in item.items]
    return {figure.title: figure for figure in [*groups, *singles]}


def words(page: Page) -> str:
    return " ".join(sentence for item in items_of(page) if isinstance(item, Text) for sentence in item.paragraphs)


def blocks_table(table: LatencyTable, facts: list[BlockFacts]) -> Table:
    """The table of all blocks, the last one."""
    return [item for item in items_of(make_page(table, facts)) if isinstance(item, Table)][-1]


def block_rows(table: LatencyTable, facts: list[BlockFacts]) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in blocks_table(table, facts).rows}


def test_every_block_has_one_row_with_its_numbers_in_the_order_of_strides() -> None:
    assert TABLE.correction is not None
    assert TABLE.values_kind == "corrected"
    rows = block_rows(TABLE, FACTS)
    assert list(rows) == ["stem@8", "conv_a@4", "conv_b@4", "conv_b@2", "head_x@8"]
    stride, stage, macs, standalone, p90, cv, corrected, _ = rows["conv_b@2"]
    assert (stride, stage, macs, standalone, p90, cv) == ("8", "1-2, 4", "2,000,000", "0.2500", "0.3125", "1.0%")
    assert float(corrected) == pytest.approx(TABLE.correction.latency_ms["conv_b@2"], abs=1e-4)
    assert rows["head_x@8"][:2] == ["4, 8", "head"]
    assert rows["conv_b@4"][-1] == "0.0%"  # no network has it


def test_every_network_is_a_point_in_both_plots_and_held_out_ones_are_filled() -> None:
    plots = list(figures(make_page(TABLE, FACTS)).values())[:2]
    fitted, held_out = split(list(WHOLE))
    for figure in plots:
        marks = [trace for trace in figure.plot.data if trace.mode == "markers"]
        faint = [text for trace in marks if trace.opacity != 1 for text in trace.text]
        hollow = [text for trace in marks if trace.marker.symbol.endswith("-open") for text in trace.text]
        filled = [text for trace in marks if trace.opacity == 1 for text in trace.text if text not in hollow]
        assert len(faint) == len(WHOLE)
        assert sorted(text.partition("<br>")[0] for text in hollow) == sorted(fitted)
        assert sorted(text.partition("<br>")[0] for text in filled) == sorted(held_out)
        assert len({trace.marker.color for trace in marks}) == 2  # of the two tasks


@pytest.mark.parametrize("hostile", [HOSTILE, "a]]> b", "'><svg onload=x>", "&lt;b&gt;"])
def test_texts_of_a_table_are_escaped(hostile: str) -> None:
    entries = {**BARE.entries, hostile: measured(1.0, cv=0.5)}
    whole = {**WHOLE, f"{hostile}@1": WHOLE["cls@8x8_1"].model_copy(update={"task": hostile})}
    costs = correct({**STANDALONE, hostile: 1.0}, list(whole.values()))
    table = BARE.changed(
        device=hostile, fingerprint={hostile: hostile}, entries=entries, networks=whole, correction=costs
    )
    facts = [*FACTS, BlockFacts(key=hostile, strides=(4,), stages=(0,), macs=1)]
    page = render(table, facts)
    assert mistakes_of(page) == []
    assert not {"b", "svg"} & {element.tag for element in Elements(page).all}
    assert hostile in block_rows(table, facts)
    assert Elements(page).of("h1")[0].text == f"Latency table {hostile}-fp32-b1"


def test_without_networks_the_report_has_a_remark_and_no_empty_axes() -> None:
    page = make_page(BARE, FACTS)
    assert "Not verified: no whole network was measured" in words(page)
    assert "There is no correction to compare with" in words(page)
    assert list(figures(page)) == ["Time against multiply-adds", "Time of every block"]
    assert {row[-2] for row in block_rows(BARE, FACTS).values()} == {"-"}


def test_a_correction_that_does_not_help_is_shown_and_not_used() -> None:
    assert TABLE.correction is not None
    report = TABLE.correction.held_out
    worse = report.model_copy(update={"predicted": report.standalone.model_copy(update={"mape": 0.9})})
    page = make_page(TABLE.changed(correction=TABLE.correction.model_copy(update={"held_out": worse})), FACTS)
    accuracy = next(item for item in page.lead if isinstance(item, Table))
    assert {accuracy.rows[number][0]: name for number, name in accuracy.marked.items()} == {
        "plain sum of blocks": "used"
    }
    shown = figures(page)
    assert "It is not used, since it does not predict better" in shown["What the correction changes"].caption
    marks = [trace for trace in shown["Error by size"].plot.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in marks) == len(WHOLE)


def test_blocks_of_another_space_are_shown_and_unstable_ones_marked() -> None:
    table = TABLE.changed(entries={**TABLE.entries, "stem@8": measured(0.5, cv=0.2)})
    marked = blocks_table(table, FACTS[:1])
    assert [marked.rows[number][0] for number in marked.marked] == ["stem@8"]
    rows = block_rows(table, FACTS[:1])
    assert rows["stem@8"][:3] == ["-", "-", "-"]
    assert "20.0% (varies)" in rows["stem@8"]
    assert "The multiply-adds of the blocks are unknown." in words(make_page(table, []))
