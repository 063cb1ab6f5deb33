from typing import Any

import pytest

from tests.gpu.train import wrong_device


@pytest.mark.parametrize(
    ("used", "device"),
    [
        (None, "cuda"),
        ({"device": "cuda:0", "peak_gpu_memory_mb": 300.0}, "cuda"),
        ({"device": "cpu", "peak_gpu_memory_mb": None}, "cpu"),
    ],
)
def test_a_command_on_its_device_is_right(used: dict[str, Any] | None, device: str) -> None:
    assert wrong_device(used, device) is None


@pytest.mark.parametrize("used", [("cpu", None), ("cuda:0", 0.0)])
def test_a_command_on_the_cpu_or_without_gpu_memory_is_wrong(used: tuple[str, float | None]) -> None:
    reason = wrong_device({"device": used[0], "peak_gpu_memory_mb": used[1]}, "cuda")
    assert reason == f"computed on {used[0]} with 0 MiB of GPU memory, not on cuda"
