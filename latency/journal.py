"""The journal of a measurement that takes minutes: every repetition is on disk as soon as it is measured.

File: ``TABLE.journal.jsonl`` beside the table. The first line records the machine and protocol of the repetitions, each
further line is one repetition; a line that a killed run left half-written is dropped. Repetitions are removed once the
table contains their results, and the file with the last of them. A lock beside the table keeps two runs from measuring
at once.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from export.errors import UserError
from export.files import atomic_write_text
from export.locks import try_lock
from latency.protocol import Repetition, Repetitions


class Journal:
    """The repetitions measured so far for one table."""

    def __init__(self, table: Path, origin: Mapping[str, Any]) -> None:
        """Open the journal of an interrupted run, or start one.

        Args:
            table: path of the table that the repetitions are for.
            origin: everything that must be equal for repetitions to belong together, such as machine and protocol;
                JSON.

        Raises:
            UserError: the journal there is damaged, or of another machine or protocol.
        """
        self._path = table.with_name(f"{table.stem}.journal.jsonl")
        self._header = json.dumps(origin, sort_keys=True)
        self.repetitions: Repetitions = self._read()

    def add(self, name: str, repetition: Repetition) -> None:
        """Append one repetition of the graph called ``name``."""
        try:
            if not self._path.exists():
                atomic_write_text(self._path, self._header + "\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(name, repetition) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error

    def remove(self) -> None:
        """Delete the journal, once all results are stored elsewhere."""
        self._path.unlink(missing_ok=True)

    def drop(self, is_stored: Callable[[str], bool]) -> None:
        """Remove the repetitions of graphs whose results the table contains, and the file if it is empty.

        Repetitions of other graphs, which an interrupted run with other settings has measured, remain.
        """
        self.repetitions = {name: each for name, each in self._read().items() if not is_stored(name)}
        lines = [_line(name, repetition) for name, each in self.repetitions.items() for repetition in each]
        if lines:
            atomic_write_text(self._path, "\n".join([self._header, *lines]) + "\n")
        else:
            self.remove()

    def _read(self) -> Repetitions:
        if not self._path.exists():
            return {}
        text = self._path.read_text(encoding="utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]
        header, *lines = complete.splitlines() or [""]
        if header != self._header:
            raise UserError(
                f"{self._path} is of an interrupted run on another machine, runtime or protocol: {header[:400]}. "
                "Delete it to measure anew"
            )
        repetitions: dict[str, list[Repetition]] = {}
        for number, line in enumerate(lines, 2):
            name, repetition = self._parse(line, number)
            repetitions.setdefault(name, []).append(repetition)
        if complete != text:
            atomic_write_text(self._path, complete)
        return repetitions

    def _parse(self, line: str, number: int) -> tuple[str, Repetition]:
        with suppress(ValueError, TypeError):
            name, samples, reference = json.loads(line)
            times = [float(time) for time in (*samples, reference)]
            if isinstance(name, str) and isinstance(samples, list) and samples and all(0 < t < math.inf for t in times):
                return name, Repetition(samples_ms=tuple(times[:-1]), reference_ms=times[-1])
        raise UserError(f"{self._path} is damaged in line {number}. Delete it to measure anew")


def _line(name: str, repetition: Repetition) -> str:
    return json.dumps([name, repetition.samples_ms, repetition.reference_ms])


@contextmanager
def exclusive_lock(table: Path) -> Iterator[None]:
    """Lock the table: one run would overwrite the results of another, and two would slow each other's graphs down.

    The operating system releases the lock when its process ends, so the lock of a killed run need not be removed.

    Raises:
        UserError: another run has the lock.
    """
    path = table.with_name(f"{table.stem}.lock")
    table.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _has_locked(file, path):
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(f"{table} is being written by process {owner}; wait for it or stop it")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows removes no open file; it stays, unlocked
                path.unlink(missing_ok=True)


def _has_locked(file: IO[str], path: Path) -> bool:
    """Try to lock ``file``; False also if the previous run removed the file since it was opened."""
    try:
        return try_lock(file) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
