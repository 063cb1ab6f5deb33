"""Skips the update of a step whose loss or gradient is not finite, without waiting for the device.

An accelerator is fast while the host prepares the next kernels during the present ones. A host that reads a loss in
every step waits for the device, which is then idle until the next kernels arrive. Here the device itself skips the
update, and the host reads a step's report only after it has prepared the next step. All processes of a distributed run
check the same values, which were summed over the processes, so they skip the same steps without further communication.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
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


class Kept:
    """The values of some tensors before a step, which a skipped step must not change: of float tensors of one type.

    They are stored as one flat tensor, because a launch per tensor would take longer than the copy.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Copy the present values."""
        self._tensors = list(tensors)
        self._before = self._flat()

    @torch.no_grad()
    def restore(self, skip: Tensor | None = None) -> None:
        """Write the values back; with ``skip``, a scalar on the device of the tensors, only where it is 1."""
        if not self._tensors:
            return
        flat = self._before if skip is None else torch.where(skip.bool(), self._before, self._flat())
        parts = torch.split(flat, [tensor.numel() for tensor in self._tensors])
        torch._foreach_copy_(self._tensors, [part.view_as(t) for part, t in zip(parts, self._tensors, strict=True)])

    def _flat(self) -> Tensor:
        if not self._tensors:
            return torch.empty(0)
        return torch.cat([tensor.detach().flatten() for tensor in self._tensors])


class DivergenceGuard:
    """Skips the update of every step whose values are not finite, and raises an error after too many of them.

    The skip is on the device: torch's fused optimizers change nothing where their attribute ``found_inf`` is 1. It is
    there for ``torch.amp.GradScaler``; see ``torch/optim/adam.py``.
    """

    def __init__(
        self,
        device: torch.device,
        diverged: Callable[[str, int], VerificationError],
        *,
        lag: int,
        max_skipped: int = 0,
    ) -> None:
        """Create the guard.

        Args:
            device: on which the steps run.
            diverged: (what is not finite, step number) -> the error to raise.
            lag: number of steps that ``check`` leaves unread; 0 needs no fused optimizer.
            max_skipped: number of steps that may be skipped before the error.
        """
        self.lag = lag
        self.max_skipped = max_skipped
        self.skipped = 0
        """Number of skipped steps that the host has read; a resumed run sets it."""
        self.skip = torch.zeros((), device=device)
        """float32, on the device: 1 if a value of the last checked step is not finite, else 0."""
        self._device = device
        self._diverged = diverged
        self._unread: deque[Report] = deque()

    def protect(self, optimizer: torch.optim.Optimizer) -> None:
        """Let ``skip`` stop an optimizer's updates; it must be a fused one. Without a lag, ``check`` tells the host."""
        if self.lag:
            optimizer.found_inf = self.skip  # type: ignore[attr-defined]

    @staticmethod
    def keep(tensors: Iterable[Tensor]) -> Kept:
        """The present values of tensors that the step changes before it is checked, and that a skip must restore."""
        return Kept(tensors)

    @torch.no_grad()
    def check(self, values: Mapping[str, Tensor], step: int) -> bool:
        """Set ``skip``, and read the reports of all but the last ``lag`` steps.

        Args:
            values: scalars by name, the same in all processes; the optimizer's update follows.
            step: number of the step.

        Returns:
            Whether the host knows that this step must be skipped. With a lag it does not know yet, and returns False.

        Raises:
            VerificationError: a value is not finite in more than ``max_skipped`` of the steps that were read.
        """
        not_finite = ~torch.stack(list(values.values())).isfinite()
        self.skip.copy_(not_finite.any())
        on_host, copied = not_finite.to("cpu", non_blocking=True), None
        if self._device.type != "cpu":
            copied = torch.Event(self._device)
            copied.record()
        self._unread.append(Report(step=step, names=tuple(values), not_finite=on_host, copied=copied))
        skipped = self.skipped
        self._read(unread=self.lag)
        return self.lag == 0 and self.skipped > skipped

    def check_now(self, values: Mapping[str, Tensor], step: int) -> bool:
        """``check`` for a step that waits for the device anyway: return whether it must be skipped, with any lag."""
        is_skipped = self.check(values, step)
        return self.check_all() or is_skipped

    def check_all(self) -> bool:
        """Read the reports of all steps; return whether the last of them was skipped, False if there was none to read.

        Raises:
            VerificationError: a value is not finite in more than ``max_skipped`` steps.
        """
        return self._read(unread=0)

    def _read(self, *, unread: int) -> bool:
        """Read all reports but the last ``unread``; return whether the last one that was read is of a skipped step."""
        is_skipped = False
        while len(self._unread) > unread:
            report = self._unread.popleft()
            if report.copied is not None:
                report.copied.synchronize()
            not_finite = [name for name, bad in zip(report.names, report.not_finite.tolist(), strict=True) if bad]
            is_skipped = bool(not_finite)
            self.skipped += is_skipped
            if is_skipped and self.skipped > self.max_skipped:
                raise self._diverged(not_finite[0], report.step)
        return is_skipped
