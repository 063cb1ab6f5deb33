"""The module pynvml without a GPU: what is called, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class NvmlError(Exception):
    """What the fake raises, and its ``NVMLError``."""


@dataclass
class FakeNvml:
    """The module pynvml, with one GPU."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    """By function: a value, a list of values to give in turn, or an exception to raise."""
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    """Functions that this version lacks."""
    NVMLError: type[Exception] = NvmlError
    NVML_CLOCK_GRAPHICS: int = 0
    NVML_CLOCK_SM: int = 1
    NVML_TEMPERATURE_GPU: int = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml") or name in self.missing:
            raise AttributeError(name)

        def function(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer.pop(0) if isinstance(answer, list) else answer

        return function

    def called(self, name: str) -> list[list[Any]]:
        """The arguments of every call of a function."""
        return [arguments for called, *arguments in self.calls if called == name]
