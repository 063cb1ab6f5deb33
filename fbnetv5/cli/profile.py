"""``fbnetv5 profile``: time a space's blocks into a lookup table, and what can be done with such a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import UserError
from fbnetv5.cli.console import interruptible, print_json, print_line, print_table, progress_bar, stage_lines
from fbnetv5.cli.options import (
    Blocks,
    Data,
    Json,
    Luts,
    Stages,
    Tasks,
    Variant,
    make_space,
    resolve_device,
    task_names,
)

if TYPE_CHECKING:
    from fbnetv5.deploy.profile import Scope
    from latency.backend import Backend
    from latency.correction import Report
    from latency.estimate import EstimatedTable
    from latency.on_device import Bundle
    from latency.profile import Plan, Profiled
    from latency.verify import Verified

NETWORKS = 48


def profile(
    device: Annotated[str, typer.Option(help="Device to measure: cpu, or the name of an NVIDIA GPU.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Of the blocks: fp32, fp16 (GPUs only) or int8.")] = "fp32",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    resolution: Annotated[str, typer.Option(help="Deploy resolution, HEIGHTxWIDTH.")] = "224x224",
    tasks: Tasks = None,
    data: Data = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads one operator may use.")] = 1,
    networks: Annotated[
        int, typer.Option(min=0, help="Whole networks to measure, on which block times are corrected; 0 for none.")
    ] = NETWORKS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be measured.")] = False,
    verify: Annotated[
        Path | None, typer.Option(help="Table to hold against --networks freshly drawn networks; it is not changed.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="With --verify: a run folder, whose networks to take instead of fresh ones.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder to make, with all it takes to measure a device elsewhere.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Bundle that came back measured, to make the table of.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure nothing: compute a rough table from the device's data sheet.")
    ] = False,
    luts: Luts = Path("luts"),
    json: Json = False,
) -> None:
    """Time a space's blocks into a lookup table, corrected on whole networks."""
    ways = {"--dry-run": dry_run, "--verify": verify, "--bundle": bundle, "--import": import_, "--estimate": estimate}
    if len(asked := [name for name, value in ways.items() if value]) > 1:
        raise UserError(f"{' and '.join(asked)} exclude each other")
    if run is not None and verify is None:
        raise UserError("--run says what --verify measures; name a table with it")
    here = not (verify or bundle or import_ or estimate)
    backend = resolve_device(device, precision=precision, threads=threads) if here else None
    from fbnetv5.data.resolution import parse_resolution
    from fbnetv5.data.splits import targets_of
    from fbnetv5.data.targets import class_names
    from fbnetv5.deploy.profile import Scope

    scope = Scope(
        space=make_space(variant, stages, blocks_per_path, strict=False),
        tasks=task_names(tasks),
        classes=class_names(targets_of(data)),
        resolution=parse_resolution(resolution),
    )
    if backend is not None:
        _profile(backend, scope, networks, luts=luts, dry_run=dry_run, as_json=json)
    elif verify is not None:
        _verify(verify, scope, networks, run, as_json=json)
    elif import_ is not None:
        _import(import_, scope, luts, as_json=json)
    elif bundle is not None:
        _bundle(bundle, scope, networks, device=device, precision=precision, threads=threads, as_json=json)
    else:
        _estimate(scope, device=device, precision=precision, luts=luts, as_json=json)


def _profile(backend: "Backend", scope: "Scope", networks: int, *, luts: Path, dry_run: bool, as_json: bool) -> None:
    from fbnetv5.deploy.profile import graphs_of, networks_to_fit, write_page
    from latency.profile import plan
    from latency.profile import profile as measure
    from latency.protocol import Timing
    from latency.table import table_path

    path, timing = table_path(luts, backend.device, backend.precision, threads=backend.threads), Timing()
    graphs, whole = graphs_of(scope), networks_to_fit(scope, networks)
    if dry_run:
        print_plan(path, plan(graphs, whole, path=path, backend=backend, timing=timing), as_json=as_json)
        return
    with progress_bar() as bar, interruptible("run the same command again"):
        profiled = measure(graphs, whole, path=path, backend=backend, timing=timing, progress=stage_lines(bar))
    page = write_page(path, profiled.table, scope)
    print_profiled(path, page, profiled, [graph.key for graph in graphs], as_json=as_json)


def _verify(path: Path, scope: "Scope", networks: int, run: Path | None, *, as_json: bool) -> None:
    from fbnetv5.deploy.profile import fresh_networks, networks_of, networks_to_fit
    from latency.table import LatencyTable
    from latency.verify import verify

    with progress_bar() as bar:
        known = networks_to_fit(scope, min(NETWORKS, len(LatencyTable.load(path, foreign=True).networks)))
        chosen = fresh_networks(scope, networks, known) if run is None else networks_of(run)
        found = verify(path, chosen, known, progress=stage_lines(bar))
    print_verified(path, found, as_json=as_json)


def _bundle(
    folder: Path, scope: "Scope", networks: int, *, device: str, precision: str, threads: int, as_json: bool
) -> None:
    from fbnetv5.deploy.profile import graphs_of, networks_to_fit
    from latency.bundle import Target, write_bundle
    from latency.protocol import Timing

    target = Target(device=device, precision=precision, threads=threads)
    graphs, whole = graphs_of(scope), networks_to_fit(scope, networks)
    with progress_bar() as bar:
        written = write_bundle(graphs, whole, folder=folder, target=target, timing=Timing(), progress=stage_lines(bar))
    print_bundle(folder, written, as_json=as_json)


def _import(folder: Path, scope: "Scope", luts: Path, *, as_json: bool) -> None:
    from fbnetv5.deploy.profile import write_page
    from latency.bundle import import_bundle

    path, profiled = import_bundle(folder, luts)
    page = write_page(path, profiled.table, scope)
    print_profiled(path, page, profiled, list(profiled.table.isolated_ms), as_json=as_json)


def _estimate(scope: "Scope", *, device: str, precision: str, luts: Path, as_json: bool) -> None:
    from fbnetv5.deploy.profile import graphs_of
    from latency.devices import gpu
    from latency.estimate import estimate, estimated_path

    path, graphs = estimated_path(luts, device, precision), graphs_of(scope)
    with progress_bar() as bar:
        table = estimate(graphs, gpu(device), precision, path, stage_lines(bar))
    print_estimated(path, table, [graph.key for graph in graphs], as_json=as_json)


def print_plan(path: Path, lacking: "Plan", *, as_json: bool) -> None:
    if as_json:
        print_json({"table": str(path), "blocks": list(lacking.blocks), "networks": list(lacking.networks)})
        return
    for key in (*lacking.blocks, *lacking.networks):
        print_line(key)
    print_line(f"{path} lacks {len(lacking.blocks)} blocks and {len(lacking.networks)} networks")


def print_profiled(path: Path, page: Path, profiled: "Profiled", keys: list[str], *, as_json: bool) -> None:
    from fbnetv5.deploy.profile import document

    table, correction = profiled.table, profiled.table.correction
    if as_json:
        print_json({"table": str(path), "page": str(page), **document(profiled, keys)})
        return
    print_line(
        f"{path}: {len(keys)} blocks and {len(table.networks)} whole networks, {len(profiled.measured)} measured now; "
        f"a call that does nothing takes {table.overhead_ms:.4f} ms"
    )
    if unstable := table.unstable:
        print_line(f"{len(unstable)} of them varied by more than {table.timing.max_cv:.0%}: is other work running?")
    if correction is None:
        print_line("not corrected, since no whole network was measured: expect the sum of blocks to be off")
    else:
        chosen = "is used" if correction.helps else "does not help and is NOT used: the plain sum is"
        others = correction.held_out.networks
        print_line(f"correction fitted on {correction.fitted_on} networks {chosen}; errors on {others} others:")
        print_report(correction.held_out)
    print_line(f"to look at: {page}")


def print_bundle(folder: Path, bundle: "Bundle", *, as_json: bool) -> None:
    if as_json:
        counts = {f"{kind}s": len(bundle.of_kind(kind)) for kind in ("block", "network")}
        print_json({"bundle": str(folder), "device": bundle.device, "precision": bundle.precision, **counts})
        return
    print_line(f"{folder}: {len(bundle.graphs)} graphs to time on {bundle.device}; its README.md says how")


def print_estimated(path: Path, table: "EstimatedTable", keys: list[str], *, as_json: bool) -> None:
    if as_json:
        values = {"latency_ms": table.values_ms(keys)}
        print_json(
            {"table": str(path), "device": table.device, "precision": table.precision, "kind": table.kind, **values}
        )
        return
    rows = [
        [key, f"{one.latency_ms:.4f} ms {one.kind}", one.bound] for key, one in table.entries.items() if key in keys
    ]
    print_table(["block", "at least", "bound by"], rows)
    print_line(
        f"{path}: {len(rows)} blocks estimated from {table.peak_tflops:g} TFLOPS and {table.bandwidth_gb_s:g} GB/s "
        f"({table.source}); nothing was measured. Search with: --latency BUDGET --table {path}"
    )


def print_verified(path: Path, found: "Verified", *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    print_line(f"{path} against {found.report.networks} networks measured now, at the table's speed of the machine")
    print_report(found.report)
    print_line(f"the machine now runs at {found.speed:.1%} of its speed then")


def print_report(found: "Report") -> None:
    judged = {"table": found.predicted, "plain sum of blocks": found.isolated, "multiply-adds": found.flops}
    rows = [[name, *errors.texts()] for name, errors in judged.items() if errors is not None]
    print_table(["predicted by", "mean error", "bias", "within 5 %", "within 10 %", "rank (tau)"], rows)
    print_line(f"the networks' own repeats differ by {found.noise:.2%}")
