"""The command line: parses, calls the module that does the work, prints. Heavy packages load when a command runs."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from export.errors import CheckFailed, NotHere, UserError

if TYPE_CHECKING:
    from export.check import Verdict
    from fbnetv5.architecture import Architecture
    from fbnetv5.exporting import Exported
    from fbnetv5.profiling import Scope
    from fbnetv5.search.config import SearchConfig
    from fbnetv5.search.history import Progress as SearchProgress
    from fbnetv5.search.run import CostRange
    from fbnetv5.space import Space
    from latency.backend import Backend
    from latency.correction import Report
    from latency.profile import Plan, Profiled

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One search, a network per vision task, within a budget of multiply-adds or of milliseconds on your device.",
)
console = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Data = Annotated[Path | None, typer.Option(help="Folder of your pictures; without it the demo scenes.")]
Tasks = Annotated[str, typer.Option(help="Comma-separated tasks.")]
Variant = Annotated[str, typer.Option(help="FBNetV3 letter of stage 0: a, c or f.")]
Stages = Annotated[int, typer.Option(help="Stages after stage 0.")]
Blocks = Annotated[int, typer.Option("--blocks-per-path", help="Blocks on each path in each of those stages.")]
Strict = Annotated[bool, typer.Option("--strict", help="Only later stages' blocks are slots.")]
Luts = Annotated[Path, typer.Option(help="Folder of latency tables.")]
Runs = Annotated[Path, typer.Option(help="Folder of runs.")]
ALL_TASKS = "cls,det,seg"


@app.command()
def show(
    network: Annotated[str, typer.Argument(help="fbnetv3-a to fbnetv3-g, or an architecture file.")], json: Json = False
) -> None:
    """A network: blocks, multiply-adds, params, live paths."""
    from fbnetv5.show import show as describe

    document = describe(network)
    if json:
        print_json(document)
        return
    size = "x".join(str(side) for side in document["resolution"])
    macs, params = document["macs"] / 1e6, document["params"] / 1e6
    print_line(f"{document['name']} at {size}: {macs:.6f}M multiply-adds, {params:.6f}M params")
    if "slots" in document:
        slots, paths = document["slots"], ", ".join(f"1/{path}" for path in document["paths"])
        print_line(f"live paths {paths}; {slots['kept']} of {slots['all']} slots filled, {slots['live']} of them live")
    rows = [
        [row["name"], row["block"], f"{row['macs'] / 1e6:.3f}M", f"{row['params'] / 1e6:.4f}M", _shape(row["output"])]
        for row in document["blocks"]
    ]
    print_table(["name", "block", "multiply-adds", "params", "output"], rows)


@app.command()
def space(
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    strict: Strict = False,
    resolution: Annotated[str, typer.Option(help="Deploy resolution, HEIGHTxWIDTH.")] = "224x224",
    tasks: Tasks = ALL_TASKS,
    data: Data = None,
    json: Json = False,
) -> None:
    """What a search can choose: slots, size, cost range per task."""
    from fbnetv5.cost import parse_resolution
    from fbnetv5.data.parts import classes_of
    from fbnetv5.show import show_space

    chosen = _space(variant, stages, blocks_per_path, strict)
    document = show_space(chosen, classes_of(data), _names(tasks), parse_resolution(resolution))
    if json:
        print_json(document)
        return
    print_line(
        f"variant {variant}: {len(document['slots'])} slots, 2^{document['log2_architectures']:.0f} architectures"
    )
    rows = [
        [task, *(f"{found[key] / 1e6:.1f}M" for key in ("cheapest", "expected", "dearest"))]
        for task, found in document["macs"].items()
    ]
    print_table(["task", "cheapest", "expected", "dearest"], rows)


@app.command()
def profile(
    device: Annotated[str, typer.Option(help="Device to measure: cpu, or the name of an NVIDIA GPU.")] = "cpu",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    resolution: Annotated[str, typer.Option(help="Deploy resolution, HEIGHTxWIDTH.")] = "224x224",
    tasks: Tasks = ALL_TASKS,
    data: Data = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads one operator may use.")] = 1,
    networks: Annotated[
        int, typer.Option(min=0, help="Whole networks to measure, on which block times are corrected; 0 for none.")
    ] = 48,
    verify: Annotated[
        Path | None, typer.Option(help="Table to hold against --networks freshly drawn networks; it is not changed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be measured.")] = False,
    luts: Luts = Path("luts"),
    json: Json = False,
) -> None:
    """Time a space's blocks into a lookup table, corrected on whole networks."""
    from latency.devices import resolve

    backend = resolve(device, threads=threads)
    from fbnetv5.cost import parse_resolution
    from fbnetv5.data.parts import classes_of
    from fbnetv5.profiling import Scope

    scope = Scope(
        space=_space(variant, stages, blocks_per_path, strict=False),
        tasks=_names(tasks),
        classes=classes_of(data),
        resolution=parse_resolution(resolution),
    )
    if verify is not None:
        _verify(verify, scope, networks, as_json=json)
    else:
        _profile(backend, scope, networks, luts=luts, dry_run=dry_run, as_json=json)


def _profile(backend: "Backend", scope: "Scope", networks: int, *, luts: Path, dry_run: bool, as_json: bool) -> None:
    from fbnetv5.profiling import graphs_of, networks_to_fit
    from latency.profile import plan
    from latency.profile import profile as measure
    from latency.protocol import Timing
    from latency.table import table_path

    path, timing = table_path(luts, backend.device, backend.precision, threads=backend.threads), Timing()
    graphs, whole = graphs_of(scope), networks_to_fit(scope, networks)
    if dry_run:
        lacking = plan(graphs, whole, path=path, backend=backend, timing=timing)
        _print_plan(path, lacking, as_json=as_json)
        return
    with _bar() as bar, _interruptible("run the same command again"):
        profiled = measure(graphs, whole, path=path, backend=backend, timing=timing, progress=_stages(bar))
    _print_profiled(path, profiled, [graph.key for graph in graphs], as_json=as_json)


def _verify(path: Path, scope: "Scope", networks: int, *, as_json: bool) -> None:
    from fbnetv5.profiling import fresh_networks
    from latency.verify import verify

    with _bar() as bar:
        found = verify(path, fresh_networks(scope, networks), progress=_stages(bar))
    if as_json:
        print_json(found.to_json())
        return
    print_line(f"{path} against {found.report.networks} networks measured now, at the table's speed of the machine")
    _print_report(found.report)
    print_line(f"the machine runs at {found.speed:.1%} of its speed then")


@app.command()
def search(
    flops: Annotated[str | None, typer.Option(help="Budget, such as 400M or det=1.2G@320x640,400M.")] = None,
    latency: Annotated[str | None, typer.Option(help="Budget, such as 8ms; needs a latency table.")] = None,
    device: Annotated[str | None, typer.Option(help="Device whose table counts or predicts milliseconds.")] = None,
    table: Annotated[Path | None, typer.Option(help="Latency table to use, of whatever machine.")] = None,
    tasks: Tasks = ALL_TASKS,
    data: Data = None,
    size: Annotated[str, typer.Option(help="Size of the pictures the search trains on, HEIGHTxWIDTH.")] = "64x64",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    strict: Strict = False,
    config: Annotated[
        Path | None, typer.Option(help="JSON file that sets any other field of the search, such as steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run; its date and time if not given.")] = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    resume: Annotated[Path | None, typer.Option(help="Run folder of a search to go on with.")] = None,
    json: Json = False,
) -> None:
    """Search a network for every task in one run."""
    from fbnetv5.search.run import run_search, start_run

    if resume is not None:
        if flops or latency:
            raise UserError("--resume goes on with the run's own budget; leave out --flops and --latency")
        folder = resume
    else:
        chosen = _search_config(
            flops=flops,
            latency=latency,
            table=_table(device, table, luts),
            foreign=table is not None,
            tasks=_names(tasks),
            data=data,
            size=size,
            space=_space(variant, stages, blocks_per_path, strict),
            seed=seed,
            fields=config,
        )
        folder = start_run(chosen, runs / (name or time.strftime("%Y%m%d-%H%M%S")), _print_ranges)
    with _bar() as bar, _interruptible(f"go on with: fbnetv5 search --resume {folder}"):
        found = run_search(folder, _search_report(bar, folder), _stages(bar))
    if _is_first_process():
        _print_found(folder, found, as_json=json)


@app.command()
def export(
    task: Annotated[str | None, typer.Option(help="Task to export; without it all of the run's.")] = None,
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/latest"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; RUN/export if not given.")
    ] = None,
    fixed_size: Annotated[bool, typer.Option("--fixed-size", help="Accept the deploy resolution only.")] = False,
    engine: Annotated[bool, typer.Option("--engine", help="Also build TensorRT engines; needs no GPU.")] = False,
    json: Json = False,
) -> None:
    """Turn a run's networks into validated ONNX files, and these into engines."""
    from fbnetv5.exporting import document, export_task, tasks_of, with_engine

    exported, missing = [], None
    for name in [task] if task else tasks_of(run):
        folder = (output or run / "export") / name
        one = export_task(run, name, folder, _say, fixed_size=fixed_size)
        if engine and missing is None:
            try:
                one = with_engine(one, _say)
            except NotHere as error:
                missing = error
        exported.append(one)
    if json:
        print_json({"exported": [document(one) for one in exported]})
    else:
        _print_exported(exported)
    if missing is not None:
        raise NotHere(f"the ONNX files are written, and no engine was built: {missing}")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Any ONNX file.")], json: Json = False) -> None:
    """Ask NVIDIA's own parser whether TensorRT takes an ONNX file; needs no GPU."""
    from export.check import check as ask

    verdict = ask(file)
    if json:
        print_json(verdict.to_json())
    else:
        _print_verdict(verdict)
    if not verdict.accepted:
        raise CheckFailed(f"{verdict.runtime} {verdict.version} does not take {file}")


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine can profile, build and run, and what would fix the rest."""
    from fbnetv5.doctor import diagnose

    diagnosis = diagnose()
    if json:
        print_json(diagnosis.to_json())
        return
    for finding in diagnosis.findings:
        print_line(f"{finding.part}: {finding.status}: {finding.detail}")
        if finding.fix:
            print_line(f"  fix: {finding.fix}")
    for ability in diagnosis.abilities:
        print_line(f"can {ability.name}: {ability.detail}")


def main() -> None:
    """Entry point: what the user can fix becomes one red line and an exit code."""
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", UserError.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", UserError.exit_code)


def _is_first_process() -> bool:
    """Whether to speak: launchers of several processes number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    console.print(Text(line), soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    """One line of a result, unwrapped, on stdout."""
    sys.stdout.write(text + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A result as a table on stdout; the columns after the first are right-aligned where they hold numbers."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and rows[0][number][:1].isdigit()
        table.add_column(Text(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=max(120, Console().width)).print(table)


def _fail(message: str, exit_code: int) -> None:
    # Text, not markup: rich would read the "[trt]" of a pip extra as a style tag and drop it.
    console.print(Text(f"error: {message}", style="red"), soft_wrap=True)
    raise SystemExit(exit_code)


@contextmanager
def _interruptible(way_on: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise UserError(f"interrupted; what was done is kept, {way_on}") from None


def _space(variant: str, stages: int, blocks_per_path: int, strict: bool) -> "Space":
    from fbnetv5.space import Space

    return Space(variant=variant, stages=stages, blocks_per_path=blocks_per_path, strict=strict)


def _names(tasks: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in tasks.split(","))
    if len(set(names)) != len(names) or not all(names):
        raise UserError(f"--tasks {tasks!r} is not a list of different tasks, such as {ALL_TASKS}")
    return names


def _table(device: str | None, table: Path | None, luts: Path) -> Path | None:
    """The latency table asked for by file or by device."""
    if table is not None or device is None:
        return table
    from latency.devices import resolve
    from latency.table import table_path

    path = table_path(luts, device)
    if not path.exists():
        resolve(device)
        raise UserError(f"there is no latency table {path}; make it with: fbnetv5 profile --device {device}")
    return path


def _search_config(
    *,
    flops: str | None,
    latency: str | None,
    table: Path | None,
    foreign: bool,
    tasks: tuple[str, ...],
    data: Path | None,
    size: str,
    space: "Space",
    seed: int,
    fields: Path | None,
) -> "SearchConfig":
    from fbnetv5.cost import parse_budgets, parse_resolution
    from fbnetv5.search.config import SearchConfig, read_fields
    from fbnetv5.tasks import check_names

    if (flops is None) == (latency is None):
        raise UserError("a search needs one budget: either --flops, such as 400M, or --latency, such as 8ms")
    if latency is not None and table is None:
        raise UserError("--latency needs a measured device: add --device cpu, or --table FILE")
    check_names(tasks)
    budgets = parse_budgets(flops or latency or "", unit="macs" if flops else "ms", tasks=tasks)
    return SearchConfig(
        budgets=budgets,
        space=space,
        data=None if data is None else str(data.resolve()),
        size=parse_resolution(size),
        table=None if table is None else str(table.resolve()),
        foreign_table=foreign,
        seed=seed,
        **({} if fields is None else read_fields(fields)),
    )


def _bar() -> Progress:
    """A progress bar on stderr, with time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not _is_first_process(),
    )


def _stages(bar: Progress) -> Callable[[str, int, int], None]:
    """Shows each stage of a work on a line of its own: (stage, done, total)."""
    lines: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in lines:
            lines[stage] = bar.add_task(stage, total=total, note="")
            if not console.is_terminal:
                _say(f"{stage}: {total}")
        bar.update(lines[stage], completed=done)

    return report


def _search_report(bar: Progress, folder: Path) -> "Callable[[SearchProgress], None]":
    """Shows the step, and each task's loss, expected cost and entropy; without a terminal, in a line now and then."""
    from fbnetv5.cost import format_cost
    from fbnetv5.search.config import SearchConfig

    config = SearchConfig.load(folder / "config.json")
    line = bar.add_task("search", total=config.total_steps, note="")

    def report(now: "SearchProgress") -> None:
        costs = {task: format_cost(cost, config.budgets[task].unit) for task, cost in now.expected_cost.items()}
        losses = {task: now.losses.get(task, float("nan")) for task in costs}
        short = ", ".join(f"{task} {losses[task]:.2f} {cost}" for task, cost in costs.items())
        bar.update(line, completed=now.step, description=now.phase, note=short)
        if not console.is_terminal and now.step % 100 == 0:
            tasks = "; ".join(
                f"{task} loss {losses[task]:.3f}, expected cost {cost}, entropy {now.entropy[task]:.3f}"
                for task, cost in costs.items()
            )
            _say(f"step {now.step} of {config.total_steps}, {now.phase}: {tasks}")

    return report


def _print_ranges(ranges: "Sequence[CostRange]") -> None:
    from fbnetv5.cost import format_cost

    for found in ranges:
        costs = [format_cost(value, found.unit) for value in (found.cheapest, found.expected, found.dearest)]
        _say(f"{found.task}: networks of this space cost {costs[0]} to {costs[2]}, a random one {costs[1]}")


def _print_plan(path: Path, lacking: "Plan", *, as_json: bool) -> None:
    if as_json:
        print_json({"table": str(path), "blocks": list(lacking.blocks), "networks": list(lacking.networks)})
        return
    for key in (*lacking.blocks, *lacking.networks):
        print_line(key)
    print_line(f"{path} lacks {len(lacking.blocks)} blocks and {len(lacking.networks)} networks")


def _print_profiled(path: Path, profiled: "Profiled", keys: list[str], *, as_json: bool) -> None:
    from fbnetv5.profiling import document

    table, correction = profiled.table, profiled.table.correction
    if as_json:
        print_json({"table": str(path), **document(profiled, keys)})
        return
    print_line(
        f"{path}: {len(keys)} blocks and {len(table.networks)} whole networks, {len(profiled.measured)} measured now; "
        f"a call that does nothing takes {table.overhead_ms:.4f} ms"
    )
    if unstable := table.unstable:
        print_line(f"{len(unstable)} of them varied by more than {table.timing.max_cv:.0%}: is other work running?")
    if correction is None:
        print_line("not corrected, since no whole network was measured: expect the sum of blocks to be off")
        return
    chosen = "is used" if correction.helps else "does not help and is NOT used: the plain sum is"
    others = correction.held_out.networks
    print_line(f"correction fitted on {correction.fitted_on} networks {chosen}; errors on {others} others:")
    _print_report(correction.held_out)


def _print_report(found: "Report") -> None:
    judged = {"table": found.predicted, "plain sum of blocks": found.isolated, "multiply-adds": found.flops}
    rows = [
        [
            name,
            f"{errors.mape:.2%}",
            f"{errors.bias:+.2%}",
            f"{errors.within_5:.0%}",
            f"{errors.within_10:.0%}",
            f"{errors.kendall_tau:.3f}",
        ]
        for name, errors in judged.items()
        if errors is not None
    ]
    print_table(["predicted by", "mean error", "bias", "within 5 %", "within 10 %", "rank (tau)"], rows)
    print_line(f"the networks' own repeats differ by {found.noise:.2%}")


def _print_found(folder: Path, found: "dict[str, Architecture]", *, as_json: bool) -> None:
    if as_json:
        print_json({"run": str(folder), "architectures": {task: one.to_json() for task, one in found.items()}})
        return
    rows = [
        [
            task,
            f"{one.macs / 1e6:.1f}M",
            f"{one.params / 1e6:.2f}M",
            "-" if one.latency_ms is None else f"{one.latency_ms['value']:.2f} ms",
            f"{one.provenance['score']:.3f} {one.provenance['metric']}",
            str(folder / f"{task}.json"),
        ]
        for task, one in found.items()
    ]
    print_table(["task", "multiply-adds", "params", "predicted", "held-out score", "file"], rows)


def _print_exported(exported: "list[Exported]") -> None:
    rows = []
    for one in exported:
        network = one.architecture
        rows.append(
            [
                network.task,
                f"{network.macs / 1e6:.1f}M",
                f"{network.params / 1e6:.2f}M",
                "-" if network.latency_ms is None else f"{network.latency_ms['value']:.2f} ms",
                f"{one.latency_ms_p50:.2f} ms",
                f"{one.metric_torch:.4f}",
                f"{one.metric_onnx:.4f}",
                f"{one.metric_name} @{one.metric_size[0]}x{one.metric_size[1]}",
                f"{max(parity.error for parity in one.parity):.1e}",
            ]
        )
    columns = ["task", "multiply-adds", "params", "predicted", "measured", "in torch", "in ORT", "metric", "parity"]
    print_table(columns, rows)


def _print_verdict(verdict: "Verdict") -> None:
    for problem in verdict.problems:
        place = "the file" if problem.node is None else f"node {problem.node} {problem.operator} {problem.name!r}"
        print_line(f"{place}: {problem.code} from the {problem.stage}: {problem.description}")
        if problem.hint:
            print_line(f"  hint: {problem.hint}")
    for remark in verdict.warnings:
        print_line(f"warning: {remark.message}")
        if remark.hint:
            print_line(f"  hint: {remark.hint}")
    if verdict.accepted:
        print_line(f"{verdict.runtime} {verdict.version} takes {verdict.file}: {verdict.nodes} nodes")


def _shape(shape: list[int] | None) -> str:
    return "" if shape is None else "x".join(str(side) for side in shape)
