import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal
from export.signals import interrupt_on_signals
interrupt_on_signals()
try:
    os.kill(os.getpid(), signal.{name})
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""


def run(code: str, *before: str) -> str:
    command = [*before, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_process_interrupt_it(name: str) -> None:
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    code = f"import signal; signal.signal(signal.{name}, signal.SIG_DFL)\n{CODE.format(name=name)}"
    assert run(code) == "interrupted"  # also where the tests themselves run under nohup


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no nohup")
def test_nohup_still_works() -> None:
    assert run(CODE.format(name="SIGHUP"), "nohup") == "went on"
