import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fbnetv5.cli import entry
from tests.command_line import assert_refused, fbnetv5


class Killed(Dataset[int]):
    """A data set whose reading process is killed, as by the kernel of a machine without memory."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


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


def kill_a_reader() -> None:
    for _ in DataLoader(Killed(), num_workers=1):
        pass


def share_a_gpu() -> None:
    raise RuntimeError("NCCL error, invalid usage\nDuplicate GPU detected : rank 1 and rank 0 both on 4b000")


def refuse_on_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB free")


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (refuse_on_the_gpu, r"the GPU has too little memory: CUDA out of memory\. Tried to allocate 2\.00 GiB\. Use a"),
        (lambda: torch.empty(10**15), r"this machine has too little memory: .* you tried to allocate .* Use a smaller"),
        (lambda: np.empty(10**16), r"this machine has too little memory: Unable to allocate .* Use a smaller batch"),
        (share_a_gpu, r"two processes have one GPU: start one process per GPU"),
        (kill_a_reader, r"a process that reads images was ended from outside, .*: DataLoader worker .*num_workers"),
    ],
)
def test_a_machine_that_is_too_small_is_no_bug(
    work: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "app", work)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    printed = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert re.search(message, printed)
    assert "Traceback" not in printed


def test_a_reader_that_crashes_is_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ")

    monkeypatch.setattr(entry, "app", crash)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 70
    assert "this is a bug of fbnetv5" in " ".join(capsys.readouterr().err.split())


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
