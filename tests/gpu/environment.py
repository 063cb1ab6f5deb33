"""Part "environment": the GPUs and versions of this machine, and the packages that it lacks."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tests.gpu.context import Context
from tests.gpu.parts import missing_packages
from tests.gpu.processes import ROOT

OTHERS = (
    "cuda-python",
    "nvidia-ml-py",
    "onnxruntime-gpu",
    "pycuda",
    "tensorrt",
    "tensorrt-rtx",
    "triton",
)
"""Packages beside the dependencies whose versions matter on a GPU."""
TEST_PACKAGES = ("hypothesis>=6.100", "jsonschema>=4.21", "pytest>=8")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""Tags of wheels that any Linux of the last years can install; pip compares them exactly."""
TORCHVISION_AHEAD = 15
"""torchvision 0.(N + 15) is built for torch 2.N: https://github.com/pytorch/vision#installation."""


def run(context: Context) -> list[str]:
    """Collect everything; a machine that lacks packages is no failure."""
    requirements = [*dependencies(), *TEST_PACKAGES]
    names = [name_of(requirement) for requirement in requirements]
    missing = missing_packages(names)
    wanted = [text for text, name in zip(requirements, names, strict=True) if name in missing]
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": cpu_name(), "count": os.cpu_count()},
        "versions": {name: installed_version(name) for name in sorted({*names, *OTHERS})},
        "missing": missing,
        "how_to_bring_them": how_to_bring(wanted, installed_version("torch")),
    }
    context.save(result)
    result["driver"] = driver()
    context.save(result)
    result["torch"] = torch_build() if "torch" not in missing else None
    result["onnxruntime_providers"] = providers() if "onnxruntime" not in missing else None
    context.save(result)
    return []


def summarise(result: dict[str, Any]) -> list[str]:
    """Lines of the printed summary."""
    lines = [f"Python {result['python']}, {result['cpu']['count']} CPUs: {result['cpu']['name']}"]
    driver = result.get("driver") or {}
    lines += [
        f"{gpu['name']}, compute capability {'.'.join(map(str, gpu['compute_capability']))}, {gpu['memory_mb']} MiB"
        for gpu in driver.get("gpus", [])
    ]
    if driver.get("cuda"):
        lines.append(f"driver: CUDA up to {driver['cuda']}; nvidia-smi: {driver['nvidia_smi'] or 'not available'}")
    chosen = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
    lines.append(", ".join(f"{name} {result['versions'].get(name) or 'missing'}" for name in chosen))
    if result["missing"]:
        lines.append(f"missing packages: {', '.join(result['missing'])}")
        lines += result["how_to_bring_them"]
    return lines


def dependencies() -> list[str]:
    """The requirements of the package, such as "numpy>=1.26"."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(document["project"]["dependencies"])


def name_of(requirement: str) -> str:
    """The package of a requirement."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return match[0]


def installed_version(package: str) -> str | None:
    """The version; None if the package is not installed, or was installed without its metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def how_to_bring(requirements: list[str], torch_version: str | None) -> list[str]:
    """Commands that bring packages to this machine, which may have no network; none if nothing is missing.

    Args:
        requirements: the missing packages.
        torch_version: the installed version, which torchvision must fit.
    """
    if not requirements:
        return []
    if torch_version is not None and (minor := re.match(r"2\.(\d+)", torch_version)):
        fitting = f"torchvision==0.{int(minor[1]) + TORCHVISION_AHEAD}.*"
        requirements = [fitting if name_of(text) == "torchvision" else text for text in requirements]
    platforms = " ".join(f"--platform {tag}_{platform.machine()}" for tag in PLATFORMS)
    python = f"--python-version {sys.version_info.major}.{sys.version_info.minor}"
    names = " ".join(f"'{text}'" for text in requirements)
    return [
        f"with a network: python -m pip download --no-deps --only-binary=:all: {python} {platforms} -d wheels {names}",
        "on this machine: python -m pip install --no-index --no-deps wheels/*.whl",
        "--no-deps keeps this machine's torch; docs/gpu.md tells how to find what the packages need in turn",
    ]


def cpu_name() -> str:
    """The CPU's model, where /proc has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or "unknown"


def driver() -> dict[str, Any] | None:
    """What NVIDIA's driver lists; None without a driver or GPU."""
    from export.cuda import find_gpus, open_driver

    gpus = find_gpus()
    if not gpus:
        return None
    return {
        "cuda": open_driver().cuda_version(),
        "gpus": [
            {"name": gpu.name, "compute_capability": list(gpu.compute_capability), "memory_mb": gpu.memory_mb}
            for gpu in gpus
        ],
        "nvidia_smi": nvidia_smi(),
    }


def nvidia_smi() -> str | None:
    """One line per GPU: driver version, used memory, clocks and power; None without the program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    fields = "driver_version,memory.used,clocks.sm,clocks.max.sm,power.limit"
    command = [program, f"--query-gpu={fields}", "--format=csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return "; ".join((done.stdout or done.stderr).strip().splitlines())


def torch_build() -> dict[str, Any]:
    """What torch was built for, and whether it finds the GPU."""
    import torch

    here = torch.cuda.is_available()
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if here else None,  # type: ignore[no-untyped-call]
        "finds_gpu": here,
        "built_for": torch.cuda.get_arch_list() if here else [],
        "free_and_total_memory_bytes": list(torch.cuda.mem_get_info()) if here else None,
    }


def providers() -> list[str]:
    """ONNX Runtime's execution providers, without those that may not load."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())
