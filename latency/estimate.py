"""Estimates blocks on an NVIDIA device that is not here: a roofline, with a floor for the launch of each kernel.

A kernel takes the longest of three times: its arithmetic at the device's peak, its tensors at the memory's bandwidth
(Williams, Waterman and Patterson, "Roofline", 2009, doi 10.1145/1498765.1498785), and the kernel floor. A block takes
the sum of its kernels (``latency/kernels.py``).

Peak and bandwidth are from the device's data sheet. The kernel floor, 1.081 us, is from no data sheet: it is the launch
overhead that Zhang, Wahib, Zhang and Matsuoka measured on a V100 with stream launches (IPDPS 2020, arXiv 2004.05371).
One number serves all devices because no such figure is published for each. Newer GPUs and CUDA graphs may be faster or
slower, and this project measured neither. A measured floor replaces it in the device's record (``latency/devices.py``).

Estimates are only good for a rough order of blocks. Not modelled, since no figures were measured: partly filled tiles;
tensor cores that depthwise convolutions cannot fill; changes of layout and transfers. These make a block slower than
its estimate. Tensors that stay in a cache between kernels, and launches faster than the floor, make it faster. float32
is without TF32, as in the engines built here.

File: ``luts/DEVICE-PRECISION-b1-estimated.json``; schema 3. Schemas 1 and 2 are read too (``latency/upgrade.py``): they
were estimated without a floor, so no entries are added to them.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from export.document import Document
from export.errors import UserError
from export.files import read_json_object
from latency.checksum import checked, write_checksummed
from latency.devices import Gpu
from latency.journal import exclusive_lock
from latency.kernels import Kernel, kernels_of
from latency.records import Count, NotNegative, Positive, Record
from latency.table import ESTIMATED, LatencyTable, kind_of
from latency.upgrade import upgrade_estimated_table

if TYPE_CHECKING:
    from export.progress import Progress
    from latency.profile import Graph

SCHEMA = 3
BYTES_PER_ELEMENT = {"fp32": 4, "fp16": 2, "int8": 1}

Bound = Literal["compute", "memory", "launch"]
"""Which of a kernel's three times is the longest."""


class Estimate(Record):
    """The estimate of one block."""

    latency_ms: Positive
    macs: Annotated[int, Field(ge=0)]
    """Multiply-adds of convolutions and matrix products."""
    bytes: Count
    """Bytes read from and written to the memory."""
    kernels: Count | None
    """Number of kernels; None in tables of schemas 1 and 2, which did not record it."""
    bound: Bound
    """The bound of the kernels that take the largest part of the time."""
    kind: Literal["estimated"] = "estimated"
    """Beside each figure in the file too, so that no figure passes for a measured one."""


class EstimatedTable(Document):
    """Estimated blocks of one device. A missing key raises."""

    title: ClassVar[str] = "estimated latency table"
    kind: Literal["estimated"] = "estimated"
    device: str
    precision: str
    batch: Count = 1
    peak_tflops: Positive
    """Peak at this precision; every entry was estimated from the peak, the bandwidth and the floor."""
    bandwidth_gb_s: Positive
    source: str
    """The document with the peak and the bandwidth."""
    kernel_floor_us: NotNegative
    """The shortest time of a kernel, in microseconds; 0 in tables of schemas 1 and 2, which had no floor."""
    kernel_floor_source: str
    """The document with the floor; "none" in tables of schemas 1 and 2."""
    entries: dict[str, Annotated[Estimate, Strict(False)]]
    """The estimates, by block key."""

    @property
    def name(self) -> str:
        """The name of the table's file, without its suffix."""
        return f"{self.device}-{self.precision}-b{self.batch}-{ESTIMATED}"

    @property
    def unit(self) -> str:
        """The unit of the values, as it is printed: no sum of them passes for measured either."""
        return f"{ESTIMATED} ms"

    def values_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """The estimate of each of ``keys``, in ms.

        Raises:
            UserError: a key has no entry.
        """
        keys = list(dict.fromkeys(keys))
        if missing := self.missing(keys):
            raise UserError(
                f"{len(missing)} of {len(keys)} blocks have no entry in the table {self.name}, first: {missing[0]}. "
                f"Estimate them with: {self.command}, with the variant, stages, resolution and tasks of the search"
            )
        return {key: self.entries[key].latency_ms for key in keys}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` without an entry, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    @property
    def command(self) -> str:
        """The command that extends the table."""
        return f"fbnetv5 profile estimate --device {self.device} --precision {self.precision}"

    def save(self, path: Path) -> None:
        """Write the table atomically."""
        content = self.to_json()
        content["entries"] = dict(sorted(content["entries"].items()))
        write_checksummed(path, content, schema=SCHEMA)

    @classmethod
    def load(cls, path: Path) -> "EstimatedTable":
        """Read a table and check it.

        Raises:
            UserError: missing, damaged or edited, or with a row that is not marked as estimated.
        """
        return cls.of_document(read_json_object(path, what="estimated latency table"), path)

    @classmethod
    def of_document(cls, document: Mapping[str, Any], path: Path) -> "EstimatedTable":
        """The table of a document that was read from ``path``; errors as in ``load``."""
        schema, content = checked(document, path, what="estimated latency table", schema=(1, 2, SCHEMA))
        try:
            return cls(**(upgrade_estimated_table(content) if schema < SCHEMA else content))
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from None


def open_table(path: Path, *, other_machine: bool) -> LatencyTable | EstimatedTable:
    """Read the table at ``path``, measured or estimated.

    Args:
        path: the file.
        other_machine: accept a table that was measured on another machine, one with the file name of another table, and
            an estimated table.

    Raises:
        UserError: missing or damaged; or of another machine or estimated, and not ``other_machine``.
    """
    document = read_json_object(path, what="latency table")
    if kind_of(document) != ESTIMATED:
        table = LatencyTable.of_document(document, path, other_machine=other_machine)
        return table if other_machine else table.check_name(path)
    if not other_machine:
        raise UserError(f"{path} is an estimated table; name it with --table to use it all the same")
    return EstimatedTable.of_document(document, path)


def estimated_path(folder: Path, device: str, precision: str) -> Path:
    """The path of the estimated table of these settings."""
    return folder / f"{device}-{precision}-b1-{ESTIMATED}.json"


def estimate(
    graphs: Sequence["Graph"], gpu: Gpu, precision: str, path: Path, progress: "Progress | None" = None
) -> EstimatedTable:
    """Estimate every block that is missing in the table at ``path``, and write the table.

    Args:
        graphs: blocks; a block given twice is estimated once.
        gpu: the device.
        precision: the precision of every tensor.
        path: a table of the same figures is extended; without one a new table is written.
        progress: called in the stage "blocks: estimate".

    Raises:
        UserError: the device's peak at ``precision`` is unknown, or the table there is damaged or from other figures,
            or another run is writing it.
        VerificationError: a block cannot be exported.
    """
    from latency.profile import onnx_of

    new = EstimatedTable(
        device=gpu.name,
        precision=precision,
        peak_tflops=_peak_tflops(gpu, precision),
        bandwidth_gb_s=gpu.bandwidth_gb_s,
        source=f"{gpu.source}: {gpu.url}",
        kernel_floor_us=gpu.kernel_floor_us,
        kernel_floor_source=gpu.kernel_floor_source,
        entries={},
    )
    with exclusive_lock(path):
        table = EstimatedTable.load(path) if path.exists() else new
        if table.changed(entries={}) != new:
            raise UserError(f"{path} is not a table of {new.name} from today's figures: delete it and estimate again")
        missing = {graph.key: graph for graph in graphs if graph.key not in table.entries}
        entries = dict(table.entries)
        for done, (key, graph) in enumerate(missing.items(), start=1):
            entries[key] = estimate_ms(onnx_of(graph)[0], gpu, precision)
            if progress is not None:
                progress("blocks: estimate", done, len(missing))
        table = table.changed(entries=entries)
        table.save(path)
    return table


def estimate_ms(content: bytes, gpu: Gpu, precision: str) -> Estimate:
    """Estimate an ONNX graph of fixed shapes; all its tensors count at ``precision``, whatever their type in the graph.

    Raises:
        UserError: the device's peak at ``precision`` is unknown.
        VerificationError: the graph has a tensor whose shape is not fixed.
    """
    kernels = kernels_of(content)
    spent_ms: dict[Bound, list[float]] = {"memory": [], "compute": [], "launch": []}
    for kernel in kernels:
        times = _times_ms(kernel, gpu, precision)
        bound = max(times, key=times.__getitem__)
        spent_ms[bound].append(times[bound])
    return Estimate(
        latency_ms=math.fsum(itertools.chain(*spent_ms.values())),
        macs=sum(kernel.macs for kernel in kernels),
        bytes=sum(_bytes(kernel, precision) for kernel in kernels),
        kernels=len(kernels),
        bound=max(spent_ms, key=lambda bound: math.fsum(spent_ms[bound])),
    )


def _times_ms(kernel: Kernel, gpu: Gpu, precision: str) -> dict[Bound, float]:
    """The three times of a kernel, in ms, of which it takes the longest."""
    return {
        "memory": _bytes(kernel, precision) / (gpu.bandwidth_gb_s * 1e6),
        "compute": 2 * kernel.macs / (_peak_tflops(gpu, precision) * 1e9),
        "launch": gpu.kernel_floor_us / 1e3,
    }


def _bytes(kernel: Kernel, precision: str) -> int:
    return kernel.elements * BYTES_PER_ELEMENT[precision]


def _peak_tflops(gpu: Gpu, precision: str) -> float:
    if precision not in gpu.peak_tflops:
        raise UserError(f"{gpu.name} is known in {', '.join(gpu.peak_tflops)}, not in {precision!r}")
    return gpu.peak_tflops[precision]
