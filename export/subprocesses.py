"""Runs a function in a subprocess, for code that may crash, hang or write to stdout.

NVIDIA's libraries do all three: without a driver, creating a Runtime can end the process with a segmentation fault, and
the ONNX parser writes to stdout from C++. A crash becomes a ``SubprocessFailedError`` and stdout stays the command's
own: the function's progress goes through a file, which the caller reads a few times a second. The subprocess does not
outlive the call; an interrupt ends both.
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
from export.progress import Progress

_ROOT = str(Path(__file__).resolve().parent.parent)
# -P keeps the working directory out of sys.path: exported folders are called "export" too.
_CODE = f"import sys; sys.path.append({_ROOT!r}); from export.subprocesses import serve; serve(*sys.argv[1:])"
_POLL_S = 0.1


class SubprocessFailedError(Exception):
    """The subprocess ended without a result; the message completes "the subprocess ...", such as "ended with ..."."""


def run_in_subprocess(
    function: Callable[..., Any], *arguments: Any, timeout_s: float, progress: Progress | None = None
) -> Any:
    """Return ``function(*arguments)``, computed in a new process.

    Args:
        function: a function of a module, which the subprocess imports by its name.
        arguments: JSON values; the result must be one too.
        timeout_s: the subprocess is killed after this time.
        progress: called here with the progress of the function, which then gets a keyword argument ``progress``.

    Raises:
        UserError: the function raised it.
        SubprocessFailedError: the subprocess ended in any other way.
    """
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        result, reports, stderr = (Path(folder) / name for name in ("result.json", "reports.jsonl", "stderr"))
        reports.touch()
        command = [sys.executable, "-P", "-c", _CODE, function.__module__, function.__qualname__]
        command += [json.dumps(arguments), str(result), *([] if progress is None else [str(reports)])]
        with stderr.open("wb") as stderr_file, reports.open("rb") as reports_file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr_file)
            try:
                _wait(process, reports_file, timeout_s, progress)
            finally:
                process.kill()
                process.wait()
        if not result.exists():
            text = stderr.read_text(encoding="utf-8", errors="replace")
            raise SubprocessFailedError(_describe_end(process.returncode, text))
        document = json.loads(result.read_text(encoding="utf-8"))
    if "error" in document:
        raise getattr(errors, document["error"])(document["message"])
    return document["result"]


def serve(module: str, name: str, arguments: str, result_path: str, reports: str | None = None) -> None:
    """Call the function in the subprocess and write its result or UserError to the file ``result_path``."""
    keywords = {} if reports is None else {"progress": _reporter(Path(reports))}
    try:
        result = getattr(import_module(module), name)(*json.loads(arguments), **keywords)
        text = json.dumps({"result": result})
    except UserError as error:
        text = json.dumps({"error": type(error).__name__, "message": str(error)})
    temporary = Path(result_path).with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(result_path)


def _reporter(path: Path) -> Progress:
    """A callback that appends a line to the file, which is unbuffered: any thread writes a line in one piece."""
    file = path.open("ab", buffering=0)

    def report(stage: str, done: int, total: int) -> None:
        file.write(json.dumps([stage, done, total]).encode() + b"\n")

    return report


def _wait(process: "subprocess.Popen[bytes]", reports: IO[bytes], timeout_s: float, progress: Progress | None) -> None:
    """Wait for the end of the process and pass its reports on.

    Raises:
        SubprocessFailedError: the process did not end within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while process.returncode is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise SubprocessFailedError(f"did not end within {timeout_s:g} s")
        with suppress(subprocess.TimeoutExpired):
            process.wait(left_s if progress is None else min(left_s, _POLL_S))
        if progress is not None:
            for line in reports:
                progress(*json.loads(line))


def _describe_end(returncode: int, stderr: str) -> str:
    """How the process ended: its signal, the last line on stderr, or its exit code."""
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with exit code {returncode}"
