"""What a part knows of its run, and where it writes its result."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULT = "result.json"


class SkippedError(Exception):
    """The part cannot run on this machine; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The folder, device and time of a part."""

    folder: Path
    device: Literal["cuda", "cpu"]
    """The CPU is a rehearsal: a part then does as little as exercises its code."""
    deadline: float
    """Time of ``time.monotonic`` at which the part should have ended."""

    @property
    def is_rehearsal(self) -> bool:
        return self.device == "cpu"

    @property
    def left_s(self) -> float:
        """Seconds that the part may still use."""
        return max(0.0, self.deadline - time.monotonic())

    def save(self, result: dict[str, Any]) -> None:
        """Write the result; a part calls this after every step, so that a crash keeps what was measured before it."""
        write_json(self.folder / RESULT, result)

    def check_torch(self) -> None:
        """Raise SkippedError if torch does not find the GPU, where everything would run on the CPU instead."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise SkippedError(f"torch {torch.__version__} finds no GPU: built without CUDA, or for another driver")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document in one piece; numbers that are not finite become null."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_finite(document), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
