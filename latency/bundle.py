"""A bundle: a table's graphs as ONNX with one file that measures them, for a device that is not here.

``write_bundle`` makes the folder, its ``measure.py`` makes ``results.json`` in it on the device, and ``import_bundle``
makes the table of both. The folder says all that a table needs, so nothing has to be said again when it comes back.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from export.errors import UserError
from export.progress import Progress
from latency.correction import MeasuredNetwork, check_count
from latency.devices import GPUS, check_gpu, matches
from latency.on_device import (
    BUNDLE_FILE,
    BUNDLE_SCHEMA,
    RESULTS_FILE,
    Bundle,
    BundledGraph,
    Results,
    bundle_sha256,
    open_bundle,
)
from latency.parsing import mapping, read_sealed, write_sealed
from latency.processor import CPU, Processor
from latency.profile import BATCH, NULL, YARDSTICK, Graph, Network, Profiled, distinct, onnx_at
from latency.protocol import Timing
from latency.single_file import joined
from latency.table import LatencyTable, measurement, table_path
from latency.unfinished import only_run

PARTS = (
    "export.errors",
    "export.progress",
    "export.files",
    "export.runners",
    "export.trt.options",
    "export.trt.precision_check",
    "export.cuda",
    "export.trt.bindings",
    "export.trt.builder",
    "export.trt.loaded_engine",
    "latency.parsing",
    "latency.protocol",
    "latency.backend",
    "latency.processor",
    "latency.clocks",
    "latency.gpu",
    "latency.devices",
    "latency.unfinished",
    "latency.measure",
    "latency.on_device",
)
"""Of ``measure.py``, each after those that it needs."""

_README = """\
# {count} graphs to time on {device}

Made by fbnetv5. They are to be timed on the device itself, at {precision}, batch {batch}:

1. Copy this folder to the device.
2. There, with Python 3.10 or newer: {install}
3. `python measure.py`. Leave the machine alone meanwhile. An interrupted run goes on where it was if started again.
4. Copy the folder back, now with `results.json` in it, and: `fbnetv5 profile --import {folder}`

`measure.py` needs neither torch nor fbnetv5, and writes in this folder only. `bundle.json` says what each file in
`graphs` is, with its checksum.
"""
_INSTALL = {
    "cpu": "`pip install numpy onnxruntime`.",
    "orin": "JetPack's own `tensorrt`, with `pip install numpy pycuda`.",
}
_INSTALL_GPU = "`pip install numpy tensorrt cuda-python nvidia-ml-py` (pycuda serves in cuda-python's place)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a bundle is for."""

    device: str
    precision: str = "fp32"
    threads: int = 1
    """Processor threads one operator may use there."""

    def __post_init__(self) -> None:
        if self.device == CPU:
            Processor(precision=self.precision, threads=self.threads)
        else:
            check_gpu(self.device, precision=self.precision, threads=self.threads)


def write_bundle(
    graphs: Sequence[Graph],
    networks: Sequence[Network],
    *,
    folder: Path,
    target: Target,
    timing: Timing,
    progress: Progress | None = None,
) -> Bundle:
    """Write the folder, whole or not at all.

    Args:
        graphs: blocks.
        networks: of these blocks, on which the table will be corrected; none for no correction.
        folder: made here.
        target: where and how they are to be timed.
        timing: the protocol.
        progress: told of the stage "write".

    Raises:
        UserError: the folder exists or cannot be written, there is no such device or precision, or the networks are
            too few for a correction.
        VerificationError: a graph cannot be exported.
    """
    if networks:
        check_count(len(networks))
    chosen = {
        graph.key: graph for graph in (YARDSTICK, *distinct([NULL, *graphs]).values(), *distinct(networks).values())
    }
    with _whole_folder(folder) as temporary:
        rows = []
        for number, graph in enumerate(chosen.values()):
            rows.append(asdict(_write_graph(graph, target.precision, temporary, f"graphs/{number:03d}.onnx")))
            if progress is not None:
                progress("write", len(rows), len(chosen))
        bundle = Bundle(**asdict(target), batch=BATCH, timing=asdict(timing), graphs=rows)
        write_sealed(temporary / BUNDLE_FILE, asdict(bundle), schema=BUNDLE_SCHEMA)
        (temporary / "measure.py").write_text(measure_py(), encoding="utf-8")
        (temporary / "README.md").write_text(_readme(bundle, folder), encoding="utf-8")
    return bundle


def measure_py() -> str:
    """The text of the file that measures a bundle."""
    about = '"""Times the ONNX graphs of this folder. Joined from the modules that time graphs in fbnetv5 itself."""'
    telemetry = 'import os\n\nos.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # see export/__init__.py'
    return f"#!/usr/bin/env python3\n{about}\n\n{telemetry}\n\n{joined(PARTS)}"


def import_bundle(folder: Path, luts: Path) -> tuple[Path, Profiled]:
    """Make the table of a bundle that was measured; returns where it was written, and it.

    Raises:
        UserError: the bundle was not measured, is damaged, or is of another device than it was made for; or there is
            a table of that device already.
    """
    bundle, results = open_bundle(folder), _results(folder)
    missing = [key for key in {**bundle.of_kind("block"), **bundle.of_kind("network")} if key not in results.measured]
    if missing or results.bundle_sha256 != bundle_sha256(folder):
        raise UserError(f"{folder / RESULTS_FILE} is of another bundle than this: measure this one")
    _check_device(bundle.device, results.fingerprint, folder)
    table = _table(bundle, results, f"in {folder / RESULTS_FILE}")
    path = table_path(luts, table.device, table.precision, table.batch, table.threads)
    with only_run(path):
        if path.exists():
            raise UserError(f"there is a table {path} already; move it away, or name another folder with --luts")
        table.save(path)
    return path, Profiled(table=table, measured=tuple(results.measured))


def _table(bundle: Bundle, results: Results, where: str) -> LatencyTable:
    measured = {key: measurement(value, f"{key!r} {where}") for key, value in results.measured.items()}
    networks = {
        key: MeasuredNetwork(blocks=graph.blocks, macs=graph.macs, measured=measured[key])
        for key, graph in bundle.of_kind("network").items()
    }
    table = LatencyTable(
        device=bundle.device,
        precision=bundle.precision,
        batch=bundle.batch,
        threads=bundle.threads,
        fingerprint=dict(mapping(results.fingerprint, f"'fingerprint' {where}")),
        timing=Timing(**bundle.timing),
        entries={key: measured[key] for key in bundle.of_kind("block")},
        networks=networks,
        conditions=(mapping(results.conditions, f"'conditions' {where}"),),
    )
    return table.corrected()


def _results(folder: Path) -> Results:
    path = folder / RESULTS_FILE
    if not path.exists():
        raise UserError(f"{folder} was not measured yet: run its measure.py on the device, then bring the folder back")
    return Results(**read_sealed(path, Results, what="results", schema=BUNDLE_SCHEMA))


def _check_device(device: str, fingerprint: Mapping[str, str | int], folder: Path) -> None:
    """Raise UserError if a bundle for a GPU was measured on another."""
    if device not in GPUS:
        return
    major, _, minor = str(fingerprint["compute_capability"]).partition(".")
    name = str(fingerprint["processor"])
    if not matches(GPUS[device], name, (int(major), int(minor))):
        raise UserError(f"{folder} was made for {device!r} and measured on {name}")


def _write_graph(graph: Graph, precision: str, folder: Path, name: str) -> BundledGraph:
    content, inputs = onnx_at(graph, precision)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return BundledGraph(
        key=graph.key,
        kind="network" if isinstance(graph, Network) else "yardstick" if graph is YARDSTICK else "block",
        file=name,
        sha256=hashlib.sha256(content).hexdigest(),
        inputs={name: list(array.shape) for name, array in inputs.items()},
        blocks=dict(graph.blocks) if isinstance(graph, Network) else {},
        macs=graph.macs if isinstance(graph, Network) else 0,
    )


def _readme(bundle: Bundle, folder: Path) -> str:
    return _README.format(
        count=len(bundle.graphs),
        device=bundle.device,
        precision=bundle.precision,
        batch=bundle.batch,
        install=_INSTALL.get(bundle.device, _INSTALL_GPU),
        folder=folder.name,
    )


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``; it gets that name when the block ends well, else it is removed."""
    if folder.exists():
        raise UserError(f"{folder} exists already; name another folder, or remove it")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}. Free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
