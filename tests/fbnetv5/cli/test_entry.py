import os
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv5.cli import entry
from tests.command_line import assert_refused, fbnetv5


def test_commands_are_listed_in_the_order_of_their_use(tmp_path: Path) -> None:
    done = fbnetv5("--help", cwd=tmp_path)
    _, _, commands = done.stdout.partition("Commands:")
    listed = [line.split()[0] for line in commands.splitlines() if line.startswith("  ")]
    assert listed[: len(entry.COMMANDS)] == list(entry.COMMANDS)


def test_the_summary_of_every_command_fits_into_one_line(tmp_path: Path) -> None:
    for command in ([], ["profile"]):
        _, _, commands = fbnetv5(*command, "--help", cwd=tmp_path).stdout.partition("Commands:")
        assert "..." not in commands


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    assert_refused(["search", "--flop", "400M"], "--flop", cwd=tmp_path)


@pytest.mark.parametrize("arguments", [["show", "fbnetv3-g"], ["--help"]], ids=" ".join)
def test_a_reader_that_closes_stdout_ends_the_command_without_a_message(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "fbnetv5", *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_unexpected_error_has_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    printed = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 70
    assert "Traceback" in printed
    assert "this is a bug of fbnetv5 (ZeroDivisionError: division by zero). Report it" in printed


def test_an_interrupt_is_one_line_and_wrong_usage() -> None:
    code = (
        "import sys; from fbnetv5.cli import entry\n"
        "@entry.app.command('stop')\n"
        "def stop() -> None: raise KeyboardInterrupt\n"
        "sys.argv = ['fbnetv5', 'stop']; entry.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.strip().endswith("interrupted")
    assert len(ended.stderr.strip().splitlines()) == 1
