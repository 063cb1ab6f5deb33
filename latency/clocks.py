"""Locks the clock of a GPU while it is measured, where that is permitted, and records the actual clock in any case.

NVML, the library behind nvidia-smi, is called through nvidia-ml-py (module ``pynvml``). Without it, or without the
right to lock clocks, a measurement continues, and its conditions record this: the reader of a table must see whether
heat or power slowed the GPU, or whether its clock changed. In a virtual machine or a container NVML may support only
some queries; the result of an unsupported query is null, never a guess.

The clocks are released when the backend is closed, at the latest when the process ends, after an error or a keyboard
interrupt too; the commands take SIGTERM and SIGHUP for such an interrupt (``export/signals.py``). A process that
receives SIGKILL cannot release them; then run nvidia-smi -rgc.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

_PERIOD_S = 0.1
"""Time between two samples: the driver itself updates its values about ten times a second."""
_TOLERANCE = 0.02
"""A clock within this fraction of its target counts as held; clocks change in steps of about 1 %."""

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
"""Clock event reasons of nvml.h, without 0x1 (idle) and 0x2 (a user set the clock, as this module does)."""
_NO_SLOWDOWN = 0x003


class ClockWatch:
    """The clock of one GPU: locked from the start to ``unlock``, recorded by ``sample``."""

    def __init__(self, nvml: Any, bus_id: str, *, now: Callable[[], float] = time.monotonic) -> None:
        """Lock the clock where that is permitted; raises nothing where it is not.

        Args:
            nvml: the module ``pynvml``; None where it is not installed.
            bus_id: the PCI bus id of the GPU, such as "0000:3B:00.0".
            now: returns seconds of a monotonic clock.
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
            self._why_not = f"NVML does not work: {error}"
            return
        self._lock()

    def unlock(self) -> None:
        """Release the clock; a second call does nothing."""
        if self._locked_mhz is not None:
            self._release()

    def sample(self) -> None:
        """Record clock, temperature and slowdowns, unless the last sample is less than a tenth of a second old."""
        if self._handle is None or self._now() < self._next_s:
            return
        self._next_s = self._now() + _PERIOD_S
        nvml = self._nvml
        for values, value in (
            (self._clocks_mhz, self._query("nvmlDeviceGetClockInfo", self._handle, nvml.NVML_CLOCK_SM)),
            (self._temperatures_c, self._query("nvmlDeviceGetTemperature", self._handle, nvml.NVML_TEMPERATURE_GPU)),
            (self._reasons, self._query("nvmlDeviceGetCurrentClocksEventReasons", self._handle)),
        ):
            if value is not None:
                values.append(value)

    def summary(self) -> dict[str, Any]:
        """The record as JSON; null where NVML gave no value."""
        clocks = self._clocks_mhz
        limit_mw = self._query("nvmlDeviceGetEnforcedPowerLimit", self._handle)
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
            "driver_version": self._query("nvmlSystemGetDriverVersion"),
        }

    def _lock(self) -> None:
        """Lock at the highest graphics clock.

        A network at batch 1 rarely reaches the power limit of a GPU, so an unlocked clock also rises to the highest
        clock under load: locking only removes the transition from idle, and the times are those of deployment. The
        base clock would be stable under any load, but its times would be slower than in deployment. If power or heat
        prevents the highest clock, ``held`` and ``throttle_reasons`` record it.
        """
        nvml = self._nvml
        # Registered before the lock, so that no interrupt falls between the two; runs at interpreter exit too.
        self._release = weakref.finalize(self, _release_clock, nvml, self._handle)
        try:
            clock_mhz = nvml.nvmlDeviceGetMaxClockInfo(self._handle, nvml.NVML_CLOCK_GRAPHICS)
            nvml.nvmlDeviceSetGpuLockedClocks(self._handle, clock_mhz, clock_mhz)
            self._locked_mhz = clock_mhz
        except nvml.NVMLError as error:
            self._release.detach()
            self._why_not = f"NVML does not lock the clocks: {error}; root may where the host permits it"

    def _query(self, name: str, *arguments: Any) -> Any:
        """The value of an NVML query; None if it fails, this NVML lacks it, or NVML has no handle of the GPU."""
        if self._handle is None:
            return None
        try:
            return getattr(self._nvml, name)(*arguments)
        except (self._nvml.NVMLError, AttributeError):  # versions before 12 lack some queries
            return None


def watch_clocks(bus_id: str) -> ClockWatch:
    """Lock and watch the clock of the GPU at ``bus_id``; without NVML the summary records why there is no data."""
    try:
        import pynvml
    except ImportError:
        return ClockWatch(None, bus_id)
    return ClockWatch(pynvml, bus_id)


def _release_clock(nvml: Any, handle: Any) -> None:
    try:
        nvml.nvmlDeviceResetGpuLockedClocks(handle)
    except nvml.NVMLError:
        # The process is ending and can do nothing more; the module docstring has the manual way.
        return


def _held(clocks_mhz: Sequence[int], locked_mhz: int | None) -> bool | None:
    """Whether all samples were at the locked clock, or at their own median where the clock was not locked."""
    if not clocks_mhz:
        return None
    target = locked_mhz or median(clocks_mhz)
    return all(abs(clock - target) <= _TOLERANCE * target for clock in clocks_mhz)


def _slowdowns(reasons: Sequence[int]) -> list[str] | None:
    """The slowdowns in any sample; None where NVML gave no value."""
    if not reasons:
        return None
    union = 0
    for bits in reasons:
        union |= bits & ~_NO_SLOWDOWN
    slowdowns = [1 << position for position in range(union.bit_length()) if union >> position & 1]
    return [_SLOWDOWNS.get(bit, f"reason {bit:#x}") for bit in slowdowns]
