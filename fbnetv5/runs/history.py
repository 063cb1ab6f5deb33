"""The history of a run: one JSON line every few steps, and the same for TensorBoard."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from export.errors import UserError
from export.files import written_whole

NAME = "history.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a history; its fields are the line's. A method adds its own."""

    step: int
    """Steps done."""

    @property
    def scalars(self) -> Mapping[str, float]:
        """What TensorBoard shows of it, by name."""
        raise NotImplementedError


class History:
    """Appends to a run's ``history.jsonl`` and ``tensorboard/``, after taking back what lies beyond a resumed step."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / NAME
        truncate_history(self.path, step)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, entry: Entry) -> None:
        """Add one line, and TensorBoard's scalars of that step.

        Raises:
            UserError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}. Free space, then go on with --resume"
            ) from None
        for name, value in entry.scalars.items():
            self.writer.add_scalar(name, value, entry.step)

    def close(self) -> None:
        """Flush what TensorBoard has not written yet."""
        self.writer.close()


def truncate_history(path: Path, step: int) -> None:
    """Keep the lines of ``history.jsonl`` up to ``step``; a resumed run writes the later ones again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with written_whole(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the half line of a killed run
