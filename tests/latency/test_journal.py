import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import UserError
from latency.journal import Journal, exclusive_lock
from latency.protocol import Repetition

ORIGIN = {"device": "cpu", "fingerprint": {"device_name": "Some 9000"}}


def repetition(*samples_ms: float) -> Repetition:
    return Repetition(samples_ms=samples_ms, reference_ms=2.5)


REPETITIONS = [("a", repetition(1.0, 2.0)), ("b", repetition(0.25)), ("a", repetition(3.0))]


def journal_file(table: Path) -> Path:
    """The file of a run that measured three repetitions."""
    journal = Journal(table, ORIGIN)
    for name, made in REPETITIONS:
        journal.add(name, made)
    return table.with_name("t.journal.jsonl")


def test_repetitions_are_read_in_their_order_and_then_removed(tmp_path: Path) -> None:
    path = journal_file(tmp_path / "t.json")
    again = Journal(tmp_path / "t.json", ORIGIN)
    assert again.repetitions == {"a": [repetition(1.0, 2.0), repetition(3.0)], "b": [repetition(0.25)]}
    again.remove()
    assert not path.exists()
    assert Journal(tmp_path / "t.json", ORIGIN).repetitions == {}


def test_repetitions_of_other_graphs_remain(tmp_path: Path) -> None:
    path = journal_file(tmp_path / "t.json")
    Journal(tmp_path / "t.json", ORIGIN).drop(["b", "c"].__contains__)
    again = Journal(tmp_path / "t.json", ORIGIN)
    assert again.repetitions == {"a": [repetition(1.0, 2.0), repetition(3.0)]}
    again.drop(["a"].__contains__)
    assert not path.exists()


def test_a_half_written_line_is_dropped_wherever_the_run_was_killed(tmp_path: Path) -> None:
    path = journal_file(tmp_path / "t.json")
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for length in range(header, len(content)):
        path.write_bytes(content[:length])
        journal = Journal(tmp_path / "t.json", ORIGIN)
        whole = content[:length].count(b"\n") - 1
        assert sum(map(len, journal.repetitions.values())) == whole
        journal.add("c", repetition(9.0))
        assert Journal(tmp_path / "t.json", ORIGIN).repetitions["c"] == [repetition(9.0)]


def test_repetitions_of_another_machine_or_protocol_are_refused(tmp_path: Path) -> None:
    journal_file(tmp_path / "t.json")
    with pytest.raises(UserError, match=r"on another machine, runtime or protocol: .*Some 9000"):
        Journal(tmp_path / "t.json", {**ORIGIN, "device": "a100"})


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
    path = journal_file(tmp_path / "t.json")
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, first, line, *rest]) + "\n")
    with pytest.raises(UserError, match="damaged in line 3"):
        Journal(tmp_path / "t.json", ORIGIN)
    assert json.loads(first) == ["a", [1.0, 2.0], 2.5]


def test_one_run_at_a_time_locks_a_table(tmp_path: Path) -> None:
    table = tmp_path / "luts" / "t.json"
    with exclusive_lock(table), pytest.raises(UserError, match=f"process {os.getpid()}"), exclusive_lock(table):
        pass
    with exclusive_lock(table), exclusive_lock(tmp_path / "luts" / "other.json"):
        pass
    assert list(table.parent.iterdir()) == []


def test_the_lock_of_a_killed_run_does_not_block_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from latency.journal import exclusive_lock\n"
        f"with exclusive_lock(pathlib.Path({str(tmp_path / 't.json')!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"), exclusive_lock(tmp_path / "t.json"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / "t.lock").exists()
    with exclusive_lock(tmp_path / "t.json"):
        pass
