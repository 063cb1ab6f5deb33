"""Calls a function in a process of its own, where whatever it loads may crash, hang or write to stdout.

NVIDIA's libraries do all three: without a driver, making a Runtime can end the process with a segmentation fault, and
the ONNX parser writes to stdout from C++. Here a crash is an answer, and stdout stays the command's own. So what the
function has to say while it works goes through a file, which is read here a few times a second. The process does not
outlive the call: an interrupt ends both.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from export import errors
from export.errors import UserError

_ROOT = str(Path(__file__).resolve().parent.parent)
# -P keeps the working directory out of sys.path: exported folders are called "export" too.
_CODE = f"import sys; sys.path.append({_ROOT!r}); from export.subprocesses import serve; serve(*sys.argv[1:])"
_POLL_S = 0.1


class DiedError(Exception):
    """The process ended without an answer; the message says how."""


def call(
    function: Callable[..., Any],
    *arguments: Any,
    timeout_s: float,
    progress: Callable[[str, int, int], None] | None = None,
) -> Any:
    """``function(*arguments)`` in a fresh process.

    Args:
        function: of a module, found again there by its name.
        arguments: what JSON can carry, as must be the result.
        timeout_s: the process is killed after that.
        progress: told here what the function reports there, for which it is given another argument ``report``.

    Raises:
        UserError: what the function raised of that kind.
        DiedError: it ended in any other way.
    """
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        answer, reports, stderr = (Path(folder) / name for name in ("answer.json", "reports.jsonl", "stderr"))
        reports.touch()
        command = [sys.executable, "-P", "-c", _CODE, function.__module__, function.__qualname__]
        command += [json.dumps(arguments), str(answer), *([] if progress is None else [str(reports)])]
        with stderr.open("wb") as said, reports.open("rb") as reported:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
            try:
                _follow(process, reported, timeout_s, progress)
            finally:
                process.kill()
                process.wait()
        if not answer.exists():
            raise DiedError(_how_it_ended(process.returncode, stderr.read_text(encoding="utf-8", errors="replace")))
        document = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in document:
        raise getattr(errors, document["error"])(document["message"])
    return document["result"]


def serve(module: str, name: str, arguments: str, answer: str, reports: str | None = None) -> None:
    """What runs in the other process: the call, and its result or UserError into the file ``answer``."""
    extra = {} if reports is None else {"report": _reporter(Path(reports))}
    try:
        result = getattr(import_module(module), name)(*json.loads(arguments), **extra)
        text = json.dumps({"result": result})
    except UserError as error:
        text = json.dumps({"error": type(error).__name__, "message": str(error)})
    temporary = Path(answer).with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(answer)


def _reporter(path: Path) -> Callable[[str, int, int], None]:
    """Adds a line to the file at each call. Unbuffered, a line is written at once, whatever threads call."""
    file = path.open("ab", buffering=0)

    def report(what: str, done: int, total: int) -> None:
        file.write(json.dumps([what, done, total]).encode() + b"\n")

    return report


def _follow(
    process: "subprocess.Popen[bytes]",
    reported: IO[bytes],
    timeout_s: float,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Wait until the process has ended, and pass on what it reports; raises DiedError if it takes too long."""
    deadline = time.monotonic() + timeout_s
    while process.returncode is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DiedError(f"gave no answer within {timeout_s:g} s")
        with suppress(subprocess.TimeoutExpired):
            process.wait(left_s if progress is None else min(left_s, _POLL_S))
        if progress is not None:
            for line in reported:
                progress(*json.loads(line))


def _how_it_ended(returncode: int, stderr: str) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with exit code {returncode}"
