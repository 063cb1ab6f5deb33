"""The parts: what each does, the packages that it imports, and its share of the time."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate

MODULES = {"pillow": "PIL", "pyyaml": "yaml"}
"""Packages whose module has another name."""
_SEARCH = (
    "accelerate",
    "numpy",
    "pillow",
    "pycocotools",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scipy",
    "tensorboard",
    "torch",
    "torchmetrics",
    "torchvision",
)
_COMMANDS = ("accelerate", "numpy", "onnx", "pillow", "pydantic", "pyyaml", "rich", "safetensors", "torch", "typer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the command."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    """Packages without which the part is skipped."""
    share: float
    """Of the time of all parts."""
    module: str
    """Module with ``run(context)``, which runs in the part's process, and ``summarise(result)``."""


PARTS = (
    Part(
        name="environment",
        purpose="GPUs, driver, versions, and the missing packages",
        packages=(),
        share=0.10,
        module="tests.gpu.environment",
    ),
    Part(
        name="tests",
        purpose="the tests that need a GPU",
        packages=(
            "accelerate",
            "numpy",
            "pillow",
            "pydantic",
            "pytest",
            "pyyaml",
            "safetensors",
            "torch",
            "torchvision",
        ),
        share=0.14,
        module="tests.gpu.gpu_tests",
    ),
    Part(
        name="search",
        purpose="speed, memory and losses of search steps in fp32 and bf16, compared with the CPU",
        packages=_SEARCH,
        share=0.36,
        module="tests.gpu.search",
    ),
    Part(
        name="profile",
        purpose="latency tables in fp16 through torch and ONNX Runtime, with their errors",
        packages=(*_COMMANDS, "torchvision"),
        share=0.26,
        module="tests.gpu.profile",
    ),
    Part(
        name="train",
        purpose="search, train, export and validate, a few steps each",
        packages=(*_SEARCH, "onnx", "onnxruntime", "rich", "typer"),
        share=0.14,
        module="tests.gpu.train",
    ),
)


def limits_s(parts: Sequence[Part], total_s: float) -> list[float]:
    """Seconds after the start by which each part must end: time that a part leaves over goes to the next parts."""
    whole = sum(part.share for part in parts)
    return [total_s * share / whole for share in accumulate(part.share for part in parts)]


def missing_packages(packages: Sequence[str]) -> list[str]:
    """The packages that are not installed; nothing is imported."""
    return [package for package in packages if find_spec(MODULES.get(package, package)) is None]
