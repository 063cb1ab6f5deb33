"""Runs commands with a time limit, and keeps their output."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    seconds: float
    returncode: int | None
    """None: the command was killed at its time limit."""
    limit_s: float
    tail: str
    """The last lines of its output on stderr, and on stdout if both are in one file."""

    @property
    def failure(self) -> str | None:
        """The reason if the command did not end with exit code 0."""
        if self.returncode == 0:
            return None
        if self.returncode is None:
            return f"did not end within {self.limit_s:.1f} s"
        if self.returncode < 0:
            return f"was ended by {signal.Signals(-self.returncode).name}"
        last_line = next((line for line in reversed(self.tail.splitlines()) if line.strip()), "no output")
        return f"exit code {self.returncode}: {last_line.strip()}"


def python_environment(**variables: str) -> dict[str, str]:
    """The environment of this process, in which any working directory finds the project's packages."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}


def run_command(
    command: Sequence[str],
    *,
    folder: Path,
    name: str,
    limit_s: float,
    environment: Mapping[str, str],
    own_group: bool = False,
    stdout: Path | None = None,
) -> Ended:
    """Run a command in ``folder`` until it ends or the time is over.

    Args:
        command: program and arguments.
        folder: working directory.
        name: the output goes to ``folder/NAME.log``.
        limit_s: the command is killed after this time, in seconds.
        environment: its variables.
        own_group: kill all processes that it started too; only for the outermost command, because the processes of
            an own group outlive a kill of their parent.
        stdout: file for stdout, if it must not go to the log.
    """
    log, started = folder / f"{name}.log", time.monotonic()
    with log.open("wb") as log_file, (stdout or log).open("wb" if stdout else "ab") as stdout_file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout_file,
            stderr=log_file if stdout else subprocess.STDOUT,
            start_new_session=own_group,
        )
        try:
            returncode: int | None = process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            returncode = None
        finally:
            if own_group:
                with suppress(ProcessLookupError):  # all processes of the group have ended
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Ended(
        seconds=round(time.monotonic() - started, 1),
        returncode=returncode,
        limit_s=limit_s,
        tail="\n".join(lines[-TAIL_LINES:]),
    )
