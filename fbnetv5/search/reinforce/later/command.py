"""A task added to a finished search, from the options to the result: ``fbnetv5.api.add_task``.

``fbnetv5 search --add`` calls it.
"""

from collections.abc import Callable
from pathlib import Path

from export.errors import UserError
from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.data.config import DataConfig
from fbnetv5.runs.options import (
    Amount,
    CostBudgets,
    Fields,
    describe_fit,
    fields_of,
    find_table,
    path_of,
    run_folder,
    without_link,
)
from fbnetv5.runs.start import describe_images
from fbnetv5.search.reinforce.command import SearchResult
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import profile_options, with_table
from fbnetv5.search.reinforce.later.budgets import budgets_of_task
from fbnetv5.search.reinforce.later.config import OF_THE_RUN, LaterConfig
from fbnetv5.search.reinforce.later.loop import LaterEntry
from fbnetv5.search.reinforce.later.prepare import LaterPrepared
from fbnetv5.search.reinforce.later.run import run_later, start_later
from fbnetv5.tasks import check_names

Started = Callable[[Path, LaterPrepared], None]
"""Called with the folder and its opened configuration when all inputs are checked, before the first step."""


def add_task(
    task: str,
    *,
    run: AnyPath = "runs/latest",
    flops: Amount | None = None,
    latency: Amount | None = None,
    params: Amount | None = None,
    costs: CostBudgets | None = None,
    memory: Amount | None = None,
    device: str | None = None,
    table: AnyPath | None = None,
    data: AnyPath | None = None,
    strict_data: bool = False,
    config: Fields | None = None,
    seed: int = 0,
    name: str | None = None,
    luts: AnyPath = "luts",
    log: Log = silent,
    started: Started = silent,
    report: Callable[[LaterEntry], None] = silent,
    progress: Progress = silent,
) -> SearchResult:
    """Add a task to a finished search: train its head on the frozen trunk, and find its network.

    Nothing of the run changes; the files are in ``added/TASK`` in its folder. ``resume_search`` continues an
    interrupted one.

    Examples:
        >>> depth = api.add_task("depth", run="runs/latest").architectures["depth"]

    Args:
        task: name of the task.
        run: the run folder of a finished search.
        flops: maximum multiply-adds; without this and the next three, the budgets that all tasks of the run have.
        latency: maximum latency in milliseconds.
        params: maximum number of parameters.
        costs: maximum cost per cost file, such as {"energy.json": 5.0}, or by the name of a cost of the run.
        memory: maximum peak activation memory, such as 8e6 bytes or "8MB", beside another of these budgets.
        device: device whose latency table in ``luts`` predicts latency.
        table: latency table file; without it and ``device``, the table of the run is used.
        data: folder of images with labels of the task; None for the images of the run.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        config: further fields of ``LaterConfig``, such as {"steps": 300}, or a file with them.
        seed: of everything random.
        name: of the folder in ``added``; None for the name of the task.
        luts: folder of latency tables.
        log: called with lines for the user.
        started: called with the folder and its opened configuration before the first step.
        report: called with the state of the head after every step.
        progress: called with (stage, done, total) while networks are compared at the end.

    Raises:
        UserError: the run is not that of a finished search, or has the task; the images have no labels of it; the
            budget is out of range; or the folder exists already.
        UnavailableError: the device is not on this machine.
        VerificationError: a loss is not finite.
    """
    source = without_link(run)
    search = SearchConfig.load(source)
    check_names([task])
    if task in search.tasks:
        raise UserError(f"{source} has a network for {task}, {source / f'{task}.json'}; name another task")
    files, budgets = budgets_of_task(search, source, task, (flops, latency, params), costs, memory)
    search = search.changed(family={}, budgets={task: budgets}, costs=files)
    images = search.data if data is None else search.data.changed(folder=DataConfig.of(Path(data)).folder)
    needed = profile_options(search.changed(data=images), Path(luts))
    file = find_table(device, table, Path(luts), log, needed)
    search = with_table(source, search, file, other_machine=table is not None, log=log)
    describe_images(path_of(images.folder), log, strict=strict_data)
    describe_fit(images, log)
    settings = LaterConfig.make(
        fields_of(config),
        defaults={field: getattr(search, field) for field in OF_THE_RUN},
        run=str(source.resolve()),
        budgets=search.budgets,
        costs=search.costs,
        space=search.space,
        data=images,
        table=search.table,
        other_machine_table=search.other_machine_table,
        seed=seed,
    )
    target = run_folder(source / "added", task if name is None else name)
    folder, prepared = start_later(settings, target, log, needs_table=file is not None)
    started(folder, prepared)
    return SearchResult(run=folder, architectures=run_later(folder, prepared, report, progress))
