"""The command line: parses, calls the module that does the work, prints. Heavy packages load when a command runs."""

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from export.errors import CheckFailed, NotHere, UserError
from fbnetv5.printing import (
    UNEXPECTED,
    OutputClosedError,
    console,
    is_first_process,
    outermost,
    print_bundle,
    print_estimated,
    print_evaluated,
    print_exported,
    print_found,
    print_json,
    print_line,
    print_plan,
    print_profiled,
    print_ranges,
    print_table,
    print_trained,
    print_validation,
    print_verdict,
    print_verified,
    progress_bar,
    safe_streams,
    say,
    search_report,
    shape_text,
    stage_lines,
    train_report,
)

if TYPE_CHECKING:
    from export.graph import Exporter
    from fbnetv5.profiling import Scope
    from fbnetv5.search.config import SearchConfig
    from fbnetv5.space import Space
    from latency.backend import Backend

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One search, a network per vision task, within a budget of multiply-adds or of milliseconds on your device.",
)
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
NETWORKS = 48


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
        [
            row["name"],
            row["block"],
            f"{row['macs'] / 1e6:.3f}M",
            f"{row['params'] / 1e6:.4f}M",
            shape_text(row["output"]),
        ]
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
    precision: Annotated[str, typer.Option(help="Of the blocks: fp32, fp16 (GPUs only) or int8.")] = "fp32",
    variant: Variant = "a",
    stages: Stages = 4,
    blocks_per_path: Blocks = 2,
    resolution: Annotated[str, typer.Option(help="Deploy resolution, HEIGHTxWIDTH.")] = "224x224",
    tasks: Tasks = ALL_TASKS,
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
    backend = _resolve(device, precision=precision, threads=threads) if here else None
    from fbnetv5.cost import parse_resolution
    from fbnetv5.data.parts import classes_of
    from fbnetv5.profiling import Scope

    scope = Scope(
        space=_space(variant, stages, blocks_per_path, strict=False),
        tasks=_names(tasks),
        classes=classes_of(data),
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
    from fbnetv5.profiling import graphs_of, networks_to_fit, write_page
    from latency.profile import plan
    from latency.profile import profile as measure
    from latency.protocol import Timing
    from latency.table import table_path

    path, timing = table_path(luts, backend.device, backend.precision, threads=backend.threads), Timing()
    graphs, whole = graphs_of(scope), networks_to_fit(scope, networks)
    if dry_run:
        print_plan(path, plan(graphs, whole, path=path, backend=backend, timing=timing), as_json=as_json)
        return
    with progress_bar() as bar, _interruptible("run the same command again"):
        profiled = measure(graphs, whole, path=path, backend=backend, timing=timing, progress=stage_lines(bar))
    page = write_page(path, profiled.table, scope)
    print_profiled(path, page, profiled, [graph.key for graph in graphs], as_json=as_json)


def _verify(path: Path, scope: "Scope", networks: int, run: Path | None, *, as_json: bool) -> None:
    from fbnetv5.profiling import fresh_networks, networks_of, networks_to_fit
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
    from fbnetv5.profiling import graphs_of, networks_to_fit
    from latency.bundle import Target, write_bundle
    from latency.protocol import Timing

    target = Target(device=device, precision=precision, threads=threads)
    graphs, whole = graphs_of(scope), networks_to_fit(scope, networks)
    with progress_bar() as bar:
        written = write_bundle(graphs, whole, folder=folder, target=target, timing=Timing(), progress=stage_lines(bar))
    print_bundle(folder, written, as_json=as_json)


def _import(folder: Path, scope: "Scope", luts: Path, *, as_json: bool) -> None:
    from fbnetv5.profiling import write_page
    from latency.bundle import import_bundle

    path, profiled = import_bundle(folder, luts)
    page = write_page(path, profiled.table, scope)
    print_profiled(path, page, profiled, list(profiled.table.isolated_ms), as_json=as_json)


def _estimate(scope: "Scope", *, device: str, precision: str, luts: Path, as_json: bool) -> None:
    from fbnetv5.profiling import graphs_of
    from latency.devices import gpu
    from latency.estimate import estimate, estimated_path

    path, graphs = estimated_path(luts, device, precision), graphs_of(scope)
    with progress_bar() as bar:
        table = estimate(graphs, gpu(device), precision, path, stage_lines(bar))
    print_estimated(path, table, [graph.key for graph in graphs], as_json=as_json)


@app.command()
def search(
    context: typer.Context,
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
        Path | None, typer.Option(help="JSON or YAML file that sets any other field of the search, such as steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run; its date and time if not given.")] = None,
    runs: Runs = Path("runs"),
    luts: Luts = Path("luts"),
    resume: Annotated[Path | None, typer.Option(help="Run folder of a search to go on with.")] = None,
    json: Json = False,
) -> None:
    """Search a network for every task in one run."""
    from fbnetv5.runs.processes import links_closed, same_again
    from fbnetv5.search.run import run_search, start_run

    if resume is not None:
        _refuse_others(context)
        folder = resume
    else:
        _say_layout(data)
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
        folder = start_run(chosen, runs / _run_name(name), print_ranges, say)
    way_on = f"go on with: {same_again(f'search --resume {folder}')}"
    with links_closed(), progress_bar() as bar, _interruptible(way_on):
        found = run_search(folder, search_report(bar, folder), stage_lines(bar))
    if is_first_process():
        print_found(folder, found, as_json=json)


@app.command()
def train(
    context: typer.Context,
    task: Annotated[
        str | None, typer.Option(help="Task whose network to train; the architecture file says it too.")
    ] = None,
    arch: Annotated[Path | None, typer.Option(help="Architecture file; runs/latest/TASK.json if not given.")] = None,
    data: Data = None,
    init: Annotated[
        str,
        typer.Option(help="Where weights start: inherited (from the search), scratch, timm, or a .safetensors file."),
    ] = "inherited",
    size: Annotated[
        str | None, typer.Option(help="Size of the pictures, HEIGHTxWIDTH; that of the search if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make; trained/TASK if not given.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file that sets any other field of the training, such as steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[Path | None, typer.Option(help="Folder of a training to go on with.")] = None,
    json: Json = False,
) -> None:
    """Train one found network alone."""
    from fbnetv5.runs.processes import links_closed, same_again
    from fbnetv5.train import run_training, start_training

    if resume is not None:
        _refuse_others(context)
        folder = resume
    else:
        from fbnetv5.architecture import load_architecture
        from fbnetv5.cost import parse_resolution
        from fbnetv5.data.config import DataConfig
        from fbnetv5.evaluate import check_task, trained_size
        from fbnetv5.training.config import RECIPES, TrainConfig

        _say_layout(data)
        file = _architecture_file(task, arch)
        architecture = load_architecture(file)
        check_task(architecture, task, file)
        trained = trained_size(architecture) if size is None else parse_resolution(size)
        chosen = TrainConfig.make(
            config,
            defaults=RECIPES.get(architecture.task),
            task=architecture.task,
            init=init,
            data=DataConfig.of(data, size=trained),
            seed=seed,
        )
        folder = start_training(chosen, file, output or Path("trained") / architecture.task)
    way_on = f"go on with: {same_again(f'train --resume {folder}')}"
    with links_closed(), progress_bar() as bar, _interruptible(way_on):
        result = run_training(folder, train_report(bar, folder), say)
    if is_first_process():
        print_trained(result, as_json=json)


@app.command(name="eval")
def evaluate(
    task: Annotated[str | None, typer.Option(help="Task whose network to measure.")] = None,
    arch: Annotated[Path | None, typer.Option(help="Architecture file; runs/latest/TASK.json if not given.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Safetensors file; the one beside the architecture file if not given.")
    ] = None,
    data: Data = None,
    size: Annotated[
        str | None, typer.Option(help="Size of the pictures, HEIGHTxWIDTH; what it was trained at if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a network on the test pictures: top-1 and top-5, COCO's twelve figures, or IoU by class."""
    from fbnetv5.cost import parse_resolution
    from fbnetv5.evaluate import evaluate_file

    _say_layout(data)
    asked = None if size is None else parse_resolution(size)
    found = evaluate_file(_architecture_file(task, arch), task=task, weights=weights, data=data, size=asked)
    if json:
        print_json(found.to_json())
    else:
        print_evaluated(found)


@app.command()
def export(
    task: Annotated[
        str | None, typer.Option(help="Task to export, or several in one file: cls,det. Without it each of the run's.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/latest"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; RUN/export if not given.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8; every one above it is proven as well.")] = "fp32",
    max_drop: Annotated[
        float | None, typer.Option(help="Most that a metric may fall below torch's, such as 0.01; else exit code 1.")
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Nodes that int8 leaves alone, such as '/head/*'; may be repeated.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="What a detector answers: topk, decode or nms.")] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Take uint8 pictures; normalise inside the network.")
    ] = False,
    fixed_size: Annotated[bool, typer.Option("--fixed-size", help="Accept the deploy resolution only.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Accept any size; this is usual.")] = False,
    exporter: Annotated[
        str, typer.Option(help="Of torch's two: torchscript, which is fast, or dynamo.")
    ] = "torchscript",
    engine: Annotated[bool, typer.Option("--engine", help="Also build TensorRT engines; needs no GPU.")] = False,
    engine_config: Annotated[
        Path | None, typer.Option(help="JSON file of how engines are built, such as workspace_mb or timing_cache.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn a run's networks into validated ONNX files, and these into engines."""
    from export.options import EngineOptions
    from fbnetv5.deliverable import tasks_of
    from fbnetv5.exporting import ExportOptions, document, export_tasks, with_engine

    if fixed_size and dynamic_size:
        raise UserError("--fixed-size and --dynamic-size exclude each other")
    if head is not None and task is None:
        raise UserError("--head is of one task; add --task det")
    if engine and head == "nms":
        raise UserError("--head nms is for ONNX Runtime: TensorRT builds no engine of it. Leave out --engine")
    if engine_config is not None and not engine:
        raise UserError("--engine-config says how an engine is built; it needs --engine")
    options = ExportOptions(
        precision=precision,
        exporter=cast("Exporter", exporter),
        head=head,
        from_pixels=pixels,
        fixed_size=fixed_size,
        max_drop=max_drop,
        keep_float=tuple(keep_float or ()),
    )
    engine_options = EngineOptions.load(engine_config) if engine_config else EngineOptions()
    exported, missing = [], None
    with progress_bar() as bar:
        for names in [_names(task)] if task else [[name] for name in tasks_of(run)]:
            folder = (output or run / "export") / "+".join(names)
            one = export_tasks(run, names, folder, options, say, stage_lines(bar))
            if engine and missing is None:
                try:
                    one = with_engine(one, engine_options, say, outermost(stage_lines(bar)))
                except NotHere as error:
                    missing = error
            exported.append(one)
    if json:
        print_json(document(exported[0]) if task else {"exported": [document(one) for one in exported]})
    else:
        print_exported(exported)
    if missing is not None:
        raise NotHere(f"the ONNX files are written, and no engine was built: {missing}")


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(help="An exported folder, with its manifest.json.")], json: Json = False
) -> None:
    """Check on any machine that an exported folder still is the same network, and time it; needs no torch."""
    from fbnetv5.validating import validate_folder

    with progress_bar() as bar:
        validation, found = validate_folder(folder, say, outermost(stage_lines(bar)))
    if json:
        print_json({"folder": str(folder), **found})
    else:
        print_validation(found)
    if not validation.passed:
        failed = next(finding for finding in validation.findings if finding.passed is False)
        raise CheckFailed(f"{folder}: {failed.what}: {failed.detail}")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Any ONNX file.")], json: Json = False) -> None:
    """Ask NVIDIA's own parser whether TensorRT takes an ONNX file; needs no GPU."""
    from export.check import check as ask

    verdict = ask(file)
    if json:
        print_json(verdict.to_json())
    else:
        print_verdict(verdict)
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
    """Entry point: what the user can fix becomes one red line and an exit code; anything else is ours, and 70."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a GPU's locked clock is let go on the way out
    with safe_streams():
        _run_app()


def _run_app() -> None:
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", UserError.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", UserError.exit_code)
    except OutputClosedError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is left is a fault of this program
        traceback.print_exc()
        _fail(
            f"this is a fault of fbnetv5, not yours ({type(error).__name__}: {error}). Report it with the lines above, "
            "the command and what fbnetv5 doctor prints",
            UNEXPECTED,
        )


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


def _refuse_others(context: typer.Context) -> None:
    """Refuse flags beside ``--resume``: all that they could say is in the folder."""
    others = []
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in ("resume", "json"):
            others.append(f"--{name.replace('_', '-')}")
    if others:
        raise UserError(f"--resume goes on with what its folder says; leave out {', '.join(others)}")


def _run_name(name: str | None) -> str:
    if name is None:
        return time.strftime("%Y%m%d-%H%M%S")
    if name != Path(name).name or "\\" in name or name in ("", "..", "latest"):
        raise UserError(f"--name {name!r} is not the name of a run: it has no slashes; --runs says in which folder")
    return name


def _space(variant: str, stages: int, blocks_per_path: int, strict: bool) -> "Space":
    from fbnetv5.space import Space

    return Space(variant=variant, stages=stages, blocks_per_path=blocks_per_path, strict=strict)


def _say_layout(data: Path | None) -> None:
    """Say as what a folder of pictures is read."""
    if data is None or not is_first_process():
        return
    from fbnetv5.data.layouts import layout_of

    say(f"{data}: read as {layout_of(data).name}")


def _architecture_file(task: str | None, arch: Path | None) -> Path:
    if arch is not None:
        return arch
    if task is None:
        raise UserError("name a network: --task det for runs/latest/det.json, or --arch FILE")
    return Path("runs/latest") / f"{task}.json"


def _names(tasks: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in tasks.split(","))
    if len(set(names)) != len(names) or not all(names):
        raise UserError(f"--tasks {tasks!r} is not a list of different tasks, such as {ALL_TASKS}")
    return names


def _resolve(device: str, *, precision: str = "fp32", threads: int = 1) -> "Backend":
    """What times graphs on the device; where that is not here, the error says what else can be done."""
    from latency.devices import resolve

    try:
        return resolve(device, precision=precision, threads=threads)
    except NotHere as error:
        raise NotHere(
            f"{error}. Two other ways: measure it where it is, with what fbnetv5 profile --device {device} "
            f"--bundle DIR writes; or a rough table from its data sheet, with the same and --estimate"
        ) from None


def _table(device: str | None, table: Path | None, luts: Path) -> Path | None:
    """The latency table asked for by file or by device."""
    if table is not None or device is None:
        return table
    from latency.estimate import ESTIMATED
    from latency.table import table_path

    path = table_path(luts, device)
    if path.exists():
        return path
    measured = [found for found in sorted(luts.glob(f"{device}-*.json")) if ESTIMATED not in found.stem]
    if len(measured) == 1:
        say(f"the latency table is {measured[0]}")
        return measured[0]
    if measured:
        names = ", ".join(map(str, measured))
        raise UserError(f"{luts} has several latency tables of {device}: {names}; choose one with --table")
    _resolve(device)
    raise UserError(f"there is no latency table {path}; make it with: fbnetv5 profile --device {device}")


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
    from fbnetv5.data.config import DataConfig
    from fbnetv5.search.config import SearchConfig
    from fbnetv5.tasks import check_names

    if (flops is None) == (latency is None):
        raise UserError("a search needs one budget: either --flops, such as 400M, or --latency, such as 8ms")
    if latency is not None and table is None:
        raise UserError("--latency needs a measured device: add --device cpu, or --table FILE")
    check_names(tasks)
    budgets = parse_budgets(flops or latency or "", unit="macs" if flops else "ms", tasks=tasks)
    return SearchConfig.make(
        fields,
        budgets=budgets,
        space=space,
        data=DataConfig.of(data, size=parse_resolution(size)),
        table=None if table is None else str(table.resolve()),
        foreign_table=foreign,
        seed=seed,
    )
