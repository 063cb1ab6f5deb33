"""Which devices can be named, and what is really here.

Device names are data. ``cpu`` is this machine's processor through ONNX Runtime, and the only one that can be timed in
this version; the NVIDIA names are known so that asking for one gets an answer about this machine instead of a guess.
Compute capabilities: NVIDIA's list at developer.nvidia.com/cuda-gpus.
"""

import re
from dataclasses import dataclass

from export.errors import NotHere, UserError
from latency.backend import Backend
from latency.processor import CPU, Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An NVIDIA device as its driver reports it."""

    model: str
    """Stands in the driver's name as a word of its own: "A10" is in "NVIDIA A10", not in "NVIDIA A100-SXM4-40GB"."""
    compute_capability: tuple[int, int]


GPUS = {
    "a10": Gpu(model="A10", compute_capability=(8, 6)),
    "a100": Gpu(model="A100", compute_capability=(8, 0)),
    "h100": Gpu(model="H100", compute_capability=(9, 0)),
    "h200": Gpu(model="H200", compute_capability=(9, 0)),
    "l4": Gpu(model="L4", compute_capability=(8, 9)),
    "l40s": Gpu(model="L40S", compute_capability=(8, 9)),
    "orin": Gpu(model="Orin", compute_capability=(8, 7)),
    "rtx-4090": Gpu(model="RTX 4090", compute_capability=(8, 9)),
    "t4": Gpu(model="T4", compute_capability=(7, 5)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGpu:
    """What the driver says of one device on this machine."""

    name: str
    compute_capability: tuple[int, int]


def resolve(name: str, *, precision: str = "fp32", threads: int = 1) -> Backend:
    """What times graphs of that precision on the device called ``name``.

    Raises:
        UserError: there is no device of that name, or it is not timed at that precision or with those threads.
        NotHere: it is known, and is not here or cannot be timed by this version.
    """
    if name == CPU:
        return Processor(precision=precision, threads=threads)
    if name not in GPUS:
        raise UserError(f"there is no device {name!r}; known are {', '.join([CPU, *GPUS])}")
    found = found_gpus()
    here = "is here" if any(matches(GPUS[name], gpu) for gpu in found) else f"is not here: {_describe(found)}"
    raise NotHere(f"device {name!r} {here}. This version times the processor only: use --device {CPU}")


def matches(gpu: Gpu, found: FoundGpu) -> bool:
    """Whether ``found`` is a whole ``gpu``: not a slice of it (MIG), nor its laptop variant, which is another chip."""
    words = re.split(r"[ -]", found.name)
    model = gpu.model.split(" ")
    named = any(words[i : i + len(model)] == model for i in range(len(words)))
    return named and found.compute_capability == gpu.compute_capability and not {"MIG", "Laptop", "D"} & set(words)


def found_gpus() -> tuple[FoundGpu, ...]:
    """The NVIDIA devices torch sees; none where there is no driver."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(
        FoundGpu(name=torch.cuda.get_device_name(i), compute_capability=torch.cuda.get_device_capability(i))
        for i in range(torch.cuda.device_count())
    )


def _describe(found: tuple[FoundGpu, ...]) -> str:
    if not found:
        return "no NVIDIA device or driver was found on this machine"
    return "this machine has " + ", ".join(gpu.name for gpu in found)
