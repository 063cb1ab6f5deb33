import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.cuda import CudaDriver, GpuInfo, load_driver
from export.errors import UnavailableError, UserError
from export.graph import to_onnx_bytes
from export.precision import at_precision
from latency.clocks import ClockWatch
from latency.runtimes import gpu, onnxruntime
from latency.runtimes.gpu import GpuParts
from latency.runtimes.onnxruntime import CpuBackend, OrtGpuBackend, cpu_name, open_onnxruntime_gpu
from tests.export.fake_cuda import FakeCuda, fake_memory


def test_the_fingerprint_has_everything_that_changes_times() -> None:
    fingerprint = CpuBackend(threads=2).fingerprint()
    assert fingerprint["device_name"] == cpu_name() != ""
    assert fingerprint["threads"] == 2
    assert fingerprint["cores"] == os.cpu_count()
    assert fingerprint["runtime_version"] == version("onnxruntime")


X86 = "model name\t: AMD EPYC\nstepping\t: 1\n\nmodel name\t: AMD EPYC\n"
PI_5 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
PI_4 = PI_5.replace("0xd0b", "0xd08")
ARM_32 = "model name\t: ARMv7 Processor rev 3 (v7l)\n" + PI_4
TWO_KINDS = PI_5.replace("0xd0b", "0xd05") * 4 + PI_5 * 4


@pytest.mark.parametrize(
    ("cpuinfo", "board", "name"),
    [
        (X86, "", "AMD EPYC"),
        (X86, "Some Board", "AMD EPYC"),
        (PI_5, "Raspberry Pi 5 Model B Rev 1.0", "Arm 0x41-0xd0b, Raspberry Pi 5 Model B Rev 1.0"),
        (PI_4, "", "Arm 0x41-0xd08"),
        (ARM_32, "", "Arm 0x41-0xd08"),
        (TWO_KINDS, "", "Arm 0x41-0xd05 0x41-0xd0b"),
    ],
)
def test_linux_names_the_model_of_x86_and_the_cores_and_the_board_of_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, board: str, name: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    (tmp_path / "model").write_text(f"{board}\0")
    monkeypatch.setattr(onnxruntime, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(gpu, "_BOARD", tmp_path / "model")
    assert cpu_name() == name


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for sysctl is a shell script")
def test_macs_are_told_apart_by_sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(onnxruntime, "_CPUINFO", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cpu_name() == (platform.processor() or platform.machine())  # without sysctl
    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M2 Pro"\n')
    sysctl.chmod(0o755)
    assert cpu_name() == "Apple M2 Pro"


@pytest.mark.parametrize(("wrong", "message"), [({"precision": "fp16"}, "fp32 or int8"), ({"threads": 0}, "1 thread")])
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CpuBackend(**wrong)  # type: ignore[arg-type]


def test_a_larger_graph_takes_longer_and_wrong_inputs_are_refused() -> None:
    def graph(side: int) -> tuple[bytes, dict[str, np.ndarray]]:
        image = torch.zeros(1, 8, side, side)
        content = to_onnx_bytes(nn.Conv2d(8, 8, 3), (image,), input_names=["x"], output_names=["y"])
        return content, {"x": image.numpy()}

    small, large = (CpuBackend().open(*graph(side)) for side in (8, 256))
    assert min(large(1) for _ in range(9)) > min(small(1) for _ in range(9)) > 0
    with pytest.raises(UserError, match="refuses these inputs"):
        CpuBackend().open(graph(8)[0], {"z": np.zeros((1, 8, 8, 8), np.float32)})


def test_copies_alternate_and_are_not_faster() -> None:
    image = torch.zeros(1, 8, 64, 64)
    content = to_onnx_bytes(nn.Conv2d(8, 8, 3), (image,), input_names=["x"], output_names=["y"])
    single, three = (CpuBackend().open(content, {"x": image.numpy()}, copies=copies) for copies in (1, 3))
    assert 0 < min(three(6) for _ in range(9)) < 10 * min(single(6) for _ in range(9))


H100 = GpuInfo(name="NVIDIA H100 80GB HBM3", compute_capability=(9, 0), memory_mb=81559)


def gpu_backend(cuda: FakeCuda, precision: str = "fp32") -> OrtGpuBackend:
    """An H100 with a simulated driver, whose graphs ONNX Runtime runs on the CPU."""
    clocks = ClockWatch(None, "0000:3B:00.0")
    parts = GpuParts(device="h100", precision=precision, index=0, gpu=H100, driver=CudaDriver(cuda), clocks=clocks)
    return OrtGpuBackend(parts, memory=fake_memory(), provider="cpu")


def convolution() -> tuple[bytes, dict[str, np.ndarray]]:
    image, module = torch.zeros(1, 8, 16, 16), nn.Conv2d(8, 8, 3)
    content = to_onnx_bytes(module, (image,), input_names=["x"], output_names=["y"], dynamic_batch=False)
    return content, {"x": image.numpy()}


def test_runs_on_a_gpu_are_timed_between_two_events() -> None:
    cuda = FakeCuda()
    backend = gpu_backend(cuda)
    sampler = backend.open(*convolution())
    cuda.calls.clear()
    assert sampler(3) == 0.0  # the simulated GPU did nothing: ONNX Runtime ran on the CPU
    assert cuda.calls == ["cuEventRecord", "cuEventRecord", "cuEventQuery", "cuEventQuery", "cuEventElapsedTime"]
    assert backend.conditions()["graphs"] == 1
    assert backend.fingerprint()["runtime"] == "onnxruntime"
    assert backend.fingerprint()["device_name"] == H100.name


def test_wrong_inputs_and_precisions_are_refused_on_a_gpu_too() -> None:
    content, _ = convolution()
    with pytest.raises(UserError, match="refuses these inputs"):
        gpu_backend(FakeCuda()).open(content, {"z": np.zeros((1, 8, 16, 16), np.float32)})
    with pytest.raises(UserError, match="GPUs at fp32 or fp16, not at int8: use --runtime tensorrt"):
        gpu_backend(FakeCuda(), "int8")


@pytest.mark.skipif(load_driver() is not None, reason="there is a driver here")
def test_a_gpu_needs_the_cuda_provider() -> None:
    with pytest.raises(UnavailableError, match="no CUDAExecutionProvider here"):
        open_onnxruntime_gpu("h100", "fp32", index=0)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_real_gpu_replays_a_captured_graph(precision: str) -> None:
    try:
        backend = open_onnxruntime_gpu("this", precision, index=0)
    except UnavailableError as error:
        pytest.skip(str(error))
    with backend:
        content, inputs = convolution()
        sampler = backend.open(at_precision(content, precision, inputs), inputs, copies=2)
        assert 1e-3 < min(sampler(20) for _ in range(5)) < 10
        assert backend.conditions()["without_cuda_graph"] == {}
