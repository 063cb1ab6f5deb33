"""Detects a loss or a gradient that is not finite without waiting for the device.

An accelerator is fast while the host prepares the next kernels during the present ones. A host that reads a loss in
every step waits for the device, which is then idle until the next kernels arrive. Here the device itself skips the
update, and the host reads a step's report only after it has prepared the next step.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from export.errors import VerificationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a step computed, on its way to the host."""

    step: int
    names: tuple[str, ...]
    not_finite: Tensor
    """bool [len(names)] on the host; valid after ``copied``."""
    copied: torch.Event | None
    """None where the tensor was on the host from the start."""


class DivergenceGuard:
    """Skips every update of the weights from the first step on whose values are not finite, and raises its error.

    The skip is on the device: torch's fused optimizers change nothing where their attribute ``found_inf`` is 1. It is
    there for ``torch.amp.GradScaler``; see ``torch/optim/adam.py``.
    """

    def __init__(self, device: torch.device, diverged: Callable[[str, int], VerificationError], *, lag: int) -> None:
        """Create the guard.

        Args:
            device: on which the steps run.
            diverged: (what is not finite, step number) -> the error to raise.
            lag: number of steps that ``check`` leaves unread; 0 needs no fused optimizer.
        """
        self.lag = lag
        self.skip = torch.zeros((), device=device)
        """float32, on the device: 1 from the first step on whose values are not finite, 0 before."""
        self._device = device
        self._diverged = diverged
        self._unread: deque[Report] = deque()

    def protect(self, optimizer: torch.optim.Optimizer) -> None:
        """Let ``skip`` stop an optimizer's updates; it must be a fused one. Without a lag, the error comes first."""
        if self.lag:
            optimizer.found_inf = self.skip  # type: ignore[attr-defined]

    @torch.no_grad()
    def check(self, values: Mapping[str, Tensor], step: int) -> None:
        """Set ``skip`` if a value of this step is not finite, and read the reports of all but the last ``lag`` steps.

        Args:
            values: scalars by name; the optimizer's update follows.
            step: number of the step.

        Raises:
            VerificationError: a value of a step that was read is not finite.
        """
        not_finite = ~torch.stack(list(values.values())).isfinite()
        torch.maximum(self.skip, not_finite.any().to(self.skip), out=self.skip)
        on_host, copied = not_finite.to("cpu", non_blocking=True), None
        if self._device.type != "cpu":
            copied = torch.Event(self._device)
            copied.record()
        self._unread.append(Report(step=step, names=tuple(values), not_finite=on_host, copied=copied))
        self._read(unread=self.lag)

    def check_all(self) -> None:
        """Read the reports of all steps.

        Raises:
            VerificationError: a value of a step is not finite.
        """
        self._read(unread=0)

    def _read(self, *, unread: int) -> None:
        while len(self._unread) > unread:
            report = self._unread.popleft()
            if report.copied is not None:
                report.copied.synchronize()
            for name, not_finite in zip(report.names, report.not_finite.tolist(), strict=True):
                if not_finite:
                    raise self._diverged(name, report.step)
