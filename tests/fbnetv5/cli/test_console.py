import json

import pytest

from fbnetv5.cli.console import outermost, print_json, print_table


def test_only_the_first_stage_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    report = outermost(lambda *stage: seen.append(stage))
    for stage in (("build", 0, 2), ("tactics", 1, 9), ("build", 1, 2)):
        report(*stage)
    assert seen == [("build", 0, 2), ("build", 1, 2)]


def test_a_table_stands_in_columns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["task", "loss"], [["cls", "1.5"], ["[det]", "10.25"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["task    loss", "cls      1.5", "[det]  10.25"]


def test_a_json_document_keeps_its_characters_where_stdout_is_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"label": "手提包"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"label": "手提包"}
    assert "手提包" in printed
