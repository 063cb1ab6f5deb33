import os
import signal
import time

import pytest

from export.errors import UserError
from export.isolated import DiedError, call
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
