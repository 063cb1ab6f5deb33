"""Bundles: the graphs of a table as ONNX files, with one script that measures them on a remote device.

``write_bundle`` makes the folder, its script ``measure.py`` writes ``results.json`` on the device, and
``import_bundle`` makes the table from both. The folder contains everything a table needs, so the import needs no
options that describe the measurement.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.progress import Progress
from latency.checksum import check_fields, read_checksummed, write_checksummed
from latency.correction import check_count
from latency.devices import GPUS, check_gpu, matches
from latency.journal import exclusive_lock
from latency.on_device import (
    BUNDLE_FILE,
    BUNDLE_SCHEMA,
    RESULTS_FILE,
    Bundle,
    BundledGraph,
    Results,
    bundle_sha256,
    checked_bundle,
)
from latency.profile import BATCH, NULL, REFERENCE_WORKLOAD, Graph, Network, ProfileResult, distinct, onnx_at
from latency.protocol import Timing
from latency.runtimes.onnxruntime import CPU, CpuBackend
from latency.single_file import join_modules
from latency.table import LatencyTable, table_path
from latency.upgrade import upgrade_bundle, upgrade_results

MODULES = (
    "export.errors",
    "export.progress",
    "export.files",
    "export.locks",
    "export.signals",
    "export.runners",
    "export.trt.options",
    "export.trt.precision_check",
    "export.cuda",
    "export.trt.bindings",
    "export.trt.builder",
    "export.trt.loaded_engine",
    "latency.checksum",
    "latency.protocol",
    "latency.backend",
    "latency.clocks",
    "latency.runtimes.gpu",
    "latency.runtimes.onnxruntime",
    "latency.runtimes.tensorrt",
    "latency.devices",
    "latency.journal",
    "latency.measure",
    "latency.on_device",
)
"""The modules that are joined into ``measure.py``, each after the modules it imports."""

_README = """\
# {count} graphs to time on {device}

Made by fbnetv5. Time these graphs on the device itself, at {precision}, batch {batch}:

1. Copy this folder to the device.
2. Install there, with Python 3.10 or newer: {install}
3. Run `python measure.py`, with no other work on the machine. Start it again to resume an interrupted run.
4. Copy the folder back, now with `results.json` in it, and run `fbnetv5 profile import {folder}`.

`measure.py` needs neither torch nor fbnetv5, and writes to this folder only. `bundle.json` describes each file in
`graphs`, with its checksum.
"""
_START = """\
import os
import sys
from importlib.util import find_spec

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # see export/__init__.py
if find_spec("numpy") is None:
    sys.stderr.write("error: numpy is not installed here; README.md names what to install\\n")
    sys.exit(3)\
"""
"""The beginning of ``measure.py``; the modules that follow import numpy."""
_INSTALL = {
    "cpu": "`pip install numpy onnxruntime`.",
    "orin": "JetPack's own `tensorrt`, with `pip install numpy pycuda`.",
}
_INSTALL_GPU = "`pip install numpy tensorrt cuda-python 'nvidia-ml-py>=12.535'` (pycuda serves in cuda-python's place)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device and settings a bundle is made for."""

    device: str
    precision: str = "fp32"
    threads: int = 1
    """CPU threads one operator may use on the device."""

    def __post_init__(self) -> None:
        if self.device == CPU:
            CpuBackend(precision=self.precision, threads=self.threads)
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
    """Write the folder of a bundle atomically.

    Args:
        graphs: blocks.
        networks: whole networks of these blocks, on which the table will be corrected; none for no correction.
        folder: the folder to make.
        target: where and how to time the graphs.
        timing: the protocol.
        progress: called in the stage "write".

    Raises:
        UserError: the folder exists or cannot be written, the device or precision is unknown, or the networks are
            too few for a correction.
        VerificationError: a graph cannot be exported.
    """
    if networks:
        check_count(len(networks))
    chosen = {
        graph.key: graph
        for graph in (REFERENCE_WORKLOAD, *distinct([NULL, *graphs]).values(), *distinct(networks).values())
    }
    with _atomic_folder(folder) as temporary:
        rows = []
        for number, graph in enumerate(chosen.values()):
            rows.append(asdict(_write_graph(graph, target.precision, temporary, f"graphs/{number:03d}.onnx")))
            if progress is not None:
                progress("write", len(rows), len(chosen))
        bundle = Bundle(**asdict(target), batch=BATCH, timing=asdict(timing), graphs=rows)
        write_checksummed(temporary / BUNDLE_FILE, asdict(bundle), schema=BUNDLE_SCHEMA)
        (temporary / "measure.py").write_text(measure_py(), encoding="utf-8")
        (temporary / "README.md").write_text(_readme(bundle, folder), encoding="utf-8")
    return bundle


def measure_py() -> str:
    """The text of the script that measures a bundle."""
    about = '"""Times the ONNX graphs of this folder. Joined from the modules that time graphs in fbnetv5."""'
    return f"#!/usr/bin/env python3\n{about}\n\n{_START}\n\n{join_modules(MODULES)}"


def import_bundle(folder: Path, luts: Path) -> tuple[Path, ProfileResult]:
    """Make the table of a measured bundle; returns the path of the table, and the table.

    Raises:
        UserError: the bundle was not measured, is damaged, or was measured on another device than it was made for; or
            a table of the device exists already.
    """
    bundle, results = _read_bundle(folder), _read_results(folder)
    missing = [key for key in {**bundle.of_kind("block"), **bundle.of_kind("network")} if key not in results.measured]
    if missing or results.bundle_sha256 != bundle_sha256(folder):
        raise UserError(f"{folder / RESULTS_FILE} contains the results of another bundle: measure this one")
    _check_device(bundle.device, results.fingerprint, folder)
    table = _table(bundle, results, folder / RESULTS_FILE)
    path = table_path(luts, table.device, table.precision, table.batch, table.threads)
    with exclusive_lock(path):
        if path.exists():
            raise UserError(f"table {path} exists already; move it away, or name another folder with --luts")
        table.save(path)
    return path, ProfileResult(table=table, measured=tuple(results.measured))


def _table(bundle: Bundle, results: Results, path: Path) -> LatencyTable:
    measured = results.measured
    content: dict[str, Any] = {
        "device": bundle.device,
        "precision": bundle.precision,
        "batch": bundle.batch,
        "threads": bundle.threads,
        "fingerprint": results.fingerprint,
        "timing": bundle.timing,
        "entries": {key: measured[key] for key in bundle.of_kind("block")},
        "networks": {
            key: {"task": graph.task, "blocks": graph.blocks, "macs": graph.macs, "measurement": measured[key]}
            for key, graph in bundle.of_kind("network").items()
        },
        "conditions": [results.conditions],
    }
    try:
        table = LatencyTable(**content)
    except UserError as error:
        raise UserError(f"{path} makes no table: {error}") from None
    return table.corrected()


def _read_bundle(folder: Path) -> Bundle:
    """Read a bundle of this version or of schema 1."""
    path = folder / BUNDLE_FILE
    schema, content = read_checksummed(path, what="bundle", schema=(1, BUNDLE_SCHEMA))
    return checked_bundle(upgrade_bundle(content) if schema == 1 else content, path)


def _read_results(folder: Path) -> Results:
    """Read the results of a bundle of this version or of schema 1."""
    path = folder / RESULTS_FILE
    if not path.exists():
        raise UserError(f"{folder} was not measured yet: run its measure.py on the device, then copy the folder back")
    schema, content = read_checksummed(path, what="results", schema=(1, BUNDLE_SCHEMA))
    check_fields(content, Results, f"results {path}")
    return Results(**upgrade_results(content) if schema == 1 else content)


def _check_device(device: str, fingerprint: Mapping[str, str | int], folder: Path) -> None:
    """Raise UserError if a bundle for one GPU was measured on another."""
    if device not in GPUS:
        return
    major, _, minor = str(fingerprint["compute_capability"]).partition(".")
    name = str(fingerprint["device_name"])
    if not matches(GPUS[device], name, (int(major), int(minor))):
        raise UserError(f"{folder} was made for {device!r} and measured on {name}")


def _write_graph(graph: Graph, precision: str, folder: Path, name: str) -> BundledGraph:
    content, inputs = onnx_at(graph, precision)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return BundledGraph(
        key=graph.key,
        kind="network" if isinstance(graph, Network) else "reference" if graph is REFERENCE_WORKLOAD else "block",
        file=name,
        sha256=hashlib.sha256(content).hexdigest(),
        inputs={name: list(array.shape) for name, array in inputs.items()},
        blocks=dict(graph.blocks) if isinstance(graph, Network) else {},
        macs=graph.macs if isinstance(graph, Network) else 0,
        task=graph.task if isinstance(graph, Network) else "",
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
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``, renamed to it on success and removed on an error."""
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
