"""What ``fbnetv5 doctor`` does: finds out what this machine can profile, build and run, and what would fix the rest.

Each part is tried in a process of its own, because trying is the only test: an import that crashes, hangs or fails is a
finding. Nothing is changed: whether clocks can be locked is read from who is asking, not tried.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from export import tensorrt
from export.errors import NotHere
from export.isolated import DiedError, call

_TIMEOUT_S = 120.0

Status = Literal["works", "missing", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part of the machine."""

    part: str
    status: Status
    detail: str
    fix: str | None
    """A command, or what to do; None where it works, or where another part comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What the findings come to."""

    name: str
    """profile, build or run."""
    works: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was found."""

    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` form."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Try every part and say what works."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        findings = tuple(pool.map(_try, PROBES))
    return Diagnosis(findings=findings, abilities=abilities(findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How one part is tried."""

    part: str
    function: Callable[..., str]
    """Called in another process; gives the detail, or raises NotHere."""
    arguments: tuple[str, ...] = ()
    fix: str
    needs_driver: bool = False


def _try(probe: Probe) -> Finding:
    if probe.needs_driver and tensorrt.load_driver() is None:
        return Finding(part=probe.part, status="missing", detail="needs the driver", fix=None)
    try:
        detail = call(probe.function, *probe.arguments, timeout_s=_TIMEOUT_S)
    except NotHere as error:
        return Finding(part=probe.part, status="missing", detail=str(error), fix=probe.fix)
    except DiedError as error:
        return Finding(part=probe.part, status="broken", detail=f"trying it {error}", fix=probe.fix)
    return Finding(part=probe.part, status="works", detail=detail, fix=None)


def abilities(findings: tuple[Finding, ...]) -> tuple[Ability, ...]:
    """What this version of fbnetv5 can do with what works."""
    works = {finding.part: finding.detail for finding in findings if finding.status == "works"}
    networks = "torch" in works and "onnxruntime" in works
    builders = [f"{name} {works[name]}" for name in tensorrt.NAMES if name in works]
    return (
        Ability(
            name="profile",
            works=networks,
            detail=_profiled(works, builders) if networks else "nothing",
        ),
        Ability(
            name="build",
            works=bool(builders),
            detail=f"engines, and check ONNX files, with {' or '.join(builders)}" if builders else "no engines",
        ),
        Ability(
            name="run",
            works=networks,
            detail=_run(works) if networks else "nothing",
        ),
    )


def _run(works: Mapping[str, str]) -> str:
    engines = "gpu" in works and any(name in works for name in tensorrt.NAMES)
    return "ONNX files on the processor, and engines" if engines else "ONNX files on the processor; no engines"


def _profiled(works: Mapping[str, str], builders: Sequence[str]) -> str:
    if "gpu" in works and builders:
        return f"the processor (--device cpu) and {works['gpu']}, with {builders[0]}"
    return "the processor (--device cpu); other devices through fbnetv5 profile bundle or estimate"


# The probes: each is called in a process of its own.


def torch() -> str:
    """Torch and torchvision load together, which they do only in versions made for each other."""
    import torch
    import torchvision

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return f"torch {torch.__version__} ({cuda}), torchvision {torchvision.__version__}"


def onnxruntime() -> str:
    """Its providers, which are what it was built with; not all need load here."""
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
    """The CUDA version that NVIDIA's driver serves at most."""
    library = tensorrt.load_driver()
    if library is None:
        raise NotHere("NVIDIA's driver library does not load")
    serves = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(serves)) != 0:
        raise NotHere("NVIDIA's driver library loads and does not answer")
    return f"serves CUDA up to {_cuda_version(serves.value)}"


def _cuda_version(number: int) -> str:
    """As CUDA writes it: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpu() -> str:
    """The NVIDIA GPUs that the driver gives."""
    from export.cuda import found_gpus

    found = found_gpus()
    if not found:
        raise NotHere("the driver gives none")
    return ", ".join(f"{one.name} (compute capability {'.'.join(map(str, one.compute_capability))})" for one in found)


def pycuda() -> str:
    """Its driver module loads."""
    try:
        import pycuda
        import pycuda.driver
    except ModuleNotFoundError:
        raise NotHere("pycuda is not installed") from None
    return str(pycuda.VERSION_TEXT)


def clocks() -> str:
    """Whether this user may lock a GPU's clocks, which steadies timings; it is not tried."""
    if os.name == "posix" and os.geteuid() != 0:
        raise NotHere("only root may lock them")
    return "root may lock them with nvidia-smi -lgc, unless the host forbids it"


_MATCHING = "python -m pip install --upgrade torch torchvision"

PROBES = (
    Probe(part="torch", function=torch, fix=_MATCHING),
    Probe(
        part="onnxruntime",
        function=onnxruntime,
        fix="python -m pip uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime",
    ),
    Probe(
        part="driver",
        function=driver,
        fix="for GPUs only: install NVIDIA's driver; a container is given it with docker run --gpus all",
    ),
    Probe(
        part="gpu",
        function=gpu,
        fix="look whether nvidia-smi sees it; a container is given it with docker run --gpus all",
        needs_driver=True,
    ),
    Probe(part="clocks", function=clocks, fix="sudo nvidia-smi -lgc MIN,MAX locks, -rgc unlocks", needs_driver=True),
    Probe(
        part="tensorrt",
        function=tensorrt.ready,
        arguments=("tensorrt",),
        fix="with a GPU only: python -m pip install 'fbnetv5[tensorrt]'",
    ),
    Probe(
        part="tensorrt_rtx",
        function=tensorrt.ready,
        arguments=("tensorrt_rtx",),
        fix="on Linux or Windows on x86-64, no GPU needed: python -m pip install 'fbnetv5[rtx]'",
    ),
    Probe(
        part="pycuda",
        function=pycuda,
        fix="for running engines from Python: install the CUDA toolkit, then python -m pip install pycuda",
    ),
)
