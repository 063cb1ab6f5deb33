"""One search for a branched network from its options to its result: ``fbnetv5.api.branch``, for ``fbnetv5 branch``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.files import AnyPath
from export.progress import Log, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import format_cost, only_budget, parse_budgets
from fbnetv5.networks.pretrained import SCRATCH
from fbnetv5.runs.folder import BRANCHED
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
from fbnetv5.runs.start import describe_images
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.entry import BranchEntry
from fbnetv5.search.bmtas.prepare import Prepared, prepare
from fbnetv5.search.bmtas.run import run_branch, start_branch
from fbnetv5.search.bmtas.table import profile_options
from fbnetv5.search.bmtas.trees import TreeCosts
from fbnetv5.tasks import task_names

Started = Callable[[Path, Prepared], None]
"""Called with the run folder and its opened configuration when all inputs are checked, before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """The network of all tasks that a search found."""

    run: Path
    """The run folder, with the network, its weights and ``pareto.json``."""
    architecture: Architecture
    """The network, its cost when deployed, and in its provenance the scores on held-out images by task."""

    @property
    def file(self) -> Path:
        """The architecture file; the weights are beside it."""
        return self.run / f"{BRANCHED}.json"

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 branch --json``."""
        return {"run": str(self.run), "file": str(self.file), "architecture": self.architecture.to_json()}


def branch(
    *,
    flops: Amount | None = None,
    latency: Amount | None = None,
    device: str | None = None,
    table: AnyPath | None = None,
    tasks: str | Sequence[str] | None = None,
    encoder: str = "fbnetv3-a",
    init: str = SCRATCH,
    data: AnyPath | None = None,
    strict_data: bool = False,
    size: Size | None = None,
    fit: str | None = None,
    config: Fields | None = None,
    seed: int = 0,
    name: str | None = None,
    runs: AnyPath = "runs",
    luts: AnyPath = "luts",
    log: Log = silent,
    started: Started = silent,
    report: Callable[[BranchEntry], None] = silent,
) -> BranchResult:
    """Search for one network of all tasks, and where they branch (BMTAS, arXiv 2008.10292).

    Give one budget for the whole network, ``flops`` or ``latency``.

    Examples:
        >>> result = api.branch(flops="900M", tasks=["cls", "seg"], encoder="fbnetv3-a", log=print)
        >>> miou = result.architecture.provenance["scores"]["seg"]  # on held-out images

    Args:
        flops: maximum multiply-adds of the whole network, all heads included, such as 9e8, "900M" or "1.2G@320x640".
        latency: maximum latency in milliseconds, such as 20.0 or "20ms"; needs ``device`` or ``table``.
        device: device whose latency table in ``luts`` predicts latency: "cpu", or an NVIDIA GPU such as "a100".
        table: latency table file, also of another machine, instead of ``device``.
        tasks: names of the tasks; None for cls, det and seg.
        encoder: "fbnetv3-a" to "fbnetv3-g", "mobilenetv2", "efficientnet-lite0" or "resnet50".
        init: initial weights of the encoder: "scratch", "torchvision", "timm", or a safetensors file.
        data: folder of images and labels in one of the known layouts; None for the demo scenes.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        size: height and width in pixels that images are fitted to; None for the budget's, or 64x64 for demo scenes.
        fit: "stretch" or "letterbox"; None for letterbox if det learns from a folder, else stretch.
        config: further fields of ``BranchConfig``, such as {"steps": 600}, or a file with them.
        seed: of everything random.
        name: of the run folder; None for the date and time.
        runs: folder in which the run folder is made.
        luts: folder of latency tables.
        log: called with lines for the user.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the search after every step.

    Returns:
        The network; its files are in the run folder.

    Raises:
        UserError: an option is wrong, the budget is out of range, or the run folder exists already.
        UnavailableError: the device, or the library of the initial weights, is not on this machine.
        VerificationError: a loss is not finite.
    """
    folder, names = path_of(data), task_names(tasks)
    describe_images(folder, log, strict=strict_data)
    has_table = device is not None or table is not None
    texts = only_budget(flops, latency, has_table=has_table)
    (whole,) = parse_budgets(texts, tasks=("network",))["network"]
    settings = BranchConfig.make(
        fields_of(config),
        budget=whole,
        task_names=names,
        encoder=encoder,
        init=init,
        data=search_images(folder, size, fit, tasks=names, budgets=[whole], log=log),
        seed=seed,
    )
    file = find_table(device, table, Path(luts), log, profile_options(settings, Path(luts)))
    if file is not None:
        settings = settings.with_table(file, other_machine=table is not None)

    def show_range(costs: TreeCosts) -> None:
        log(_range_text(settings, costs))

    run, prepared = start_branch(settings, run_folder(runs, name), show_range, log)
    return _finish(run, prepared, started, report)


def resume_branch(
    run: AnyPath, *, started: Started = silent, report: Callable[[BranchEntry], None] = silent
) -> BranchResult:
    """Continue an interrupted search from its run folder; on one CPU process it ends with the same bytes.

    Examples:
        >>> api.resume_branch("runs/latest")

    Args:
        run: the run folder, which has all settings.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the search after every step.

    Raises:
        UserError: the folder is of another method, or damaged.
        VerificationError: a loss is not finite.
    """
    folder = without_link(run)
    return _finish(folder, prepare(BranchConfig.load(folder)), started, report)


def _finish(run: Path, prepared: Prepared, started: Started, report: Callable[[BranchEntry], None]) -> BranchResult:
    started(run, prepared)
    return BranchResult(run=run, architecture=run_branch(run, prepared, report))


def _range_text(config: BranchConfig, costs: TreeCosts) -> str:
    """The costs of the two extreme trees and of a uniform routing, in one line."""
    shared, uniform, separate = (
        format_cost(cost, costs.unit) for cost in (costs.all_shared, costs.uniform, costs.all_separate)
    )
    return (
        f"{config.space.label}: {shared} if all tasks share every layer, {uniform} expected of a uniform routing, "
        f"{separate} if they share none"
    )
