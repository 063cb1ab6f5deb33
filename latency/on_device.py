"""Measures a bundle of graphs on the device they were made for, with neither torch nor this package.

``latency/bundle.py`` joins this file and all that it needs into the bundle's ``measure.py``, so that a device that is
elsewhere is measured by the very code that measures one that is here. What it finds goes into ``results.json``.
"""

import argparse
import hashlib
import platform
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError
from latency.backend import Backend
from latency.devices import resolve
from latency.measure import measure_graphs, named
from latency.parsing import read_sealed, write_sealed
from latency.protocol import Measurement, Timing
from latency.unfinished import Unfinished, only_run

if TYPE_CHECKING:
    from export.runners import Array

BUNDLE_SCHEMA = 1
BUNDLE_FILE = "bundle.json"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledGraph:
    """One ONNX file of a bundle."""

    key: str
    kind: str
    """yardstick, block or network."""
    file: str
    """Its name in the bundle's folder."""
    sha256: str
    inputs: dict[str, list[int]]
    """Shape of every input."""
    blocks: dict[str, int]
    """Of a network: how often each block occurs in it."""
    macs: int
    """Of a network: its multiply-adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle's ``bundle.json`` says."""

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
    """What a bundle's ``results.json`` says."""

    bundle_sha256: str
    """Of the ``bundle.json`` that was measured."""
    fingerprint: dict[str, str | int]
    measured: dict[str, dict[str, Any]]
    """By key: the measurements of blocks and networks."""
    conditions: dict[str, Any]


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check every file of it.

    Raises:
        UserError: a file is missing, damaged or edited.
    """
    bundle = Bundle(**read_sealed(folder / BUNDLE_FILE, Bundle, what="bundle", schema=BUNDLE_SCHEMA))
    for graph in bundle.graphs:
        content_of(folder, BundledGraph(**graph))
    return bundle


def bundle_sha256(folder: Path) -> str:
    """Of a bundle's ``bundle.json``, which holds the checksums of all its other files."""
    return hashlib.sha256((folder / BUNDLE_FILE).read_bytes()).hexdigest()


def content_of(folder: Path, graph: BundledGraph) -> bytes:
    """A graph's ONNX.

    Raises:
        UserError: its file is missing or not what it was.
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
    """Time all graphs of a bundle, going on where an interrupted run stopped; returns the path of the results.

    Raises:
        UserError: the bundle is damaged, its results are there already, or another run is measuring it.
        UnavailableError: the bundle's device or its runtime is not.
        VerificationError: an engine cannot be built.
    """
    bundle, path = open_bundle(folder), folder / RESULTS_FILE
    if path.exists():
        raise UserError(f"{path} is there already; move it away to measure anew")
    backend = resolve(bundle.device, precision=bundle.precision, threads=bundle.threads)
    identity = {"bundle_sha256": bundle_sha256(folder), "fingerprint": backend.fingerprint()}
    with only_run(path):
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        unfinished = Unfinished(path, identity)
        measured = _measure_kind(folder, bundle, "block", backend, unfinished)
        if bundle.of_kind("network"):
            measured |= _measure_kind(folder, bundle, "network", backend, unfinished)
        results = {
            **identity,
            "measured": {key: asdict(one) for key, one in measured.items()},
            "conditions": {"date": date, "python": platform.python_version(), **backend.conditions()},
        }
        write_sealed(path, results, schema=BUNDLE_SCHEMA)
        unfinished.remove()
    return path


def _measure_kind(
    folder: Path, bundle: Bundle, kind: str, backend: Backend, unfinished: Unfinished
) -> dict[str, Measurement]:
    (yardstick,) = bundle.of_kind("yardstick").values()
    return measure_graphs(
        {key: partial(_source, folder, graph) for key, graph in bundle.of_kind(kind).items()},
        partial(_source, folder, yardstick),
        backend,
        Timing(**bundle.timing),
        parts=kind == "block",
        progress=named(_Lines(), f"{kind}s"),
        unfinished=unfinished,
    )


def _source(folder: Path, graph: BundledGraph) -> "tuple[bytes, dict[str, Array]]":
    """A graph's ONNX, and normal random inputs for it."""
    import numpy as np

    random = np.random.default_rng(zlib.crc32(graph.key.encode()))
    inputs = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in graph.inputs.items()}
    return content_of(folder, graph), inputs


class _Lines:
    """Progress as a line on stderr every ten seconds, with time left."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = self._said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._said = stage, now, now
        elif done < total and now - self._said < 10:
            return
        self._said = now
        left_s = (now - self._began) / done * (total - done)
        sys.stderr.write(f"{stage}: {done} of {total}, {left_s:.0f} s left\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``measure.py``; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Times the graphs beside this file on this machine, into results.json beside it."
    )
    parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a locked clock is let go on the way out
    try:
        path = measure_bundle(Path(__file__).resolve().parent)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was done is kept: run the same command again\n")
        return UserError.exit_code
    sys.stdout.write(f"{path}\nbring this folder back, and: fbnetv5 profile --import {path.parent.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
