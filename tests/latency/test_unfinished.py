import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import UserError
from latency.protocol import Visit
from latency.unfinished import Unfinished, only_run

MADE_WITH = {"device": "cpu", "fingerprint": {"processor": "Some 9000"}}


def visit(*samples_ms: float) -> Visit:
    return Visit(samples_ms=samples_ms, yardstick_ms=2.5)


VISITS = [("a", visit(1.0, 2.0)), ("b", visit(0.25)), ("a", visit(3.0))]


def kept(table: Path) -> Path:
    """The file of a run that made three visits."""
    unfinished = Unfinished(table, MADE_WITH)
    for name, visit in VISITS:
        unfinished.add(name, visit)
    return table.with_name("t.unfinished.jsonl")


def test_visits_are_found_again_in_their_order_and_then_removed(tmp_path: Path) -> None:
    path = kept(tmp_path / "t.json")
    again = Unfinished(tmp_path / "t.json", MADE_WITH)
    assert again.visits == {"a": [visit(1.0, 2.0), visit(3.0)], "b": [visit(0.25)]}
    again.remove()
    assert not path.exists()
    assert Unfinished(tmp_path / "t.json", MADE_WITH).visits == {}


def test_a_half_written_line_is_dropped_wherever_the_run_was_killed(tmp_path: Path) -> None:
    path = kept(tmp_path / "t.json")
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for length in range(header, len(content)):
        path.write_bytes(content[:length])
        unfinished = Unfinished(tmp_path / "t.json", MADE_WITH)
        whole = content[:length].count(b"\n") - 1
        assert sum(map(len, unfinished.visits.values())) == whole
        unfinished.add("c", visit(9.0))
        assert Unfinished(tmp_path / "t.json", MADE_WITH).visits["c"] == [visit(9.0)]


def test_visits_of_another_machine_or_protocol_are_refused(tmp_path: Path) -> None:
    kept(tmp_path / "t.json")
    with pytest.raises(UserError, match=r"on another machine, runtime or protocol: .*Some 9000"):
        Unfinished(tmp_path / "t.json", {**MADE_WITH, "device": "a100"})


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        '["a", [1]]',
        '["a", [], 1]',
        '["a", [0], 1]',
        '["a", [NaN], 1]',
        '["a", "1", 1]',
        "[3, [1], 1]",
        '["a", [1], 0]',
    ],
)
def test_a_damaged_line_is_refused(tmp_path: Path, line: str) -> None:
    path = kept(tmp_path / "t.json")
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, first, line, *rest]) + "\n")
    with pytest.raises(UserError, match="damaged in line 3"):
        Unfinished(tmp_path / "t.json", MADE_WITH)
    assert json.loads(first) == ["a", [1.0, 2.0], 2.5]


def test_one_run_at_a_time_holds_a_table(tmp_path: Path) -> None:
    table = tmp_path / "luts" / "t.json"
    with only_run(table), pytest.raises(UserError, match=f"process {os.getpid()}"), only_run(table):
        pass
    with only_run(table), only_run(tmp_path / "luts" / "other.json"):
        pass
    assert list(table.parent.iterdir()) == []


def test_the_lock_of_a_killed_run_does_not_bar_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from latency.unfinished import only_run\n"
        f"with only_run(pathlib.Path({str(tmp_path / 't.json')!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"), only_run(tmp_path / "t.json"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / "t.lock").exists()
    with only_run(tmp_path / "t.json"):
        pass
