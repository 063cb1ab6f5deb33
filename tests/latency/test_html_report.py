"""The report is parsed as XML, which is stricter than a browser, and its texts are checked."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from latency.correction import correct, split
from latency.html_report import BlockFacts, render
from tests.latency.tables import BARE, FACTS, STANDALONE, TABLE, WHOLE, measured

HOSTILE = "</title><script>alert('&amp;\"')</script>"


def parsed(page: str) -> ET.Element:
    return ET.fromstring(page)


def words(element: ET.Element) -> str:
    return " ".join(element.itertext())


def block_rows(page: str) -> dict[str, list[str]]:
    """The cells of the last table by block; raises if a block has two rows."""
    rows = [[words(cell) for cell in row] for row in parsed(page).findall(".//table")[-1].findall("tbody/tr")]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def test_every_block_has_one_row_with_its_numbers_in_the_order_of_strides() -> None:
    assert TABLE.correction is not None
    assert TABLE.values_kind == "corrected"
    rows = block_rows(render(TABLE, FACTS))
    assert list(rows) == ["stem@8", "conv_a@4", "conv_b@4", "conv_b@2", "head_x@8"]
    stride, stage, macs, standalone, p90, cv, corrected, _ = rows["conv_b@2"]
    assert (stride, stage, macs, standalone, p90, cv) == ("8", "1-2, 4", "2,000,000", "0.2500", "0.3125", "1.0%")
    assert float(corrected) == pytest.approx(TABLE.correction.latency_ms["conv_b@2"], abs=1e-4)
    assert rows["head_x@8"][:2] == ["4, 8", "head"]
    assert rows["conv_b@4"][-1] == "0.0%"  # no network has it


def test_every_network_is_a_point_in_both_plots_and_held_out_ones_are_filled() -> None:
    plots = parsed(render(TABLE, FACTS)).findall(".//figure/svg[@role='img']")[:2]
    fitted, held_out = split(list(WHOLE))
    for plot in plots:
        of_style = {
            style: [
                str(mark.findtext("title")) for mark in plot.findall("path") if str(mark.get("class")).endswith(style)
            ]
            for style in ("look0", "look1", "hollow", "faint")
        }
        assert len(of_style["faint"]) == len(WHOLE)
        assert sorted(title.partition(":")[0] for title in of_style["hollow"]) == sorted(fitted)
        filled = sorted(of_style["look0"] + of_style["look1"])
        assert [title.partition(":")[0] for title in filled] == sorted(held_out)
        assert all(title.startswith("cls") for title in of_style["look0"])


def test_the_report_loads_nothing_and_has_no_script() -> None:
    page = render(TABLE, FACTS)
    assert not re.search(r"https?:|//\w|url\(|@import|<script|<link|<img|\bon\w+=|src=|href=", page)
    assert len(page.encode()) < 60_000
    HTMLParser().feed(page)


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
    assert not {"script", "b"} & {element.tag for element in parsed(page).iter()}
    assert hostile in block_rows(page)
    heading = parsed(page).find(".//h1")
    assert heading is not None
    assert words(heading) == f"Latency table {hostile}-fp32-b1"


def test_without_networks_the_report_has_a_remark_and_no_empty_axes() -> None:
    page = render(BARE, FACTS)
    text = words(parsed(page))
    assert "Not verified: no whole network was measured" in text
    assert "There is no correction to compare with" in text
    assert len(parsed(page).findall(".//svg[@role='img']")) == 2
    assert {row[-2] for row in block_rows(page).values()} == {"-"}


def test_a_correction_that_does_not_help_is_shown_and_not_used() -> None:
    assert TABLE.correction is not None
    report = TABLE.correction.held_out
    worse = report.model_copy(update={"predicted": report.standalone.model_copy(update={"mape": 0.9})})
    correction = TABLE.correction.model_copy(update={"held_out": worse})
    page = parsed(render(TABLE.changed(correction=correction), FACTS))
    used = page.find(".//tr[@class='used']/th")
    assert used is not None
    assert words(used) == "plain sum of blocks"
    assert "It is not used, since it does not predict better" in words(page)
    assert len(page.findall(".//figure/svg[@role='img']")[0].findall("path")) == len(WHOLE)


def test_blocks_of_another_space_are_shown_and_unstable_ones_marked() -> None:
    table = TABLE.changed(entries={**TABLE.entries, "stem@8": measured(0.5, cv=0.2)})
    page = render(table, FACTS[:1])
    marked = parsed(page).findall(".//tr[@class='unstable']/th")
    assert [words(cell) for cell in marked] == ["stem@8"]
    assert block_rows(page)["stem@8"][:3] == ["-", "-", "-"]
    assert "20.0% (varies)" in block_rows(page)["stem@8"]
    assert "The multiply-adds of the blocks are unknown." in words(parsed(render(table, [])))
