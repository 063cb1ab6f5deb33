"""Latency tables from options: the functions of ``fbnetv5.api`` that ``fbnetv5 profile`` and its sub-commands call."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.files import AnyPath
from export.progress import Progress, silent
from fbnetv5.deploy.profile import Scope, document, graphs_of, write_report
from fbnetv5.deploy.profile_networks import found_networks, fresh_networks, networks_of_table, networks_to_fit
from fbnetv5.deploy.profile_scope import scope as default_scope
from fbnetv5.runs.options import open_device
from latency import bundle, estimate, verify
from latency.devices import gpu
from latency.on_device import Bundle
from latency.profile import Network, Plan, ProfileResult, plan
from latency.profile import profile as measure
from latency.protocol import Timing
from latency.table import LatencyTable, table_path

NETWORKS = 48
"""Default number of whole networks to measure, where the space has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTable:
    """A measured latency table and its HTML report, written."""

    path: Path
    """The file of the table."""
    report: Path
    """The HTML report beside it."""
    result: ProfileResult
    """The table, with its correction and errors, and the keys that were measured now; times are in milliseconds."""
    keys: Sequence[str]
    """Keys of the blocks and heads that were asked for."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 profile --json``."""
        return {"table": str(self.path), "report": str(self.report), **document(self.result, self.keys)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlan:
    """What a table lacks."""

    path: Path
    """The file of the table, which need not exist."""
    plan: Plan
    """The blocks and networks that it lacks, by key."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 profile --dry-run --json``."""
        return {"table": str(self.path), "blocks": list(self.plan.blocks), "networks": list(self.plan.networks)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBundle:
    """A folder to copy to another device and measure there."""

    folder: Path
    bundle: Bundle
    """The graphs and the protocol."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 profile bundle --json``."""
        counts = {f"{kind}s": len(self.bundle.of_kind(kind)) for kind in ("block", "network")}
        about = {"bundle": str(self.folder), "device": self.bundle.device, "precision": self.bundle.precision}
        return about | counts


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateResult:
    """An estimated latency table, written; nothing in it was measured on the device."""

    path: Path
    """The file of the table."""
    table: estimate.EstimatedTable
    """The estimates, in milliseconds, and the figures that they were computed from."""
    keys: Sequence[str]
    """Keys of the blocks and heads that were asked for."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 profile estimate --json``."""
        table = self.table
        return {
            "table": str(self.path),
            "device": table.device,
            "precision": table.precision,
            "kind": table.kind,
            "peak_tflops": table.peak_tflops,
            "bandwidth_gb_s": table.bandwidth_gb_s,
            "kernel_floor_us": table.kernel_floor_us,
            "latency_ms": table.values_ms(self.keys),
        }


def profile(
    device: str = "cpu",
    *,
    scope: Scope | None = None,
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    networks: int | None = None,
    luts: AnyPath = "luts",
    progress: Progress = silent,
) -> MeasuredTable:
    """Measure the blocks of a search space into a latency table; an interrupted measurement is continued.

    Whole networks are measured too, to correct the sum of their blocks.

    Examples:
        >>> measured = api.profile("cpu", scope=api.scope(tasks="cls", resolution=64), networks=15)
        >>> errors = measured.result.table.correction.held_out.predicted  # on networks that the fit has not seen

    Args:
        device: "cpu", or an NVIDIA GPU of this machine such as "a100" or "orin".
        scope: space, tasks and resolution of the table; None for ``scope()``.
        runtime: "tensorrt", "onnxruntime", "torch" or "torch-compile"; None for the usual one of the device.
        precision: "fp32", "fp16" (GPUs only) or "int8".
        threads: CPU threads per operator.
        networks: random whole networks to measure; 0 for no correction, None for 48 or all of a space with fewer.
        luts: folder of latency tables.
        progress: called with (stage, done, total).

    Raises:
        UserError: an option is wrong, or the table there is of another machine or protocol.
        UnavailableError: the device or the runtime is not on this machine.
        VerificationError: a block cannot be exported.
    """
    scope = scope or default_scope()
    with closing(open_device(device, runtime=runtime, precision=precision, threads=threads)) as backend:
        threads, runtime = backend.threads, backend.runtime
        path = table_path(Path(luts), backend.device, backend.precision, threads=threads, runtime=runtime)
        graphs, whole = graphs_of(scope), _networks(scope, networks)
        result = measure(graphs, whole, path=path, backend=backend, timing=Timing(), progress=progress)
    report = write_report(path, result.table, scope)
    return MeasuredTable(path=path, report=report, result=result, keys=[graph.key for graph in graphs])


def profile_plan(
    device: str = "cpu",
    *,
    scope: Scope | None = None,
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    networks: int | None = None,
    luts: AnyPath = "luts",
) -> ProfilePlan:
    """List the blocks and networks that a latency table lacks; nothing is measured.

    Examples:
        >>> missing = list(api.profile_plan("cpu").plan.blocks)

    Args:
        device: as of ``profile``, and so are the following options.
        scope: see ``profile``.
        runtime: see ``profile``.
        precision: see ``profile``.
        threads: see ``profile``.
        networks: see ``profile``.
        luts: see ``profile``.

    Raises:
        UserError: an option is wrong, or the table there is of another machine or protocol.
        UnavailableError: the device or the runtime is not on this machine.
    """
    scope = scope or default_scope()
    with closing(open_device(device, runtime=runtime, precision=precision, threads=threads)) as backend:
        threads, runtime = backend.threads, backend.runtime
        path = table_path(Path(luts), backend.device, backend.precision, threads=threads, runtime=runtime)
        missing = plan(graphs_of(scope), _networks(scope, networks), path=path, backend=backend, timing=Timing())
    return ProfilePlan(path=path, plan=missing)


def profile_verify(
    table: AnyPath,
    *,
    run: AnyPath | None = None,
    scope: Scope | None = None,
    networks: int = NETWORKS,
    progress: Progress = silent,
) -> verify.Verification:
    """Compare a latency table with whole networks measured now; the table is not changed.

    Examples:
        >>> errors = api.profile_verify("luts/cpu-fp32-b1.json", networks=20).report.predicted

    Args:
        table: latency table file.
        run: run folder whose networks are measured, at their tasks and resolution, instead of random networks; the
            other options are not used then.
        scope: space, tasks and resolution of the random networks; None for ``scope()``.
        networks: number of random networks, at least 2.
        progress: called with (stage, done, total).

    Raises:
        UserError: the table is damaged, or lacks a block of a network.
        UnavailableError: the device of the table is not on this machine.
        VerificationError: a network cannot be exported.
    """
    stored = LatencyTable.load(Path(table))
    if run is None:
        scope = scope or default_scope()
        earlier = networks_of_table(scope, stored)
        compared = fresh_networks(scope, networks, earlier)
    else:
        scope, compared = found_networks(Path(run))
        earlier = networks_of_table(scope, stored)
    return verify.verify(stored, compared, earlier, progress=progress)


def profile_bundle(
    folder: AnyPath,
    *,
    device: str = "cpu",
    scope: Scope | None = None,
    precision: str = "fp32",
    threads: int = 1,
    networks: int | None = None,
    progress: Progress = silent,
) -> ProfileBundle:
    """Write a folder to copy to another device and measure there, with numpy and the device's runtime only.

    Examples:
        >>> api.profile_bundle("orin-bundle", device="orin", precision="fp16").bundle.device
        'orin'

    Args:
        folder: to make.
        device: "cpu", or an NVIDIA GPU such as "a100" or "orin".
        scope: space, tasks and resolution of the table; None for ``scope()``.
        precision: "fp32", "fp16" (GPUs only) or "int8".
        threads: CPU threads per operator.
        networks: random whole networks to measure; 0 for no correction, None for 48 or all of a space with fewer.
        progress: called with (stage, done, total).

    Raises:
        UserError: the folder exists, or an option is wrong.
        VerificationError: a block cannot be exported.
    """
    scope = scope or default_scope()
    target = bundle.Target(device=device, precision=precision, threads=threads)
    graphs, whole = graphs_of(scope), _networks(scope, networks)
    written = bundle.write_bundle(graphs, whole, folder=Path(folder), target=target, timing=Timing(), progress=progress)
    return ProfileBundle(folder=Path(folder), bundle=written)


def profile_import(folder: AnyPath, *, scope: Scope | None = None, luts: AnyPath = "luts") -> MeasuredTable:
    """Write the latency table of a bundle that was measured on its device.

    Examples:
        >>> table = api.profile_import("orin-bundle").path

    Args:
        folder: of the bundle, with the results of its device.
        scope: space, tasks and resolution that the HTML report describes; None for ``scope()``.
        luts: folder of latency tables.

    Raises:
        UserError: the bundle was not measured, is damaged, or was measured on another device than it was made for; or
            a table of the device exists already.
    """
    path, result = bundle.import_bundle(Path(folder), Path(luts))
    report = write_report(path, result.table, scope or default_scope())
    return MeasuredTable(path=path, report=report, result=result, keys=list(result.table.standalone_ms))


def profile_estimate(
    device: str,
    *,
    scope: Scope | None = None,
    precision: str = "fp32",
    luts: AnyPath = "luts",
    progress: Progress = silent,
) -> EstimateResult:
    """Estimate a latency table from a GPU's data sheet; nothing is measured, and the values are rough.

    Examples:
        >>> estimated = api.profile_estimate("a100", precision="fp16")
        >>> api.search(latency="1ms", table=estimated.path)

    Args:
        device: NVIDIA GPU such as "a100" or "orin".
        scope: space, tasks and resolution of the table; None for ``scope()``.
        precision: "fp32", "fp16" or "int8".
        luts: folder of latency tables.
        progress: called with (stage, done, total).

    Raises:
        UserError: the device or its peak at this precision is unknown, or the table there is of other figures.
        VerificationError: a block cannot be exported.
    """
    graphs = graphs_of(scope or default_scope())
    path = estimate.estimated_path(Path(luts), device, precision)
    table = estimate.estimate(graphs, gpu(device), precision, path, progress)
    return EstimateResult(path=path, table=table, keys=[graph.key for graph in graphs])


def _networks(scope: Scope, count: int | None) -> list[Network]:
    """Draw the whole networks; by default ``NETWORKS``, or all of a space with fewer.

    Raises:
        UserError: the space has fewer networks, or by default fewer than a correction needs.
    """
    if count is None:
        return networks_to_fit(scope, NETWORKS, or_all=True)
    return networks_to_fit(scope, count)
