import json
import subprocess
import sys
from itertools import count
from typing import Any

import pytest

from export.cuda import load_driver
from latency.clocks import ClockWatch, watch_clocks
from tests.latency.fake_nvml import FakeNvml, NvmlError

BUS = "0000:3B:00.0"


def watch(**answers: Any) -> tuple[ClockWatch, FakeNvml]:
    """A GPU of at most 1410 MHz that may be locked, sampled every second; NVML answers as told."""
    usual = {"nvmlDeviceGetHandleByPciBusId": "gpu", "nvmlDeviceGetMaxClockInfo": 1410}
    nvml = FakeNvml(answers={**usual, **answers})
    return ClockWatch(nvml, BUS, now=count().__next__), nvml


def test_the_clock_is_locked_at_its_highest_and_released_once() -> None:
    clocks, nvml = watch()
    assert nvml.called("nvmlDeviceGetHandleByPciBusId") == [[BUS]]
    assert nvml.called("nvmlDeviceSetGpuLockedClocks") == [["gpu", 1410, 1410]]
    assert not nvml.called("nvmlDeviceResetGpuLockedClocks")
    clocks.unlock()
    clocks.unlock()
    assert nvml.called("nvmlDeviceResetGpuLockedClocks") == [["gpu"]]
    assert clocks.summary()["clocks_locked"]  # while it was measured


def test_the_summary_has_the_samples() -> None:
    clocks, _ = watch(
        nvmlDeviceGetClockInfo=[1410, 1395, 1410],
        nvmlDeviceGetTemperature=[50, 61, 60],
        nvmlDeviceGetCurrentClocksEventReasons=[0x2, 0x3, 0x2],
        nvmlDeviceGetEnforcedPowerLimit=400_000,
        nvmlSystemGetDriverVersion="580.65.06",
    )
    for _ in range(3):
        clocks.sample()
    summary = clocks.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {
        "clocks_locked": True,
        "why_not": None,
        "locked_mhz": 1410,
        "samples": 3,
        "clock_mhz_min": 1395,
        "clock_mhz_median": 1410,
        "clock_mhz_max": 1410,
        "held": True,
        "throttle_reasons": [],
        "temperature_c_max": 61,
        "power_limit_w": 400.0,
        "driver_version": "580.65.06",
    }


def test_a_slowed_gpu_did_not_hold_its_clock() -> None:
    clocks, _ = watch(nvmlDeviceGetClockInfo=[1410, 1200], nvmlDeviceGetCurrentClocksEventReasons=[0x6, 0x1042])
    clocks.sample()
    clocks.sample()
    summary = clocks.summary()
    assert not summary["held"]
    assert summary["throttle_reasons"] == ["software power cap", "hardware thermal slowdown", "reason 0x1000"]


def test_a_user_without_the_right_to_lock_still_gets_samples_and_the_reason() -> None:
    clocks, nvml = watch(
        nvmlDeviceSetGpuLockedClocks=NvmlError("Insufficient Permissions"), nvmlDeviceGetClockInfo=1200
    )
    clocks.sample()
    clocks.unlock()
    summary = clocks.summary()
    assert not summary["clocks_locked"]
    assert "Insufficient Permissions" in summary["why_not"]
    assert summary["held"]  # at its own median
    assert not nvml.called("nvmlDeviceResetGpuLockedClocks")


def test_unsupported_queries_are_null() -> None:
    unsupported = NvmlError("Not Supported")
    names = ("ClockInfo", "Temperature", "CurrentClocksEventReasons", "EnforcedPowerLimit")
    clocks, _ = watch(**{f"nvmlDeviceGet{name}": unsupported for name in names}, nvmlSystemGetDriverVersion=unsupported)
    clocks.sample()
    summary = clocks.summary()
    assert {key for key, value in summary.items() if value is None} == set(summary) - {
        "clocks_locked",
        "locked_mhz",
        "samples",
    }


def test_samples_are_a_tenth_of_a_second_apart() -> None:
    nvml = FakeNvml(answers={"nvmlDeviceGetHandleByPciBusId": "gpu", "nvmlDeviceGetClockInfo": 1410})
    times_s = iter([0.0, 0.0, 0.05, 0.11, 0.11])  # each sample that is taken looks twice
    clocks = ClockWatch(nvml, BUS, now=times_s.__next__)
    for _ in range(3):
        clocks.sample()
    assert clocks.summary()["samples"] == 2


AT_THE_END = """
from latency.clocks import ClockWatch
from tests.latency.fake_nvml import FakeNvml
def reset(_): print("let go")
nvml = FakeNvml(answers={"nvmlDeviceGetHandleByPciBusId": "gpu", "nvmlDeviceGetMaxClockInfo": 1410})
nvml.nvmlDeviceResetGpuLockedClocks = reset
clocks = ClockWatch(nvml, "0000:3B:00.0")
raise KeyboardInterrupt
"""


def test_an_interrupted_process_releases_the_clock() -> None:
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, check=False)
    assert done.stdout == "let go\n"
    assert "KeyboardInterrupt" in done.stderr


def test_a_query_that_an_older_nvml_lacks_is_left_out() -> None:
    clocks, nvml = watch(nvmlDeviceGetClockInfo=1410)
    nvml.missing = ("nvmlDeviceGetCurrentClocksEventReasons",)
    clocks.sample()
    assert (clocks.summary()["samples"], clocks.summary()["throttle_reasons"]) == (1, None)


def test_without_nvidia_ml_py_the_conditions_have_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    clocks = watch_clocks(BUS)
    clocks.sample()
    clocks.unlock()
    assert clocks.summary()["why_not"] == "nvidia-ml-py is not installed: pip install nvidia-ml-py"


@pytest.mark.skipif(load_driver() is not None, reason="there is a driver here")
def test_the_real_nvml_without_a_driver_raises_nothing() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: pip install nvidia-ml-py")
    clocks = watch_clocks(BUS)
    clocks.sample()
    assert clocks.summary()["why_not"].startswith("NVML does not work: ")


def test_pynvml_has_every_name_that_is_used() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: pip install nvidia-ml-py")
    clocks, fake = watch()
    clocks.sample()
    clocks.unlock()
    clocks.summary()
    used = {name for name, *_ in fake.calls}
    assert len(used) == 10
    assert all(callable(getattr(nvml, name)) for name in used)
    for constant in ("NVML_CLOCK_GRAPHICS", "NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU"):
        assert getattr(nvml, constant) == getattr(fake, constant)
    assert issubclass(nvml.NVMLError, Exception)
