import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import SMALL, assert_refused, document

AT_64 = (*SMALL, "--resolution", "64")
WRONG = {
    "unknown device": (["--device", "abacus"], "no device 'abacus'"),
    "no threads": (["--threads", "0"], "--threads"),
    "few networks": (["--networks", "3"], "at least 9 measured networks, not 3"),
    "option before a sub-command": (
        ["--device", "orin", "estimate"],
        "come after its name: fbnetv5 profile estimate ... --device",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["profile", *options], message, cwd=tmp_path)


def test_a_table_is_written_with_a_latency_of_each_block_and_a_report(work: Path) -> None:
    printed = json.loads((work / "profile.json").read_text(encoding="utf-8"))
    assert printed["table"] == "luts/cpu-fp32-b1.json"
    assert all(value > 0 for value in printed["latency_ms_p50"].values())
    assert printed["latency_ms"].keys() == printed["latency_ms_p50"].keys()
    assert printed["measured"] == len(printed["latency_ms"]) + 9 + 1  # the graph that does nothing is measured too
    assert printed["held_out"]["networks"] == 3
    assert sorted(path.name for path in (work / "luts").iterdir()) == ["cpu-fp32-b1.html", "cpu-fp32-b1.json"]
    assert printed["report"] == "luts/cpu-fp32-b1.html"
    report = (work / printed["report"]).read_text(encoding="utf-8")
    assert all(key in report for key in printed["latency_ms"])


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(work: Path) -> None:
    before = (work / "luts" / "cpu-fp32-b1.json").read_bytes()
    missing = document("profile", *AT_64, "--networks", "10", "--dry-run", cwd=work)
    assert missing["blocks"] == []
    assert len(missing["networks"]) == 1
    other = document("profile", *AT_64, "--threads", "2", "--dry-run", cwd=work)
    assert other["table"] == "luts/cpu-fp32-b1-t2.json"
    assert len(other["blocks"]) > 20
    assert len(other["networks"]) == 48
    assert (work / "luts" / "cpu-fp32-b1.json").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_profile_keeps_its_repetitions_and_can_be_resumed(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "fbnetv5", "profile", *AT_64, "--networks", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "blocks: measure" not in running.stderr.readline():
            pass
        time.sleep(1)
        running.send_signal(number)
        _, stderr = running.communicate()
    assert running.returncode == 2
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    assert len((tmp_path / "luts" / "cpu-fp32-b1.journal.jsonl").read_text().splitlines()) > 1
