"""Measures a bundle of graphs on the device it was made for, with neither torch nor this package.

``latency/bundle.py`` joins this file and the modules it needs into the bundle's ``measure.py``. A remote device is thus
measured by the same code as the local one. The results are written to ``results.json``.
"""

import argparse
import errno
import hashlib
import platform
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from export.errors import UnavailableError, UserError
from export.signals import interrupt_on_signals
from latency.backend import Backend
from latency.checksum import check_fields, read_checksummed, write_checksummed
from latency.devices import resolve
from latency.journal import Journal, exclusive_lock
from latency.measure import Workload, measure_graphs, with_prefix
from latency.protocol import Measurement, Timing

BUNDLE_SCHEMA = 2
BUNDLE_FILE = "bundle.json"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledGraph:
    """One ONNX file of a bundle."""

    key: str
    kind: str
    """reference, block or network."""
    file: str
    """File name in the bundle's folder."""
    sha256: str
    inputs: dict[str, list[int]]
    """Shape of every input."""
    blocks: dict[str, int]
    """Of a network: how often it has each block."""
    macs: int
    """Of a network: its multiply-adds."""
    task: str
    """Of a network: the name of its task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The content of ``bundle.json``."""

    device: str
    precision: str
    batch: int
    threads: int
    timing: dict[str, Any]
    graphs: list[dict[str, Any]]
    """The fields of ``BundledGraph``."""

    def of_kind(self, kind: str) -> dict[str, BundledGraph]:
        """The graphs of one kind, by key."""
        graphs = [BundledGraph(**graph) for graph in self.graphs]
        return {graph.key: graph for graph in graphs if graph.kind == kind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The content of ``results.json``."""

    bundle_sha256: str
    """Checksum of the ``bundle.json`` that was measured."""
    fingerprint: dict[str, str | int]
    measured: dict[str, dict[str, Any]]
    """The measurements of blocks and networks, by key."""
    conditions: dict[str, Any]


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check all its files.

    Raises:
        UserError: a file is missing, damaged or edited.
    """
    path = folder / BUNDLE_FILE
    _, content = read_checksummed(path, what="bundle", schema=BUNDLE_SCHEMA)
    return checked_bundle(content, path)


def checked_bundle(content: Mapping[str, Any], path: Path) -> Bundle:
    """Make the bundle of the content of its ``bundle.json`` and check all its files.

    Raises:
        UserError: a file is missing, damaged or edited.
    """
    check_fields(content, Bundle, f"bundle {path}")
    bundle = Bundle(**content)
    for graph in bundle.graphs:
        check_fields(graph, BundledGraph, f"a graph of bundle {path}")
        content_of(path.parent, BundledGraph(**graph))
    return bundle


def bundle_sha256(folder: Path) -> str:
    """Checksum of ``bundle.json``, which contains the checksums of all other files of the bundle."""
    return hashlib.sha256((folder / BUNDLE_FILE).read_bytes()).hexdigest()


def content_of(folder: Path, graph: BundledGraph) -> bytes:
    """Read the ONNX file of a graph.

    Raises:
        UserError: the file is missing or changed.
    """
    path = folder / graph.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. Copy the whole bundle again") from None
    if hashlib.sha256(content).hexdigest() != graph.sha256:
        raise UserError(f"{path} is not the file that the bundle was made with. Copy the whole bundle again")
    return content


def measure_bundle(folder: Path) -> Path:
    """Time all graphs of a bundle, resuming an interrupted run; returns the path of the results.

    Raises:
        UserError: the bundle is damaged, its results exist already, or another run is measuring it.
        UnavailableError: the device of the bundle or its runtime is not on this machine.
        VerificationError: an engine cannot be built.
    """
    bundle, path = open_bundle(folder), folder / RESULTS_FILE
    if path.exists():
        raise UserError(f"{path} exists already; move it away to measure anew")
    opened = closing(resolve(bundle.device, precision=bundle.precision, threads=bundle.threads))
    with opened as backend, exclusive_lock(path):
        origin = {"bundle_sha256": bundle_sha256(folder), "fingerprint": backend.fingerprint()}
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        journal = Journal(path, origin)
        measured = _measure_kind(folder, bundle, "block", backend, journal)
        if bundle.of_kind("network"):
            measured |= _measure_kind(folder, bundle, "network", backend, journal)
        results = {
            **origin,
            "measured": {key: asdict(measurement) for key, measurement in measured.items()},
            "conditions": {"date": date, "python": platform.python_version(), **backend.conditions()},
        }
        write_checksummed(path, results, schema=BUNDLE_SCHEMA)
        journal.remove()
    return path


def _measure_kind(
    folder: Path, bundle: Bundle, kind: str, backend: Backend, journal: Journal
) -> dict[str, Measurement]:
    (reference,) = bundle.of_kind("reference").values()
    return measure_graphs(
        {key: partial(_source, folder, graph) for key, graph in bundle.of_kind(kind).items()},
        partial(_source, folder, reference),
        backend,
        Timing(**bundle.timing),
        progress=with_prefix(_ProgressLines(), f"{kind}s"),
        journal=journal,
    )


def _source(folder: Path, graph: BundledGraph) -> Workload:
    """The ONNX of a graph, and inputs for it from a seeded normal distribution."""
    import numpy as np

    random = np.random.default_rng(zlib.crc32(graph.key.encode()))
    inputs = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in graph.inputs.items()}
    content = content_of(folder, graph)
    return Workload(content=content, inputs=inputs, size=len(content), cold_weights=graph.kind != "network")


class _ProgressLines:
    """A progress callback that writes a line to stderr every ten seconds, with the time left."""

    def __init__(self) -> None:
        self._stage = ""
        self._start_s = self._last_line_s = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start_s, self._last_line_s = stage, now, now
        elif done < total and now - self._last_line_s < 10:
            return
        self._last_line_s = now
        left_s = (now - self._start_s) / done * (total - done)
        sys.stderr.write(f"{stage}: {done} of {total}, {left_s:.0f} s left\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``measure.py``; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Times the graphs beside this file on this machine and writes results.json beside it."
    )
    parser.parse_args(arguments)
    interrupt_on_signals()
    try:
        path = measure_bundle(Path(__file__).resolve().parent)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError)
        reason = f"{error.name} is not installed here; README.md names what to install" if is_missing else str(error)
        sys.stderr.write(f"error: {reason}\n")
        return UnavailableError.exit_code
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        hint = "; this needs a folder to write to" if error.errno in (errno.EACCES, errno.EROFS) else ""
        sys.stderr.write(f"error: {place}{error.strerror or error}{hint}\n")
        return UserError.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the repetitions so far are kept: run the same command again\n")
        return UserError.exit_code
    sys.stdout.write(f"{path}\ncopy this folder back, then run: fbnetv5 profile import {path.parent.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
