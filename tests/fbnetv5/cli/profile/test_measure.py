import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import fbnetv5

SMALL = ["--stages", "1", "--blocks-per-path", "1", "--resolution", "64", "--networks", "0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_profile_keeps_its_repetitions_and_can_be_resumed(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "fbnetv5", "profile", *SMALL]
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


def test_options_before_a_sub_command_are_refused(tmp_path: Path) -> None:
    done = fbnetv5("profile", "--device", "orin", "estimate", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "come after its name: fbnetv5 profile estimate ... --device" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--verify=t.json", "profile verify TABLE"),
        ("--bundle", "profile bundle FOLDER"),
        ("--import", "profile import FOLDER"),
        ("--estimate", "profile estimate"),
    ],
)
def test_a_former_flag_names_its_sub_command(tmp_path: Path, flag: str, command: str) -> None:
    done = fbnetv5("profile", "--device", "cpu", flag, "f", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{flag.partition('=')[0]} is a sub-command now: fbnetv5 {command}" in " ".join(done.stderr.split())
