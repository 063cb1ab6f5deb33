"""The command line in a subprocess, as a user types it, or for wrong input in this process, which is faster."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from fbnetv5.cli import main
from tests.contract.schemas import check_document

QUICK = Path(__file__).parent / "quick-search.json"
"""``--config`` of a search of a few steps."""
SMALL = ("--stages", "1", "--blocks-per-path", "1")
"""Options of the smallest space."""


def fbnetv5(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command; return its output and exit code."""
    return subprocess.run(
        [sys.executable, "-m", "fbnetv5", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def in_process(*arguments: str, cwd: Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Run the entry point in this process; return its output and exit code. A subprocess would import torch again.

    Args:
        *arguments: of the command line.
        cwd: the working directory.
        encoding: of stdout and stderr.
    """
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "argv", ["fbnetv5", *arguments]),
        mock.patch.object(signal, "signal"),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return subprocess.CompletedProcess(arguments, code, *map(written, (stdout, stderr)))


def written(stream: io.TextIOWrapper) -> str:
    """All text that was written to the stream, which has a seekable buffer."""
    stream.seek(0)
    return stream.read()


def document(*arguments: str, cwd: Path) -> Any:
    """The JSON document that a command prints: the only text on stdout, and valid by its schema."""
    done = in_process(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    check_document(arguments, printed)
    return printed


def assert_refused(arguments: list[str], message: str, *, cwd: Path) -> None:
    """Assert that a command refuses wrong input with one line and exit code 2, and writes nothing to ``cwd``."""
    before = sorted(cwd.iterdir())
    done = in_process(*arguments, cwd=cwd)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(cwd.iterdir()) == before
