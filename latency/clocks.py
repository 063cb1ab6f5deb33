"""Holds a GPU's clock still while it is measured, where that is permitted, and writes down what it did all the same.

NVML, the library behind nvidia-smi, is asked through nvidia-ml-py (module ``pynvml``). Without it, or without the
right to lock clocks, a measurement goes on, and its conditions say so: a table's reader must see whether the GPU was
slowed by heat or power, or moved between clocks. Where the GPU sits inside a virtual machine or a container, NVML may
answer only some questions; what it does not answer is null, never a guess.

The clocks are let go when the process ends, by an error or a keyboard interrupt too. A process that is killed
outright cannot: nvidia-smi -rgc does it then.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

_PERIOD_S = 0.1
"""Between two samples: the driver itself renews what it says about ten times a second."""
_HELD = 0.02
"""A clock that stays within this part of its target was held; clocks move in steps of about 1 %."""

_SLOWDOWNS = {
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability",
}
"""Clock event reasons of nvml.h. Not among them: 0x1 (idle) and 0x2 (a clock was set, as it is here)."""
_NO_SLOWDOWN = 0x003


class ClockWatch:
    """One GPU's clock: locked from the start to ``unlock``, sampled whenever asked."""

    def __init__(self, nvml: Any, bus_id: str, *, now: Callable[[], float] = time.monotonic) -> None:
        """Lock the clock where that is permitted; nothing is raised where it is not.

        Args:
            nvml: the module ``pynvml``; None where it is not installed.
            bus_id: of the GPU, such as "0000:3B:00.0".
            now: seconds by a clock of any start.
        """
        self._nvml, self._now = nvml, now
        self._handle: Any = None
        self._locked_mhz: int | None = None
        self._why_not: str | None = None
        self._next_s = 0.0
        self._clocks_mhz: list[int] = []
        self._temperatures_c: list[int] = []
        self._reasons: list[int] = []
        if nvml is None:
            self._why_not = "nvidia-ml-py is not installed: pip install nvidia-ml-py"
            return
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
        except nvml.NVMLError as error:
            self._why_not = f"NVML does not answer: {error}"
            return
        self._lock()

    def unlock(self) -> None:
        """Let the clock go; a second time does nothing."""
        if self._locked_mhz is not None:
            self._release()

    def sample(self) -> None:
        """Write down what the GPU does now, unless that was done within the last tenth of a second."""
        if self._handle is None or self._now() < self._next_s:
            return
        self._next_s = self._now() + _PERIOD_S
        nvml = self._nvml
        for values, value in (
            (self._clocks_mhz, self._ask("nvmlDeviceGetClockInfo", self._handle, nvml.NVML_CLOCK_SM)),
            (self._temperatures_c, self._ask("nvmlDeviceGetTemperature", self._handle, nvml.NVML_TEMPERATURE_GPU)),
            (self._reasons, self._ask("nvmlDeviceGetCurrentClocksEventReasons", self._handle)),
        ):
            if value is not None:
                values.append(value)

    def summary(self) -> dict[str, Any]:
        """What was seen, as JSON; null is what was not."""
        clocks = self._clocks_mhz
        limit_mw = self._ask("nvmlDeviceGetEnforcedPowerLimit", self._handle)
        return {
            "clocks_locked": self._locked_mhz is not None,
            "why_not": self._why_not,
            "locked_mhz": self._locked_mhz,
            "samples": len(clocks),
            "clock_mhz_min": min(clocks, default=None),
            "clock_mhz_median": median(clocks) if clocks else None,
            "clock_mhz_max": max(clocks, default=None),
            "held": _held(clocks, self._locked_mhz),
            "throttle_reasons": _slowdowns(self._reasons),
            "temperature_c_max": max(self._temperatures_c, default=None),
            "power_limit_w": None if limit_mw is None else limit_mw / 1000,
            "driver_version": self._ask("nvmlSystemGetDriverVersion"),
        }

    def _lock(self) -> None:
        """Lock at the highest graphics clock.

        A network at batch 1 rarely draws what a GPU may, so this is where a free clock goes as well once it is busy:
        only the way there, from idle, is taken out, and the times are those that users see. The base clock would hold
        under any load, and its times would be slower than any user's. If power or heat forbids the highest one,
        ``held`` and ``throttle_reasons`` tell.
        """
        nvml = self._nvml
        # Before the lock, so that no interrupt falls between the two; it also runs when the interpreter ends.
        self._release = weakref.finalize(self, _release_clock, nvml, self._handle)
        try:
            clock_mhz = nvml.nvmlDeviceGetMaxClockInfo(self._handle, nvml.NVML_CLOCK_GRAPHICS)
            nvml.nvmlDeviceSetGpuLockedClocks(self._handle, clock_mhz, clock_mhz)
            self._locked_mhz = clock_mhz
        except nvml.NVMLError as error:
            self._release.detach()
            self._why_not = f"NVML does not lock the clocks: {error}; where the host permits it, root may"

    def _ask(self, name: str, *arguments: Any) -> Any:
        """NVML's answer; None where it has none, or no GPU to speak of."""
        if self._handle is None:
            return None
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError:
            return None


def watch_clocks(bus_id: str) -> ClockWatch:
    """Lock and watch the clock of the GPU at ``bus_id``; works without NVML too, and then says so."""
    try:
        import pynvml
    except ImportError:
        return ClockWatch(None, bus_id)
    return ClockWatch(pynvml, bus_id)


def _release_clock(nvml: Any, handle: Any) -> None:
    try:
        nvml.nvmlDeviceResetGpuLockedClocks(handle)
    except nvml.NVMLError:
        # Nothing is left to do at the end of a process; the module says how to do it by hand.
        return


def _held(clocks_mhz: Sequence[int], locked_mhz: int | None) -> bool | None:
    """Whether all samples were at the locked clock, or at their own median where none was locked."""
    if not clocks_mhz:
        return None
    target = locked_mhz or median(clocks_mhz)
    return all(abs(clock - target) <= _HELD * target for clock in clocks_mhz)


def _slowdowns(reasons: Sequence[int]) -> list[str] | None:
    """Everything that slowed the GPU in any sample; None where NVML did not say."""
    if not reasons:
        return None
    seen = 0
    for one in reasons:
        seen |= one & ~_NO_SLOWDOWN
    bits = [1 << position for position in range(seen.bit_length()) if seen >> position & 1]
    return [_SLOWDOWNS.get(bit, f"reason {bit:#x}") for bit in bits]
