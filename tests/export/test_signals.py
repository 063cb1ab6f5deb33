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


def run(name: str, *before: str) -> str:
    command = [*before, sys.executable, "-c", CODE.format(name=name)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_process_interrupt_it(name: str) -> None:
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    assert run(name) == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no nohup")
def test_nohup_still_works() -> None:
    assert run("SIGHUP", "nohup") == "went on"
