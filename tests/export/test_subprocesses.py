import os
import signal
import time

import pytest

from export.errors import UserError
from export.progress import Progress
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from latency.devices import resolve


def test_the_result_is_returned() -> None:
    assert run_in_subprocess(os.path.commonprefix, ["model.onnx", "model.engine"], timeout_s=30) == "model."


def test_a_user_error_is_raised_here() -> None:
    with pytest.raises(UserError, match="no device 'tpu'") as raised:
        run_in_subprocess(resolve, "tpu", timeout_s=30)
    assert raised.value.exit_code == 2


def test_a_crash_is_an_error() -> None:
    with pytest.raises(SubprocessFailedError, match="was ended by SIGSEGV"):
        run_in_subprocess(signal.raise_signal, int(signal.SIGSEGV), timeout_s=30)


def test_any_other_exception_is_named() -> None:
    with pytest.raises(SubprocessFailedError, match="FileNotFoundError"):
        run_in_subprocess(os.listdir, "/nowhere", timeout_s=30)


def test_a_hang_ends() -> None:
    with pytest.raises(SubprocessFailedError, match=r"did not end within 0.5 s"):
        run_in_subprocess(time.sleep, 60, timeout_s=0.5)


def count_to(number: int, *, progress: Progress) -> int:
    for done in range(number + 1):
        os.write(1, b"text that nobody reads")
        progress("counting", done, number)
    return number


def test_progress_is_passed_on() -> None:
    reports: list[tuple[str, int, int]] = []
    assert run_in_subprocess(count_to, 3, timeout_s=30, progress=lambda *report: reports.append(report)) == 3
    assert reports == [("counting", done, 3) for done in range(4)]


def report_and_hang(*, progress: Progress) -> None:
    progress("hanging", os.getpid(), 0)
    time.sleep(60)


def test_an_interrupt_ends_the_process() -> None:
    pids: list[int] = []

    def stop(_: str, pid: int, __: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_subprocess(report_and_hang, timeout_s=30, progress=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_hang_that_reports_progress_ends() -> None:
    with pytest.raises(SubprocessFailedError, match=r"did not end within 1 s"):
        run_in_subprocess(report_and_hang, timeout_s=1, progress=lambda *_: None)
