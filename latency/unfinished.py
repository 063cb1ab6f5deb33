"""What keeps a measurement that takes minutes: every visit is on disk as soon as it is made, and no two runs mix.

File: ``TABLE.unfinished.jsonl`` beside the table. Its first line says what the visits were made with, each further
line is one visit; a line that a killed run left half-written is dropped. It goes once the table holds the results.
"""

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from export.errors import UserError
from export.files import atomic_write_text
from latency.protocol import Visit, Visits


class Unfinished:
    """The visits made so far on the way to one table."""

    def __init__(self, table: Path, made_with: Mapping[str, Any]) -> None:
        """Open those that an interrupted run left, if any.

        Args:
            table: path of the table that the visits are for.
            made_with: all that must be equal for visits to belong together; JSON.

        Raises:
            UserError: the file there is damaged, or of another machine or protocol.
        """
        self._path = table.with_name(f"{table.stem}.unfinished.jsonl")
        self._header = json.dumps(made_with, sort_keys=True)
        self.visits: Visits = self._read()

    def add(self, name: str, visit: Visit) -> None:
        """Keep one visit."""
        try:
            if not self._path.exists():
                atomic_write_text(self._path, self._header + "\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, visit.samples_ms, visit.yardstick_ms]) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error

    def remove(self) -> None:
        """Forget the visits: the table holds them."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> Visits:
        if not self._path.exists():
            return {}
        text = self._path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        header, *lines = whole.splitlines() or [""]
        if header != self._header:
            raise UserError(
                f"{self._path} is of an interrupted run on another machine, runtime or protocol: {header[:400]}. "
                "Delete it to measure anew"
            )
        visits: dict[str, list[Visit]] = {}
        for number, line in enumerate(lines, 2):
            name, visit = self._parse(line, number)
            visits.setdefault(name, []).append(visit)
        if whole != text:
            atomic_write_text(self._path, whole)
        return visits

    def _parse(self, line: str, number: int) -> tuple[str, Visit]:
        with suppress(ValueError, TypeError):
            name, samples, yardstick = json.loads(line)
            times = [float(time) for time in (*samples, yardstick)]
            if isinstance(name, str) and isinstance(samples, list) and samples and all(0 < t < math.inf for t in times):
                return name, Visit(samples_ms=tuple(times[:-1]), yardstick_ms=times[-1])
        raise UserError(f"{self._path} is damaged in line {number}. Delete it to measure anew")


@contextmanager
def only_run(table: Path) -> Iterator[None]:
    """Hold the table's lock: two runs would measure each other, and one would overwrite the other's results.

    The lock is the operating system's and ends with its process, so that of a killed run never has to be removed.

    Raises:
        UserError: another run holds it.
    """
    path = table.with_name(f"{table.stem}.lock")
    table.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _lock(file, path):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(f"{table} is being measured by process {holder}; wait for it or stop it")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str], path: Path) -> bool:
    """Whether the lock is ours now; not so if its file was removed, by the run before, since we opened it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
