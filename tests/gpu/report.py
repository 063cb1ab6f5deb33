"""The report of all parts: one JSON document and its summary as text."""

import json
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

from tests.gpu.context import RESULT, write_json
from tests.gpu.parts import Part
from tests.gpu.processes import Ended
from tests.gpu.worker import END

Status = Literal["passed", "failed", "skipped"]
REHEARSAL = "REHEARSAL on the CPU, in small: no figure here is of a GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """How a part ended, and its result."""

    part: Part
    status: Status
    reason: str | None
    """Of a failure or a skip."""
    seconds: float = 0.0
    output_tail: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    """Incomplete if the part failed."""

    @classmethod
    def of(cls, part: Part, folder: Path, ended: Ended) -> Self:
        """The report of a part whose process has ended, from the files in its folder."""
        end, result = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for path in (folder / END, folder / RESULT)
        )
        return cls(
            part=part,
            status=end.get("status", "failed"),
            reason=end["reason"] if end else ended.failure or "ended without a result",
            seconds=ended.seconds,
            output_tail=ended.tail,
            result=result,
        )

    def to_json(self) -> dict[str, Any]:
        """The part's object in the report."""
        return {
            "name": self.part.name,
            "status": self.status,
            "reason": self.reason,
            "seconds": self.seconds,
            "result": self.result,
            "output_tail": self.output_tail,
        }

    def summary(self) -> list[str]:
        """The part's status, and indented below it the figures of its result."""
        reason = "" if self.reason is None else f": {self.reason}"
        lines = import_module(self.part.module).summarise(self.result) if self.result else []
        return [f"{self.part.name} {self.status} ({self.seconds:.0f} s){reason}", *(f"  {line}" for line in lines)]


@dataclass(slots=True, kw_only=True)
class Report:
    """The report of a call of the command, which grows by one part at a time."""

    device: Literal["cuda", "cpu"]
    minutes: float
    commit: str | None
    gpus: tuple[str, ...]
    date: str
    """Of the start, in UTC."""
    parts: list[PartReport] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "schema": 1,
            "kind": "gpu-report",
            "rehearsal": self.device == "cpu",
            "date": self.date,
            "commit": self.commit,
            "gpus": list(self.gpus),
            "minutes": self.minutes,
            "parts": [part.to_json() for part in self.parts],
        }

    def summary(self) -> str:
        """The text that the command prints at its end."""
        head = REHEARSAL if self.device == "cpu" else f"GPUs: {', '.join(self.gpus) or 'none'}"
        return "\n".join([head, *(line for part in self.parts for line in part.summary())])
