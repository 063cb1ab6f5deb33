import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.cuda import CudaDriver, GpuInfo, find_gpus
from export.errors import UnavailableError, UserError
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile import Scope, graphs_of
from fbnetv5.deploy.profile_networks import networks_to_fit
from fbnetv5.spaces.four_path import FourPathSpace
from latency.clocks import ClockWatch
from latency.profile import profile
from latency.protocol import Timing
from latency.runtimes.gpu import GpuParts
from latency.runtimes.torch import TorchCpuBackend, TorchGpuBackend, open_torch_gpu, prepare_call
from latency.table import table_path
from tests.export.fake_cuda import FakeCuda

IMAGE = {"x": np.random.default_rng(0).standard_normal((1, 8, 32, 32), dtype=np.float32)}


class Recorder(nn.Module):
    """A convolution with batch norm that stores its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        self.seen: list[tuple[torch.Tensor, torch.Tensor, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        self.seen.append((x, y, self.training))
        return y

    def __deepcopy__(self, _: object) -> "Recorder":
        return self


def test_a_call_runs_the_module_in_eval_mode_and_channels_last() -> None:
    module = Recorder()
    prepare_call(module, IMAGE, torch.device("cpu"), torch.float32, compiled=False)()
    ((x, y, training),) = module.seen
    assert not training
    assert x.is_contiguous(memory_format=torch.channels_last)
    weight, bias = module.body[0].parameters()
    torch.testing.assert_close(y, nn.functional.conv2d(x, weight, bias) / (1 + 1e-5) ** 0.5)


def test_the_module_keeps_its_type() -> None:
    module = nn.Conv2d(8, 8, 3)
    prepare_call(module, IMAGE, torch.device("cpu"), torch.float64, compiled=False)()
    assert module.weight.dtype == torch.float32


@pytest.mark.slow
def test_a_compiled_module_runs_too() -> None:
    sampler = TorchCpuBackend(compiled=True).open(nn.Sequential(nn.Conv2d(8, 8, 3), nn.Hardswish()), IMAGE)
    assert 0 < min(sampler(1) for _ in range(9)) < 10


@pytest.mark.slow
def test_more_structures_than_torchs_own_limit_are_compiled() -> None:
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters["stats"]
    counters.clear()
    backend = TorchCpuBackend(compiled=True)
    for width in range(1, 11):
        backend.open(nn.Sequential(nn.Conv2d(8, width, 1), *[nn.ReLU()] * width), IMAGE)
    assert counters["unique_graphs"] == 10 > 8


def test_the_fingerprint_names_torch_and_its_threads() -> None:
    fingerprint = TorchCpuBackend(threads=2).fingerprint()
    assert (fingerprint["runtime"], fingerprint["runtime_version"]) == ("torch", torch.__version__)
    assert (fingerprint["threads"], fingerprint["cores"]) == (2, os.cpu_count())
    assert TorchCpuBackend(compiled=True).fingerprint()["runtime"] == "torch-compile"


@pytest.mark.parametrize(("wrong", "message"), [({"precision": "fp16"}, "a CPU at fp32"), ({"threads": 0}, "1 thread")])
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TorchCpuBackend(**wrong)  # type: ignore[arg-type]


def test_threads_apply_to_the_samples_alone() -> None:
    before = torch.get_num_threads()
    used: list[int] = []

    class Threads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            used.append(torch.get_num_threads())
            return x

    TorchCpuBackend(threads=before + 1).open(Threads(), IMAGE)(2)
    assert set(used) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_larger_module_takes_longer_and_copies_alternate() -> None:
    module = nn.Conv2d(8, 8, 3, padding=1)
    large = {"x": np.zeros((1, 8, 256, 256), np.float32)}
    backend = TorchCpuBackend()
    small, three, big = (
        backend.open(module, IMAGE),
        backend.open(module, IMAGE, copies=3),
        backend.open(module, large),
    )
    assert min(big(1) for _ in range(9)) > min(small(1) for _ in range(9)) > 0
    assert min(three(3) for _ in range(9)) > 0


def test_a_gpu_is_measured_at_two_precisions() -> None:
    gpu = GpuInfo(name="Tesla T4", compute_capability=(7, 5), memory_mb=15360)
    driver, clocks = CudaDriver(FakeCuda()), ClockWatch(None, "")
    parts = GpuParts(device="t4", precision="int8", index=0, gpu=gpu, driver=driver, clocks=clocks)
    with pytest.raises(UserError, match="torch measures GPUs at fp32 or fp16, not at int8: use --runtime tensorrt"):
        TorchGpuBackend(parts, compiled=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_torch_without_cuda_is_refused() -> None:
    with pytest.raises(UnavailableError, match="finds no GPU: it is built without CUDA, or for another driver"):
        open_torch_gpu("h100", "fp16", index=0, compiled=False)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_real_gpu_replays_a_captured_run(precision: str, compiled: bool) -> None:
    assert find_gpus()
    try:
        backend = open_torch_gpu("this", precision, index=0, compiled=compiled)
    except UnavailableError as error:
        pytest.skip(str(error))
    with backend:
        module = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Hardswish(), nn.Conv2d(64, 64, 1))
        sampler = backend.open(module, IMAGE, copies=2)
        few, many = (min(sampler(runs) * runs for _ in range(5)) for runs in (50, 200))
        assert 0 < few < many  # a factor between them would depend on the other work of the GPU
        assert backend.conditions()["without_cuda_graph"] == {}


@pytest.mark.gpu
def test_a_captured_run_keeps_its_weights() -> None:
    module = Recorder()
    weights = weakref.ref(module.body[0].weight)
    with open_torch_gpu("this", "fp16", index=0, compiled=False) as backend:
        sampler = backend.open(module, IMAGE)
        module.seen.clear()
        del module
        gc.collect()
        assert weights() is not None
        assert sampler(3) > 0
        del sampler
        gc.collect()
        assert weights() is None


@pytest.mark.slow
def test_a_table_of_torch_predicts_whole_networks_that_it_was_not_fitted_on(tmp_path: Path) -> None:
    space = FourPathSpace(variant="a", stages=1, blocks_per_path=1)
    scope = Scope(space=space, tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(96, 96))
    brief = Timing(repetitions=10, warmup_ms=5, min_ms=40, min_runs=5, max_cv=1e9, reference_ms=20)
    path = table_path(tmp_path, "cpu", runtime="torch")
    result = profile(graphs_of(scope), networks_to_fit(scope, 18), path=path, backend=TorchCpuBackend(), timing=brief)
    assert path.name == "cpu-torch-fp32-b1.json"
    assert result.table.name == path.stem
    assert result.table.correction is not None
    held_out = result.table.correction.held_out
    if held_out.noise > 0.04:
        pytest.skip(f"other work on this machine changes the time of one network by {held_out.noise:.1%}")
    assert held_out.predicted.mape < 0.05
    assert held_out.predicted.kendall_tau > 0.8
