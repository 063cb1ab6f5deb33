"""Finds out what this machine can profile, build and run, and how to fix the rest: the work of ``fbnetv5 doctor``.

Each part is used in a subprocess, because that is the only reliable test: an import that crashes, hangs or fails is a
finding. Nothing on the machine is changed: whether clocks can be locked is derived from the user's rights, not tried.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from export.cuda import load_driver
from export.errors import UnavailableError
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from export.trt import bindings

_TIMEOUT_S = 120.0

Status = Literal["works", "missing", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The state of one part of the machine."""

    part: str
    status: Status
    detail: str
    fix: str | None
    """A command or an instruction; None if the part works, or if another part must be fixed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """Whether one kind of work is possible on this machine."""

    name: str
    """profile, build or run."""
    works: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings and abilities."""

    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` document."""
        return asdict(self)


def doctor() -> Diagnosis:
    """Find out what this machine can profile, build and run, and how to fix the rest; nothing is changed.

    Examples:
        >>> fixes = [finding.fix for finding in api.doctor().findings if finding.status != "works"]
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        findings = tuple(pool.map(_run_probe, PROBES))
    return Diagnosis(findings=findings, abilities=abilities(findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The test of one part."""

    part: str
    function: Callable[..., str]
    """Called in a subprocess; returns the detail of the finding, or raises UnavailableError."""
    arguments: tuple[str, ...] = ()
    fix: str
    needs_driver: bool = False


def _run_probe(probe: Probe) -> Finding:
    if probe.needs_driver and load_driver() is None:
        return Finding(part=probe.part, status="missing", detail="needs the driver", fix=None)
    try:
        detail = run_in_subprocess(probe.function, *probe.arguments, timeout_s=_TIMEOUT_S)
    except UnavailableError as error:
        return Finding(part=probe.part, status="missing", detail=str(error), fix=probe.fix)
    except SubprocessFailedError as error:
        return Finding(part=probe.part, status="broken", detail=f"its test {error}", fix=probe.fix)
    return Finding(part=probe.part, status="works", detail=detail, fix=None)


def abilities(findings: tuple[Finding, ...]) -> tuple[Ability, ...]:
    """The abilities of this machine, derived from the findings."""
    works = {finding.part: finding.detail for finding in findings if finding.status == "works"}
    networks = "torch" in works and "onnxruntime" in works
    builders = [f"{name} {works[name]}" for name in bindings.NAMES if name in works]
    return (
        Ability(
            name="profile",
            works=networks,
            detail=_profile_detail(works, builders) if networks else "torch and onnxruntime are needed",
        ),
        Ability(
            name="build",
            works=bool(builders),
            detail=f"engines, and check ONNX files, with {' or '.join(builders)}"
            if builders
            else "tensorrt or tensorrt_rtx is needed to build engines and to check ONNX files",
        ),
        Ability(
            name="run",
            works=networks,
            detail=_run_detail(works) if networks else "torch and onnxruntime are needed",
        ),
    )


def _run_detail(works: Mapping[str, str]) -> str:
    engines = "gpu" in works and any(name in works for name in bindings.NAMES)
    return (
        "ONNX files on the CPU, and engines"
        if engines
        else "ONNX files on the CPU; no engines without GPU and TensorRT"
    )


def _profile_detail(works: Mapping[str, str], builders: Sequence[str]) -> str:
    if "gpu" in works and builders:
        return f"the CPU (--device cpu) and {works['gpu']}, with {builders[0]}"
    return "the CPU (--device cpu); other devices through fbnetv5 profile bundle or estimate"


# The functions of the probes, each called in a subprocess.


def torch() -> str:
    """Versions of torch and torchvision, which are imported together: that fails if the versions do not match."""
    import torch
    import torchvision

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return f"torch {torch.__version__} ({cuda}), torchvision {torchvision.__version__}"


def onnxruntime() -> str:
    """Version of ONNX Runtime and the execution providers that it was built with; some may not load on this machine."""
    import onnxruntime

    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise RuntimeError("onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files")
    return f"{onnxruntime.__version__}, providers {providers}"


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def driver() -> str:
    """The latest CUDA version that NVIDIA's driver supports."""
    library = load_driver()
    if library is None:
        raise UnavailableError("NVIDIA's driver library does not load")
    cuda = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(cuda)) != 0:
        raise UnavailableError("NVIDIA's driver library loads and returns an error")
    return f"supports CUDA up to {_cuda_version(cuda.value)}"


def _cuda_version(number: int) -> str:
    """CUDA's version number as text, e.g. 13020 as "13.2": 1000 * major + 10 * minor."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpu() -> str:
    """The NVIDIA GPUs that the driver lists."""
    from export.cuda import find_gpus

    gpus = find_gpus()
    if not gpus:
        raise UnavailableError("the driver lists no GPU")
    return ", ".join(f"{gpu.name} (compute capability {'.'.join(map(str, gpu.compute_capability))})" for gpu in gpus)


def pycuda() -> str:
    """Version of pycuda, whose driver module is imported."""
    try:
        import pycuda
        import pycuda.driver
    except ModuleNotFoundError:
        raise UnavailableError("pycuda is not installed") from None
    return str(pycuda.VERSION_TEXT)


def clocks() -> str:
    """Whether this user may lock a GPU's clocks, for stable latencies; it is not tried."""
    if os.name == "posix" and os.geteuid() != 0:
        raise UnavailableError("only root may lock clocks")
    return "root may lock clocks with nvidia-smi -lgc, unless the host forbids it"


_INSTALL_TORCH = "python -m pip install --upgrade torch torchvision"

PROBES = (
    Probe(part="torch", function=torch, fix=_INSTALL_TORCH),
    Probe(
        part="onnxruntime",
        function=onnxruntime,
        fix="python -m pip uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime",
    ),
    Probe(
        part="driver",
        function=driver,
        fix="for GPUs only: install NVIDIA's driver; a container gets it with docker run --gpus all",
    ),
    Probe(
        part="gpu",
        function=gpu,
        fix="check whether nvidia-smi lists it; a container gets it with docker run --gpus all",
        needs_driver=True,
    ),
    Probe(part="clocks", function=clocks, fix="sudo nvidia-smi -lgc MIN,MAX locks, -rgc unlocks", needs_driver=True),
    Probe(
        part="tensorrt",
        function=bindings.probe_builder,
        arguments=("tensorrt",),
        fix="with a GPU only: python -m pip install 'fbnetv5[tensorrt]'",
    ),
    Probe(
        part="tensorrt_rtx",
        function=bindings.probe_builder,
        arguments=("tensorrt_rtx",),
        fix="on Linux or Windows on x86-64, no GPU needed: python -m pip install 'fbnetv5[rtx]'",
    ),
    Probe(
        part="pycuda",
        function=pycuda,
        fix="for running engines from Python: install the CUDA toolkit, then python -m pip install pycuda",
    ),
)
