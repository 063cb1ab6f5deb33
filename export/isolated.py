"""Calls a function in a process of its own, where whatever it loads may crash, hang or write to stdout.

NVIDIA's libraries do all three: without a driver, making a Runtime can end the process with a segmentation fault, and
the ONNX parser writes to stdout from C++. Here a crash is an answer, and stdout stays the command's own.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from export import errors
from export.errors import UserError

_ROOT = str(Path(__file__).resolve().parent.parent)
# -P keeps the working directory out of sys.path: exported folders are called "export" too.
_CODE = f"import sys; sys.path.append({_ROOT!r}); from export.isolated import serve; serve(*sys.argv[1:])"


class DiedError(Exception):
    """The process ended without an answer; the message says how."""


def call(function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
    """``function(*arguments)`` in a fresh process.

    Args:
        function: of a module, found again there by its name.
        arguments: what JSON can carry, as must be the result.
        timeout_s: the process is killed after that.

    Raises:
        UserError: what the function raised of that kind.
        DiedError: it ended in any other way.
    """
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-P", "-c", _CODE, function.__module__, function.__qualname__]
        try:
            done = subprocess.run(
                [*command, json.dumps(arguments), str(answer)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DiedError(f"gave no answer within {timeout_s:g} s") from None
        if not answer.exists():
            raise DiedError(_how_it_ended(done.returncode, done.stderr))
        document = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in document:
        raise getattr(errors, document["error"])(document["message"])
    return document["result"]


def serve(module: str, name: str, arguments: str, answer: str) -> None:
    """What runs in the other process: the call, and its result or UserError into the file ``answer``."""
    try:
        result = getattr(import_module(module), name)(*json.loads(arguments))
        text = json.dumps({"result": result})
    except UserError as error:
        text = json.dumps({"error": type(error).__name__, "message": str(error)})
    temporary = Path(answer).with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(answer)


def _how_it_ended(returncode: int, stderr: str) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with exit code {returncode}"
