"""``fbnetv5 report`` as a user types it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import assert_refused, document, in_process
from tests.contract.stored import stored_run


def set_schema(run: Path) -> None:
    document = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps(document | {"schema": 99}), encoding="utf-8")


def cut(run: Path) -> None:
    text = (run / "history.jsonl").read_text(encoding="utf-8")
    (run / "history.jsonl").write_text("{half\n" + text, encoding="utf-8")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "runs/r does not exist: name the folder of a run"),
    "no run folder": (lambda run: (run / "config.json").unlink(), "runs/r is no run folder"),
    "a newer schema": (set_schema, "has schema 99; this version reads 1 and 2"),
    "a damaged history": (cut, "history.jsonl is damaged in line 1"),
    "a damaged configuration": (lambda run: (run / "config.json").write_text("{"), "is not valid JSON"),
    "a damaged network": (lambda run: (run / "det.json").write_text("{}"), "det.json"),
    "a damaged front": (lambda run: (run / "pareto.json").write_text("[]"), "pareto.json"),
    "an empty front": (lambda run: (run / "pareto.json").write_text('{"schema": 1}'), "damaged: tasks is missing"),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(stored_run(tmp_path / "runs" / "r"))
    assert_refused(["report", "runs/r"], message, cwd=tmp_path)
    assert not (tmp_path / "runs/r/report.html").exists()


def test_the_newest_run_is_reported_by_default(tmp_path: Path) -> None:
    stored_run(tmp_path / "runs" / "r")
    (tmp_path / "runs" / "latest").symlink_to("r")
    assert document("report", cwd=tmp_path) == {"page": "runs/latest/report.html"}
    assert (tmp_path / "runs/r/report.html").exists()
    done = in_process("report", "runs/r", "-o", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "page.html\n")
    assert "<h1>r</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
