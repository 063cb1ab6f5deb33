"""One search from its options to its result: ``fbnetv5.api.search``, which ``fbnetv5 search`` calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.cost_files import open_costs
from fbnetv5.costs.ranges import CostRange
from fbnetv5.runs.options import (
    Amount,
    CostFamilies,
    Fields,
    Size,
    fields_of,
    find_table,
    run_folder,
    search_images,
)
from fbnetv5.runs.start import describe_images
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.family import derive_family, read_family
from fbnetv5.search.reinforce.prepare import Prepared
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.search.reinforce.table import profile_options
from fbnetv5.spaces.presets import DEFAULT, four_path_space
from fbnetv5.tasks import task_names

Started = Callable[[Path, Prepared], None]
"""Called with the run folder and its opened configuration when all inputs are checked, before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The networks that a search found."""

    run: Path
    """The run folder, with an architecture file and weights per task, and ``pareto.json``."""
    architectures: Mapping[str, Architecture]
    """By task: the network, its cost when deployed, and in its provenance the score on held-out images."""
    family: Mapping[str, Mapping[str, Architecture]] = field(default_factory=dict)
    """The networks of the family's other budgets by task, by the name of their folder in ``derived`` of the run."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 search --json``."""
        family = {label: _documents(architectures) for label, architectures in self.family.items()}
        document = {"run": str(self.run), "architectures": _documents(self.architectures)}
        return {**document, "family": family} if family else document


def _documents(architectures: Mapping[str, Architecture]) -> dict[str, Any]:
    return {task: architecture.to_json() for task, architecture in architectures.items()}


def search(
    *,
    flops: Amount | Sequence[Amount] | None = None,
    latency: Amount | Sequence[Amount] | None = None,
    params: Amount | Sequence[Amount] | None = None,
    costs: CostFamilies | None = None,
    memory: Amount | Sequence[Amount] | None = None,
    device: str | None = None,
    table: AnyPath | None = None,
    tasks: str | Sequence[str] | None = None,
    data: AnyPath | None = None,
    strict_data: bool = False,
    size: Size | None = None,
    fit: str | None = None,
    space: str = DEFAULT,
    variant: str = "a",
    stages: int = 4,
    blocks_per_path: int = 2,
    init: str = "scratch",
    config: Fields | None = None,
    seed: int = 0,
    name: str | None = None,
    runs: AnyPath = "runs",
    luts: AnyPath = "luts",
    log: Log = silent,
    started: Started = silent,
    report: Callable[[SearchEntry], None] = silent,
    progress: Progress = silent,
) -> SearchResult:
    """Search for one network per task, all in one run (FBNetV5, arXiv 2111.10007).

    Give a budget or several, which hold together, for each whole network, head included. A list of values for one of
    them is a family: the search runs for the middle one, and the networks of the others are derived from it.

    Examples:
        >>> from fbnetv5 import api
        >>> result = api.search(flops="400M", tasks=["cls", "det"], log=print)
        >>> macs = result.architectures["det"].cost.macs  # of the deployed network, at most 400 million

    Args:
        flops: maximum multiply-adds, such as 400e6, "400M" or per task "det=1.2G@320x640,400M".
        latency: maximum latency in milliseconds, such as 8.0, "8ms" or "900us"; needs ``device`` or ``table``.
        params: maximum number of parameters, such as 5e6 or "5M"; weights of convolutions and linear layers count.
        costs: maximum cost per cost file, such as {"energy.json": 5.0} or {"energy.json": "5mJ"}.
        memory: maximum peak activation memory, such as 8e6 bytes or "8MB": a limit beside other budgets, see
            ``fbnetv5.costs.memory``.
        device: device whose latency table in ``luts`` predicts latency: "cpu", or an NVIDIA GPU such as "a100".
        table: latency table file, also of another machine, instead of ``device``.
        tasks: names of the tasks; None for cls, det and seg.
        data: folder of images and labels in one of the known layouts; None for the demo scenes.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        size: height and width in pixels that images are fitted to; None for the budget's, or 64x64 for demo scenes.
        fit: "stretch" or "letterbox"; None for letterbox if det learns from a folder, else stretch.
        space: "default"; "strict", where only blocks of later stages may be skipped; or "wide", where each block also
            has a kernel, an expansion and squeeze-excite to choose, and each path a width.
        variant: FBNetV3 of stage 0 of the space: "a", "c", "f", "ac" or "a-lite".
        stages: number of stages after stage 0.
        blocks_per_path: number of blocks per path in each later stage.
        init: initial weights of stage 0: "scratch", "timm" for variant a, or a safetensors file of timm's fbnetv3_b.
        config: further fields of ``SearchConfig``, such as {"steps": 600}, or a file with them.
        seed: of everything random.
        name: of the run folder; None for the date and time.
        runs: folder in which the run folder is made.
        luts: folder of latency tables.
        log: called with lines for the user.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the search after every step.
        progress: called with (stage, done, total) while finalists are compared at the end.

    Returns:
        The networks; their files are in the run folder.

    Raises:
        UserError: an option is wrong, the budgets are out of range or exclude each other, or the run folder
            exists already.
        UnavailableError: the device, or timm's weights, are not on this machine.
        VerificationError: a loss is not finite.
    """
    folder = None if data is None else Path(data)
    describe_images(folder, log, strict=strict_data)
    names = task_names(tasks)
    chosen = four_path_space(space, variant=variant, stages=stages, blocks_per_path=blocks_per_path)
    files, limits = open_costs(costs, memory=memory)
    has_table = device is not None or table is not None
    budgets, family = read_family(flops, latency, params, limits, tasks=names, has_table=has_table)
    settings = SearchConfig.make(
        fields_of(config),
        budgets=budgets,
        family=family,
        costs=files,
        space=chosen,
        init=init,
        data=search_images(folder, size, fit, tasks=names, budgets=[own[0] for own in budgets.values()], log=log),
        seed=seed,
    )
    file = find_table(device, table, Path(luts), log, profile_options(settings, Path(luts)))
    if file is not None:
        settings = settings.changed(table=str(file.resolve()), other_machine_table=table is not None)

    def show_ranges(ranges: Sequence[CostRange]) -> None:
        for costs in ranges:
            log(costs.text)

    run, prepared = start_run(settings, run_folder(runs, name), show_ranges, log)
    return finish_search(run, prepared, started, report, progress)


def finish_search(
    run: Path, prepared: Prepared, started: Started, report: Callable[[SearchEntry], None], progress: Progress
) -> SearchResult:
    """Run or resume the search of a run folder to its end; arguments as of ``search``."""
    started(run, prepared)
    architectures = run_search(run, prepared, report, progress)
    return SearchResult(run=run, architectures=architectures, family=derive_family(run, prepared.config, progress))
