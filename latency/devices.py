"""The known devices, and which of them this machine has.

Device names are data. ``cpu`` is the CPU of this machine, usually through ONNX Runtime; the others are NVIDIA GPUs,
usually through TensorRT, each recognised by the name its driver reports, so that a table of one device is never
measured on another. ``latency/backends.py`` opens other runtimes.
Compute capabilities: NVIDIA's list at developer.nvidia.com/cuda-gpus.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from export.cuda import GpuInfo, find_gpus
from export.errors import UnavailableError, UserError
from latency.backend import Backend
from latency.runtimes.onnxruntime import CPU, ONNXRUNTIME, CpuBackend
from latency.runtimes.tensorrt import TENSORRT, open_tensorrt, tensorrt_fingerprint

KERNEL_FLOOR_US = 1.081
"""What one more kernel in a stream costs, in microseconds, on a V100 with stream launches; measured by others.

Zhang, Wahib, Zhang and Matsuoka, "A Study of Single and Multi-device Synchronization Methods in Nvidia GPUs", IPDPS
2020, the table of launch overheads: 1081 ns for a traditional launch, 1063 for a cooperative one, 1258 for one on
several devices; the total latency of a kernel that does nothing is 8888 ns. One number serves every device, because no
such figure is published for each. Newer GPUs and CUDA graphs may be faster or slower.
"""
KERNEL_FLOOR_SOURCE = "Zhang et al., IPDPS 2020, launch overhead on a V100: https://arxiv.org/abs/2004.05371"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An NVIDIA device as its driver reports it and as NVIDIA specifies it."""

    name: str
    """The name in ``--device`` and in tables."""
    model: str
    """A whole word of the name that the driver reports: "A10" is in "NVIDIA A10", not in "NVIDIA A100-SXM4-40GB"."""
    compute_capability: tuple[int, int]
    peak_tflops: Mapping[str, float]
    """Peak operations a second in 10**12 by precision, two for a multiply-add; without sparsity."""
    bandwidth_gb_s: float
    """Bandwidth of the device's memory, in 10**9 bytes a second."""
    source: str
    """NVIDIA's document with these figures, and the product variant they are of."""
    url: str
    """The address of the document."""
    kernel_floor_us: float = KERNEL_FLOOR_US
    """The shortest time of a kernel, in microseconds; replace it by a figure that was measured on the device."""
    kernel_floor_source: str = KERNEL_FLOOR_SOURCE
    """Who measured this floor, and on what."""


# Datasheets often print tensor figures "with sparsity", which doubles them; those are halved here. Where a name covers
# several variants, or two editions differ, the fastest figures are used, since a roofline is a lower bound. For the
# same reason fp16 is with accumulation in fp16, which on GeForce devices is twice as fast as in fp32.
_GPUS = (
    Gpu(
        name="a10",
        model="A10",
        compute_capability=(8, 6),
        peak_tflops={"fp32": 31.2, "fp16": 125.0, "int8": 250.0},
        bandwidth_gb_s=600.0,
        source="NVIDIA A10 datasheet",
        url="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/a10-datasheet.pdf",
    ),
    Gpu(
        name="a30",
        model="A30",
        compute_capability=(8, 0),
        peak_tflops={"fp32": 10.3, "fp16": 165.0, "int8": 330.0},
        bandwidth_gb_s=933.0,
        source="NVIDIA A30 datasheet",
        url="https://www.nvidia.com/content/dam/en-zz/Solutions/data-center/products/a30-gpu/pdf/a30-datasheet.pdf",
    ),
    Gpu(
        name="a100",
        model="A100",
        compute_capability=(8, 0),
        peak_tflops={"fp32": 19.5, "fp16": 312.0, "int8": 624.0},
        bandwidth_gb_s=2039.0,  # 40 GB: 1555
        source="NVIDIA A100 datasheet, SXM 80 GB",
        url="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
        "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    Gpu(
        name="b200",
        model="B200",
        compute_capability=(10, 0),
        # Later editions print 75 TFLOPS of fp32 and 7.7 TB/s.
        peak_tflops={"fp32": 80.0, "fp16": 2250.0, "int8": 4500.0},
        bandwidth_gb_s=8000.0,
        source="NVIDIA Blackwell Architecture Technical Brief (2024), HGX B200, tensor figures halved to dense",
        url="https://nvdam.widen.net/s/xqt56dflgh/nvidia-blackwell-architecture-technical-brief",
    ),
    Gpu(
        name="h100",
        model="H100",
        compute_capability=(9, 0),
        # PCIe: 51, 756, 1513 and 2000.
        peak_tflops={"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
        bandwidth_gb_s=3350.0,
        source="NVIDIA H100 datasheet, SXM 80 GB, tensor figures halved to dense",
        url="https://www.nvidia.com/en-us/data-center/h100/",
    ),
    Gpu(
        name="h200",
        model="H200",
        compute_capability=(9, 0),
        peak_tflops={"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
        bandwidth_gb_s=4800.0,
        source="NVIDIA H200 datasheet, SXM, tensor figures halved to dense",
        url="https://www.nvidia.com/en-us/data-center/h200/",
    ),
    Gpu(
        name="l4",
        model="L4",
        compute_capability=(8, 9),
        peak_tflops={"fp32": 30.3, "fp16": 121.0, "int8": 242.5},
        bandwidth_gb_s=300.0,
        source="NVIDIA L4 datasheet, tensor figures halved to dense",
        url="https://www.nvidia.com/en-us/data-center/l4/",
    ),
    Gpu(
        name="l40s",
        model="L40S",
        compute_capability=(8, 9),
        # The sheet's dense 362.05 of fp16 is not half of its sparse 733.
        peak_tflops={"fp32": 91.6, "fp16": 366.5, "int8": 733.0},
        bandwidth_gb_s=864.0,
        source="NVIDIA L40S datasheet, tensor figures halved to dense",
        url="https://www.nvidia.com/en-us/data-center/l40s/",
    ),
    Gpu(
        name="orin",
        model="Orin",  # the driver calls every Orin this
        compute_capability=(8, 7),
        # 170 TOPS sparse are the GPU's; the 275 in the headlines add two other accelerators. The brief prints no fp16:
        # an Ampere tensor core does half as many operations in it as in int8.
        peak_tflops={"fp32": 5.3, "fp16": 42.5, "int8": 85.0},
        bandwidth_gb_s=204.8,
        source="NVIDIA Jetson AGX Orin Series Technical Brief, 64 GB, int8 halved to dense",
        url="https://www.nvidia.com/content/dam/en-zz/Solutions/gtcf21/jetson-orin/"
        "nvidia-jetson-agx-orin-technical-brief.pdf",
    ),
    Gpu(
        name="rtx-3090",
        model="RTX 3090",
        compute_capability=(8, 6),
        peak_tflops={"fp32": 35.6, "fp16": 142.0, "int8": 284.0},
        bandwidth_gb_s=936.0,
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper, appendix A",
        url="https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf",
    ),
    Gpu(
        name="rtx-4090",
        model="RTX 4090",
        compute_capability=(8, 9),
        peak_tflops={"fp32": 82.6, "fp16": 330.3, "int8": 660.6},
        bandwidth_gb_s=1008.0,
        source="NVIDIA Ada GPU Architecture whitepaper, appendix A",
        url="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    Gpu(
        name="rtx-5090",
        model="RTX 5090",
        compute_capability=(12, 0),
        peak_tflops={"fp32": 104.8, "fp16": 419.0, "int8": 838.0},
        bandwidth_gb_s=1792.0,
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper",
        url="https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf",
    ),
    Gpu(
        name="t4",
        model="T4",
        compute_capability=(7, 5),
        peak_tflops={"fp32": 8.1, "fp16": 65.0, "int8": 130.0},
        bandwidth_gb_s=320.0,
        source="NVIDIA Turing GPU Architecture whitepaper",
        url="https://images.nvidia.com/aem-dam/en-zz/Solutions/design-visualization/technologies/turing-architecture/"
        "NVIDIA-Turing-Architecture-Whitepaper.pdf",
    ),
)
GPUS = {gpu.name: gpu for gpu in _GPUS}
"""By name."""


def usual_runtime(name: str) -> str:
    """The runtime of the tables of the device called ``name`` that have no runtime in their name."""
    return ONNXRUNTIME if name == CPU else TENSORRT


def resolve(name: str, *, precision: str = "fp32", threads: int = 1) -> Backend:
    """Open the backend of the device called ``name`` through its usual runtime.

    Raises:
        UserError: the device is unknown, or is not measured at this precision or with these threads.
        UnavailableError: the device or its runtime is not on this machine.
    """
    if name == CPU:
        return CpuBackend(precision=precision, threads=threads)
    index = index_of(check_gpu(name, precision=precision, threads=threads))
    return open_tensorrt(name, precision, index=index)


def fingerprint(name: str, *, threads: int) -> dict[str, str | int]:
    """The fingerprint of this machine's device called ``name`` and of its usual runtime, without opening the device.

    A table is of this machine if its fingerprint is equal.

    Raises:
        UserError: the device is unknown.
        UnavailableError: the device or its runtime is not on this machine.
    """
    return CpuBackend(threads=threads).fingerprint() if name == CPU else tensorrt_fingerprint(index_of(gpu(name)))


def index_of(device: Gpu) -> int:
    """The index of such a GPU in the driver's order; raises UnavailableError."""
    gpus = find_gpus()
    for index, gpu in enumerate(gpus):
        if matches(device, gpu.name, gpu.compute_capability):
            return index
    raise UnavailableError(f"device {device.name!r} is not here: {_detected(gpus)}")


def gpu(name: str) -> Gpu:
    """The NVIDIA device called ``name``.

    Raises:
        UserError: the device is unknown.
    """
    if name == CPU:
        raise UserError(f"{CPU!r} is the CPU of this machine, which has no data sheet here; measure it")
    if name not in GPUS:
        raise UserError(f"there is no device {name!r}; known are {', '.join([CPU, *GPUS])}")
    return GPUS[name]


def check_gpu(name: str, *, precision: str, threads: int) -> Gpu:
    """The NVIDIA device called ``name``, if it can be measured with these settings.

    Raises:
        UserError: the device is unknown, or is not measured at this precision or with these threads.
    """
    device = gpu(name)
    if precision not in device.peak_tflops:
        raise UserError(f"{name} is measured at {', '.join(device.peak_tflops)}, not at {precision!r}")
    if threads != 1:
        raise UserError(f"--threads is for CPUs; {name} is a GPU")
    return device


VGPU = re.compile(r"\d+[ABCQ]")
"""The last word of the name of a part of a GPU that virtual machines share, such as NVIDIA A10-4Q."""


def matches(gpu: Gpu, name: str, compute_capability: tuple[int, int]) -> bool:
    """Whether the driver's ``name`` is a whole ``gpu``: no slice (MIG, vGPU) of it, and no chip of similar name."""
    words = re.split(r"[ -]", name)
    model = gpu.model.split(" ")
    named = any(words[i : i + len(model)] == model for i in range(len(words)))
    other = {"MIG", "Laptop", "D", "Ti"} & set(words) or any(VGPU.fullmatch(word) for word in words)
    return named and compute_capability == gpu.compute_capability and not other


def _detected(gpus: tuple[GpuInfo, ...]) -> str:
    if not gpus:
        return "no NVIDIA device or driver was found on this machine"
    return "this machine has " + ", ".join(gpu.name for gpu in gpus)
