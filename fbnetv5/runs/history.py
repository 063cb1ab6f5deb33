"""The history of a run: one JSON line every few steps, and the same values for TensorBoard."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from export.errors import UserError
from export.files import atomic_write

NAME = "history.jsonl"
SKIPS = ("skipped_steps", "unreadable_images")
"""Fields of an entry that its line has only if they are above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of a history; its fields are those of the JSON line. A method adds its own."""

    step: int
    """Steps done."""
    skipped_steps: int = 0
    """Steps so far whose loss or gradient was not finite: they changed no weight. Absent from the JSON line if 0."""
    unreadable_images: int = 0
    """Images so far that could not be read and were replaced by others. Absent from the JSON line if 0."""

    @property
    def scalars(self) -> Mapping[str, float]:
        """TensorBoard's values by name."""
        raise NotImplementedError


class History:
    """Appends to a run's ``history.jsonl`` and ``tensorboard/``, after removing the entries after a resumed step."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / NAME
        truncate_history(self.path, step)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, entry: Entry) -> None:
        """Append one line, and TensorBoard's scalars of that step.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_line(entry)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}. Free space, then resume with --resume"
            ) from None
        for name, value in entry.scalars.items():
            self.writer.add_scalar(name, value, entry.step)

    def close(self) -> None:
        """Write the pending events of TensorBoard and close its file."""
        self.writer.close()


def _line(entry: Entry) -> dict[str, Any]:
    """The values of an entry's line: an undisturbed run has no fields of skips."""
    return {name: value for name, value in asdict(entry).items() if value or name not in SKIPS}


def truncate_history(path: Path, step: int) -> None:
    """Remove the lines of ``history.jsonl`` after ``step``; a resumed run writes them again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the incomplete line of a killed run
