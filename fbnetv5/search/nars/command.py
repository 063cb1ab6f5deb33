"""One search for a pair from its options to its result: ``fbnetv5.api.nars``, which ``fbnetv5 nars`` calls."""

from collections.abc import Callable
from pathlib import Path

from export.errors import UserError
from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.costs.budgets import check_has_table, some_budgets, with_memory
from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.describe import describe_data
from fbnetv5.runs.options import (
    Amount,
    Fields,
    Size,
    fields_of,
    find_table,
    path_of,
    run_folder,
    search_images,
    without_link,
)
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.entry import NarsEntry
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.run import NarsResult, run_nars, start_nars
from fbnetv5.search.nars.runner import choose_runner
from fbnetv5.search.nars.scope import searched_networks
from fbnetv5.search.nars.table import profile_options
from fbnetv5.training.notes import describe_teacher_fit

Started = Callable[[Path, Prepared], None]
"""Called with the run folder and its opened configuration when all inputs are checked, before the first training."""


def nars(
    *,
    task: str = "cls",
    flops: Amount | None = None,
    latency: Amount | None = None,
    params: Amount | None = None,
    memory: Amount | None = None,
    arch: AnyPath | None = None,
    space: str = "stages",
    width: float = 1.0,
    device: str | None = None,
    table: AnyPath | None = None,
    teacher: str | None = None,
    data: AnyPath | None = None,
    size: Size | None = None,
    fit: str | None = None,
    config: Fields | None = None,
    seed: int = 0,
    name: str | None = None,
    runs: AnyPath = "runs",
    luts: AnyPath = "luts",
    jobs: int = 1,
    ray: str | None = None,
    gpus_per_trial: float = 0.0,
    log: Log = silent,
    started: Started = silent,
    report: Callable[[NarsEntry], None] = silent,
    progress: Progress = silent,
) -> NarsResult:
    """Search for an architecture together with its training recipe (NARS of FBNetV3, arXiv 2006.02049).

    Give one budget or several, which hold together; with ``arch`` none is needed.

    Examples:
        >>> result = api.nars(flops="40M@64x64", params="5M", log=print)
        >>> api.train(arch=result.run / "cls.json", init="scratch", config=result.run / "recipe.json")

    Args:
        task: task of the network.
        flops: maximum multiply-adds, head included, such as 4e8, "400M" or "40M@64x64".
        latency: maximum latency in milliseconds, such as 8.0 or "8ms"; needs ``device`` or ``table``.
        params: maximum number of parameters, such as 5e6 or "5M".
        memory: maximum peak activation memory, such as 8e6 bytes or "8MB": a limit beside other budgets, see
            ``fbnetv5.costs.memory``.
        arch: architecture file: search the recipe of this network alone.
        space: space of the architectures, "stages" (FBNetV3's own) or "four-path" (FBNetV5's).
        width: factor of all widths of the space of stages.
        device: device whose latency table in ``luts`` predicts latency: "cpu", or an NVIDIA GPU such as "a100".
        table: latency table file, also of another machine, instead of ``device``.
        teacher: trained network to imitate: an architecture or ONNX file, an exported folder, "timm:NAME", or
            "soft-labels" for the probabilities that ``label`` stored with the images.
        data: folder of images and labels in one of the known layouts; None for the demo scenes.
        size: height and width in pixels that images are fitted to; None for the budget's, or 64x64 for demo scenes.
        fit: "stretch" or "letterbox"; None for letterbox if det learns from a folder, else stretch.
        config: further fields of ``NarsConfig``, such as {"iterations": 2}, or a file with them.
        seed: of everything random.
        name: of the run folder; None for the date and time.
        runs: folder in which the run folder is made.
        luts: folder of latency tables.
        jobs: trainings at the same time on this machine.
        ray: address of a Ray cluster that runs the trainings, or "auto" for that of this machine.
        gpus_per_trial: GPUs of a training on the Ray cluster; may be a fraction.
        log: called with lines for the user.
        started: called with the run folder and its opened configuration before the first training.
        report: called with the state of the search after every batch of trainings.
        progress: called with (stage, done, total) during the trainings.

    Returns:
        The best pair; its files are in the run folder.

    Raises:
        UserError: an option is wrong, a budget is out of range, or the run folder exists already.
        UnavailableError: the device, Ray, or the library of a teacher is not on this machine.
        VerificationError: all trainings failed.
    """
    runner, folder = choose_runner(jobs, ray, gpus_per_trial, progress), path_of(data)
    describe_data(folder, log)
    texts = some_budgets(flops, latency, params, with_memory({}, memory))
    check_has_table(texts, has_table=device is not None or table is not None)
    if not texts and arch is None:
        raise UserError("a search for an architecture needs a budget: --flops, --latency or --params; or --arch FILE")
    networks = searched_networks(task, texts, arch=path_of(arch), space=space, width=width)
    settings = NarsConfig.make(
        fields_of(config),
        task_name=task,
        teacher=teacher,
        data=search_images(folder, size, fit, tasks=[task], budgets=networks["budgets"], log=log),
        seed=seed,
        **networks,
    )
    describe_teacher_fit(settings.teacher, settings.data, log)
    file = find_table(device, table, Path(luts), log, profile_options(settings, Path(luts)))
    if file is not None:
        settings = settings.with_table(file, other_machine=table is not None)

    def show_ranges(constraints: Constraints) -> None:
        for line in constraints.ranges():
            log(line)

    run, prepared = start_nars(settings, run_folder(runs, name), show_ranges, log)
    started(run, prepared)
    return run_nars(run, prepared, runner, report)


def resume_nars(
    run: AnyPath,
    *,
    jobs: int = 1,
    ray: str | None = None,
    gpus_per_trial: float = 0.0,
    started: Started = silent,
    report: Callable[[NarsEntry], None] = silent,
    progress: Progress = silent,
) -> NarsResult:
    """Continue an interrupted search from its run folder; on one CPU process it ends with the same bytes.

    Examples:
        >>> api.resume_nars("runs/latest", jobs=2)

    Args:
        run: the run folder, which has all settings but the following three.
        jobs: trainings at the same time on this machine.
        ray: address of a Ray cluster that runs the trainings, or "auto" for that of this machine.
        gpus_per_trial: GPUs of a training on the Ray cluster; may be a fraction.
        started: called with the run folder and its opened configuration before the first training.
        report: called with the state of the search after every batch of trainings.
        progress: called with (stage, done, total) during the trainings.

    Raises:
        UserError: the folder is of another method, or damaged.
        UnavailableError: Ray, or the library of a teacher, is not on this machine.
        VerificationError: all trainings failed.
    """
    runner, folder = choose_runner(jobs, ray, gpus_per_trial, progress), without_link(run)
    prepared = prepare(NarsConfig.load(folder))
    started(folder, prepared)
    return run_nars(folder, prepared, runner, report)
