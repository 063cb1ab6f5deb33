import os
import signal
import time
from collections.abc import Callable

import pytest

from export.errors import UserError
from export.subprocesses import DiedError, call
from latency.devices import resolve


def test_the_result_comes_back() -> None:
    assert call(os.path.commonprefix, ["model.onnx", "model.engine"], timeout_s=30) == "model."


def test_a_user_error_comes_back_as_itself() -> None:
    with pytest.raises(UserError, match="no device 'tpu'") as raised:
        call(resolve, "tpu", timeout_s=30)
    assert raised.value.exit_code == 2


def test_a_crash_is_an_answer() -> None:
    with pytest.raises(DiedError, match="was ended by SIGSEGV"):
        call(signal.raise_signal, int(signal.SIGSEGV), timeout_s=30)


def test_any_other_exception_is_named() -> None:
    with pytest.raises(DiedError, match="FileNotFoundError"):
        call(os.listdir, "/nowhere", timeout_s=30)


def test_a_hang_ends() -> None:
    with pytest.raises(DiedError, match=r"no answer within 0.5 s"):
        call(time.sleep, 60, timeout_s=0.5)


def count_to(number: int, *, report: Callable[[str, int, int], None]) -> int:
    for done in range(number + 1):
        os.write(1, b"to stdout, where nobody reads it")
        report("counting", done, number)
    return number


def test_what_is_reported_there_is_heard_here() -> None:
    heard: list[tuple[str, int, int]] = []
    assert call(count_to, 3, timeout_s=30, progress=lambda *what: heard.append(what)) == 3
    assert heard == [("counting", done, 3) for done in range(4)]


def report_and_hang(*, report: Callable[[str, int, int], None]) -> None:
    report("hanging", os.getpid(), 0)
    time.sleep(60)


def test_an_interrupt_ends_the_process() -> None:
    pids: list[int] = []

    def stop(_: str, pid: int, __: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(report_and_hang, timeout_s=30, progress=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_hang_ends_though_it_reports() -> None:
    with pytest.raises(DiedError, match=r"no answer within 1 s"):
        call(report_and_hang, timeout_s=1, progress=lambda *_: None)
