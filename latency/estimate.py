"""Estimates blocks on an NVIDIA device that is not here, from its peak throughput and memory bandwidth: a roofline.

A kernel takes as long as its arithmetic at the device's peak, or as its tensors at the memory's bandwidth, whichever is
longer (Williams, Waterman and Patterson, "Roofline", 2009, doi 10.1145/1498765.1498785); a block takes the sum of its
kernels (``latency/kernels.py``).

That is a lower bound for kernels that exchange tensors through the memory, and good for a rough order of blocks only.
Left out is what no datasheet tells: the launch of each kernel, which on a large device at batch 1 can be most of a
small block's time; tiles that do not fit; tensor cores that depthwise convolutions cannot fill; changes of layout and
transfers. No constant stands in for these, since none was measured. Left out as well is what a cache keeps between
kernels, and that alone can make a block faster than its estimate. float32 is without TF32, as engines are built here.

File: ``luts/DEVICE-PRECISION-b1-estimated.json``; schema 1.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError
from export.files import read_json_object
from latency import parsing
from latency.devices import Gpu
from latency.kernels import kernels_of
from latency.table import LatencyTable

if TYPE_CHECKING:
    from export.progress import Progress
    from latency.profile import Graph

SCHEMA = 1
ESTIMATED = "estimated"
BYTES_PER_ELEMENT = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A block by the roofline."""

    latency_ms: float
    macs: int
    """Multiply-adds of convolutions and matrix products."""
    bytes: int
    """Read from and written to the memory."""
    bound: str
    """What most of the time goes to: "compute" or "memory"."""
    kind: str = ESTIMATED
    """Stands beside each figure in the file too, so that none passes for a measured one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedTable:
    """Estimated blocks of one device. A missing key raises."""

    device: str
    precision: str
    batch: int = 1
    peak_tflops: float
    """At this precision; this and the next are what every entry was estimated from."""
    bandwidth_gb_s: float
    source: str
    """Of these figures."""
    entries: dict[str, Estimate]
    """By block key."""

    @property
    def name(self) -> str:
        """Of the table's file, without its ending."""
        return f"{self.device}-{self.precision}-b{self.batch}-{ESTIMATED}"

    @property
    def kind(self) -> str:
        """What the values are."""
        return ESTIMATED

    @property
    def unit(self) -> str:
        """Of the values, as it is printed: no sum of them passes for measured either."""
        return f"{ESTIMATED} ms"

    def values_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """The estimate of each of ``keys``, in ms.

        Raises:
            UserError: a key has no entry.
        """
        wanted = list(dict.fromkeys(keys))
        if missing := [key for key in wanted if key not in self.entries]:
            raise UserError(
                f"{len(missing)} of {len(wanted)} blocks have no entry in the table {self.name}, first: {missing[0]}. "
                f"Estimate them with: fbnetv5 profile --device {self.device} --estimate --precision {self.precision}, "
                "and the variant, stages, resolution and tasks that are meant"
            )
        return {key: self.entries[key].latency_ms for key in wanted}

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        content = asdict(self)
        content["entries"] = dict(sorted(content["entries"].items()))
        parsing.write_sealed(path, content, schema=SCHEMA)

    @classmethod
    def load(cls, path: Path) -> "EstimatedTable":
        """Read a table and check it.

        Raises:
            UserError: missing, damaged or edited, or a row that does not say that it is estimated.
        """
        where = f"estimated latency table {path}"
        content = parsing.read_sealed(path, cls, what="estimated latency table", schema=SCHEMA)
        return cls(
            device=parsing.text(content["device"], f"'device' in {where}"),
            precision=parsing.text(content["precision"], f"'precision' in {where}"),
            batch=parsing.count(content["batch"], f"'batch' in {where}"),
            peak_tflops=parsing.number(content["peak_tflops"], f"'peak_tflops' in {where}", positive=True),
            bandwidth_gb_s=parsing.number(content["bandwidth_gb_s"], f"'bandwidth_gb_s' in {where}", positive=True),
            source=parsing.text(content["source"], f"'source' in {where}"),
            entries={
                key: _parse(value, f"block {key!r} in {where}")
                for key, value in parsing.mapping(content["entries"], f"'entries' in {where}").items()
            },
        )


def _parse(value: Any, what: str) -> Estimate:
    entry = parsing.record(value, what, Estimate)
    if entry["kind"] != ESTIMATED:
        raise UserError(f"{what} is {entry['kind']!r}, not {ESTIMATED!r}: a table of estimates holds nothing else")
    if entry["bound"] not in ("compute", "memory"):
        raise UserError(f"{what} is bound by {entry['bound']!r}, where 'compute' or 'memory' is needed")
    return Estimate(
        latency_ms=parsing.number(entry["latency_ms"], what, positive=True),
        macs=parsing.count(entry["macs"], what, least=0),
        bytes=parsing.count(entry["bytes"], what),
        bound=entry["bound"],
    )


def open_table(path: Path, *, foreign: bool) -> LatencyTable | EstimatedTable:
    """The table at ``path``, measured or estimated.

    Args:
        path: the file.
        foreign: accept a table that was measured on another machine, or is kept under another's name.

    Raises:
        UserError: missing, damaged, or of another machine and not ``foreign``; or estimated, which is meant as
            little, and not ``foreign``.
    """
    if "peak_tflops" not in read_json_object(path, what="latency table"):
        return LatencyTable.load(path, foreign=True) if foreign else LatencyTable.load_kept(path)
    if not foreign:
        raise UserError(f"{path} is estimated; name it with --table if that is meant")
    return EstimatedTable.load(path)


def estimated_path(folder: Path, device: str, precision: str) -> Path:
    """Where the estimated table of these is kept."""
    return folder / f"{device}-{precision}-b1-{ESTIMATED}.json"


def estimate(
    graphs: Sequence["Graph"], gpu: Gpu, precision: str, path: Path, progress: "Progress | None" = None
) -> EstimatedTable:
    """Estimate every block that the table at ``path`` lacks, and write the table.

    Args:
        graphs: blocks; one given twice is estimated once.
        gpu: the device.
        precision: of every tensor.
        path: a table from the same figures is extended; without one a new table is written.
        progress: told of the stage "blocks: estimate".

    Raises:
        UserError: the device's peak at ``precision`` is not known, or the table there is damaged or from other figures.
        VerificationError: a block cannot be exported.
    """
    from latency.profile import onnx_of

    new = EstimatedTable(
        device=gpu.name,
        precision=precision,
        peak_tflops=_peak_tflops(gpu, precision),
        bandwidth_gb_s=gpu.bandwidth_gb_s,
        source=f"{gpu.source}: {gpu.url}",
        entries={},
    )
    table = EstimatedTable.load(path) if path.exists() else new
    if replace(table, entries={}) != new:
        raise UserError(f"{path} is not a table of {new.name} from today's figures: delete it and estimate again")
    lacking = {graph.key: graph for graph in graphs if graph.key not in table.entries}
    entries = dict(table.entries)
    for done, (key, graph) in enumerate(lacking.items(), start=1):
        entries[key] = estimate_ms(onnx_of(graph)[0], gpu, precision)
        if progress is not None:
            progress("blocks: estimate", done, len(lacking))
    table = replace(table, entries=entries)
    table.save(path)
    return table


def estimate_ms(content: bytes, gpu: Gpu, precision: str) -> Estimate:
    """Estimate an ONNX graph of fixed shapes; all its tensors count at ``precision``, whatever they are in the graph.

    Raises:
        UserError: the device's peak at ``precision`` is not known.
        VerificationError: the graph has a tensor whose shape is not fixed.
    """
    kernels = kernels_of(content)
    compute_ms = [2 * kernel.macs / (_peak_tflops(gpu, precision) * 1e9) for kernel in kernels]
    moved = [kernel.elements * BYTES_PER_ELEMENT[precision] for kernel in kernels]
    memory_ms = [size / (gpu.bandwidth_gb_s * 1e6) for size in moved]
    latency_ms = math.fsum(map(max, compute_ms, memory_ms))
    computing_ms = math.fsum(a for a, b in zip(compute_ms, memory_ms, strict=True) if a > b)
    return Estimate(
        latency_ms=latency_ms,
        macs=sum(kernel.macs for kernel in kernels),
        bytes=sum(moved),
        bound="compute" if 2 * computing_ms > latency_ms else "memory",
    )


def _peak_tflops(gpu: Gpu, precision: str) -> float:
    if precision not in gpu.peak_tflops:
        raise UserError(f"{gpu.name} is known in {', '.join(gpu.peak_tflops)}, not in {precision!r}")
    return gpu.peak_tflops[precision]
