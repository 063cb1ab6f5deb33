import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_table, progress_bar, resumable, stage_lines
from fbnetv5.runs.history import Entry
from tests.command_line import SMALL, in_process


def test_a_table_has_columns_with_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["task", "loss"], [["cls", "1.5"], ["[det]", "10.25"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["task    loss", "cls      1.5", "[det]  10.25"]


def test_long_cells_of_a_table_are_not_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    path = "folder/" * 40 + "det.json"
    print_table(["task", "file"], [["det", path]])
    assert path in capsys.readouterr().out


def test_a_json_document_keeps_its_characters_where_stdout_is_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"label": "手提包"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"label": "手提包"}
    assert "手提包" in printed


def test_figures_that_are_not_finite_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"figures": [{"iou": math.nan}, (math.inf, 1.5)]})
    assert json.loads(capsys.readouterr().out) == {"figures": [{"iou": None}, [None, 1.5]]}


def test_an_interruption_is_an_error_with_the_way_to_continue() -> None:
    message = r"interrupted; finished work is kept\. To continue: fbnetv5 search --resume r"
    with pytest.raises(UserError, match=message), interruptible("fbnetv5 search --resume r"):
        raise KeyboardInterrupt


def interrupt(seen: list[Entry]) -> None:
    with resumable("search", lambda prepared: prepared.append) as run:
        run.started(Path("runs/one"), seen)
        run.report(Entry(step=3))
        raise KeyboardInterrupt


def test_an_interrupted_run_is_continued_from_its_folder() -> None:
    seen: list[Entry] = []
    with pytest.raises(UserError, match="To continue: fbnetv5 search --resume runs/one"):
        interrupt(seen)
    assert seen == [Entry(step=3)]
    with pytest.raises(KeyboardInterrupt), resumable("search", lambda prepared: print):
        raise KeyboardInterrupt


def test_skips_are_shown_when_they_become_more(capfd: pytest.CaptureFixture[str]) -> None:
    with resumable("search", lambda prepared: lambda entry: None) as run:
        run.started(Path("runs/one"), None)
        for step, (steps, images) in enumerate([(0, 0), (1, 0), (1, 0), (1, 2)]):
            run.report(Entry(step=step, skipped_steps=steps, unreadable_images=images))
    assert capfd.readouterr().err.splitlines() == [
        "step 1: 1 steps skipped, 0 unreadable images replaced so far",
        "step 3: 1 steps skipped, 2 unreadable images replaced so far",
    ]


def test_a_stage_that_begins_again_has_a_new_line() -> None:
    bar = Progress(disable=True)
    report = stage_lines(bar)
    for done in (1, 2, 1, 2):
        report("calibrate", done, 2)
    assert [(task.description, task.completed) for task in bar.tasks] == [("calibrate", 2)] * 2


def test_the_second_process_shows_no_stages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    bar = Progress(disable=True)
    stage_lines(bar)("calibrate", 1, 2)
    assert not bar.tasks
    assert capsys.readouterr().err == ""


def test_long_lines_of_progress_are_whole_where_stderr_is_a_file() -> None:
    stage = "comparing " + "x" * 100
    code = f"""
from fbnetv5.cli.console import progress_bar, stage_lines
with progress_bar() as bar:
    stage_lines(bar)({stage!r}, 1, 1)"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, last = done.stderr.splitlines()
    assert first == f"{stage}: 1 steps"
    assert last.startswith(f"{stage} ")
    assert "1/1" in last


def test_work_without_stages_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar():
        pass
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_names_that_stdout_cannot_encode_are_escaped(image_folder: Path, tmp_path: Path) -> None:
    path = image_folder / "instances.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"bag"', '"手提包"'), encoding="utf-8")
    folder = image_folder.rename(tmp_path / "图片")
    for options in (["--json"], []):
        done = in_process("space", *SMALL, "--data", str(folder), *options, cwd=tmp_path, encoding="ascii")
        assert done.returncode == 0, done.stderr
    refused = in_process("space", *SMALL, "--data", str(tmp_path / "没有"), cwd=tmp_path, encoding="ascii")
    assert (refused.returncode, "\\u6ca1\\u6709 does not exist" in refused.stderr) == (2, True)


def test_a_command_works_without_stdout() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m fbnetv5 show fbnetv3-a >&-"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
