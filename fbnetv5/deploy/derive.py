"""Derives the networks of another budget from a finished run, and writes them to a run folder of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from export.errors import UserError
from export.files import AnyPath
from export.progress import Log, Progress, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import Repeatable, budget_label, family_texts
from fbnetv5.costs.cost_files import CostFile, open_costs
from fbnetv5.data.resolution import Resolution, parse_resolution
from fbnetv5.deploy.deriving_methods import Method, Networks, known_costs, method_of
from fbnetv5.runs.derivation import DERIVED, DerivationConfig, write_derived
from fbnetv5.runs.folder import BRANCHED
from fbnetv5.runs.options import CostFamilies, Size, find_table, path_of, without_link
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.resolutions import ChosenNetworks, derive_resolutions, describe_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Derived networks, written."""

    folder: Path
    """The run folder that was made."""
    architectures: Mapping[str, Architecture]
    """By task; a network of all tasks under the name of its files, "branched"."""
    run: Path
    """The run folder that the networks come from."""
    recipe: dict[str, Any] | None = None
    """Recipe of its training, for a network without weights."""
    family: Mapping[str, "Derived"] = field(default_factory=dict)
    """The networks of the further values of a repeated budget, by the name of their folder."""

    @property
    def per_task(self) -> bool:
        """Whether there is a network per task, and not one of all tasks or a pair."""
        return self.recipe is None and BRANCHED not in self.architectures

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 derive --json``."""
        documents = {name: architecture.to_json() for name, architecture in self.architectures.items()}
        networks = {"architectures": documents} if self.per_task else {"architecture": next(iter(documents.values()))}
        recipe = {} if self.recipe is None else {"recipe": self.recipe}
        family = {"family": {label: member.to_json() for label, member in self.family.items()}} if self.family else {}
        return {"run": str(self.run), "folder": str(self.folder), **networks, **recipe, **family}


def derive(
    run: AnyPath,
    *,
    flops: Repeatable | None = None,
    latency: Repeatable | None = None,
    params: Repeatable | None = None,
    costs: CostFamilies | None = None,
    memory: Repeatable | None = None,
    device: str | None = None,
    table: AnyPath | None = None,
    luts: AnyPath = "luts",
    resolutions: str | Sequence[Size] | None = None,
    pool: Sequence[AnyPath] = (),
    output: AnyPath | None = None,
    log: Log = silent,
    progress: Progress = silent,
) -> Derived:
    """Derive the networks of another budget from a finished search, in seconds, and write them to a new run folder.

    Networks of ``search`` and ``branch`` come with the weights of their search; a pair of ``nars`` is an architecture
    and a recipe. Give one budget or several, which hold together; a branched network takes one. A list of values for
    one of them is a family: each value gets a folder. No folder is made if a value cannot be read or its folder exists;
    a value outside the range of costs ends the call, and the folders of the values before it stay.

    Examples:
        >>> smaller = api.derive("runs/latest", flops="200M").architectures["det"]
        >>> family = api.derive("runs/latest", flops=["200M", "300M"]).family  # the networks for 300M

    Args:
        run: the run folder of ``search``, ``branch`` or ``nars``, or the folder of ``add_task``.
        flops: maximum multiply-adds of the whole network, such as 7e8, "700M" or "1.2G@320x640"; a list for a
            family, as of the other budgets.
        latency: maximum latency in milliseconds, such as 20.0 or "20ms".
        params: maximum number of parameters, such as 5e6 or "5M".
        costs: maximum cost per cost file, such as {"energy.json": 3.0}, or by the name of a cost of the run, such as
            {"energy": 3.0}; for networks of ``search``.
        memory: maximum peak activation memory, such as 8e6 bytes or "8MB", beside another of these budgets; for
            networks of ``search`` and ``nars``.
        device: device whose latency table in ``luts`` predicts latency.
        table: latency table file, also of another machine; without it and ``device``, the table of the run is used.
        luts: folder of latency tables.
        resolutions: deploy resolutions to choose from, such as "128,160" or [128, (160, 320)]: each task of a search
            gets the network of the lowest loss, measured on images of its resolution. None for that of the budgets.
        pool: run folders of further ``search``es of the same space, tasks and images, such as those of other seeds. One
            fit to all panels chooses the networks, which get the weights of ``run``.
        output: folder to make, of one value of each budget; None for ``derived/BUDGET`` in the run folder.
        log: called with lines for the user.
        progress: called after every scored architecture of a search.

    Raises:
        UserError: networks of other budgets do not come from such a run, it is unfinished or damaged; the budget is out
            of range, or two are repeated; or a folder exists already.
        UnavailableError: the device has no table, and is not on this machine.
    """
    source = without_link(run)
    method = method_of(source)
    files, limits = open_costs(costs, known_costs(source) if costs else (), memory=memory)
    texts = family_texts(flops, latency, params, limits)
    if output is not None and len(texts) > 1:
        raise UserError("a repeated budget makes a folder per value, and --output names one: leave it out")
    sources = [source, *map(without_link, pool)]
    wanted = [_Wanted.of(sources, method, own, files, resolutions, path_of(output)) for own in texts]
    make_accelerator().wait_for_everyone()  # no process may find a folder that the first one has made already
    if len({networks.folder for networks in wanted}) < len(wanted):
        raise UserError("two values of the budget have one folder: give each member of a family once")
    file = find_table(device, table, Path(luts), log, method.profile_options(wanted[0].config, Path(luts)))
    options: dict[str, Any] = {"table": file, "other_machine": table is not None, "progress": progress}
    if pool:
        options["pool"] = sources[1:]
    first, *more = [_make(source, method, networks, options, log) for networks in wanted]
    return replace(first, family={derived.folder.name: derived for derived in more})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The networks to derive for one value of each budget."""

    config: Any
    """That of the run, with these budgets."""
    label: str
    folder: Path
    sizes: Sequence[Resolution]
    """Resolutions to choose from; none for that of the budgets."""

    @classmethod
    def of(
        cls,
        runs: Sequence[Path],
        method: Method,
        texts: Mapping[str, str],
        files: Sequence[CostFile],
        resolutions: str | Sequence[Size] | None,
        output: Path | None,
    ) -> Self:
        """The networks of budgets, as text by unit, from the first of the runs and the panels of the others.

        Raises:
            UserError: the budgets do not go with the run, only a run of ``search`` has what an option needs, or the
                folder exists already.
        """
        config = method.with_budgets(runs[0], texts)
        config = config.changed(costs=tuple(files)) if files else config
        if len(runs) > 1 and not isinstance(config, SearchConfig):
            raise UserError(f"--pool joins the panels of fbnetv5 search; {runs[0]} is no run of it")
        sizes = () if resolutions is None else _sizes(resolutions, texts)
        at = f"@{'+'.join('x'.join(map(str, size)) for size in sizes)}" if sizes else ""
        label = "+".join([f"{budget_label(texts)}{at}", *(other.resolve().name for other in runs[1:])])
        folder = output or runs[0] / DERIVED / label
        if folder.exists():
            raise UserError(f"{folder} exists already; remove it or choose another --output")
        return cls(config=config, label=label, folder=folder, sizes=sizes)


def _make(run: Path, method: Method, wanted: _Wanted, options: Mapping[str, Any], log: Log) -> Derived:
    """Derive networks and write them to their folder, in the first of several processes."""
    if wanted.sizes:
        networks: Networks = _chosen(run, wanted.config, wanted.sizes, options, log)
    else:
        networks = method.derive(run, wanted.config, **options)

    def write() -> Path:
        write_derived(wanted.folder, DerivationConfig.of(run, wanted.config, wanted.label), networks.write)
        return wanted.folder

    in_first_process(write)
    return Derived(folder=wanted.folder, architectures=networks.architectures, run=run, recipe=networks.recipe)


def _sizes(resolutions: str | Sequence[Size], texts: Mapping[str, str]) -> list[Resolution]:
    """The resolutions to choose from, each once.

    Raises:
        UserError: one of them is none, or a budget, of these texts by unit, names one too.
    """
    if named := [text for text in texts.values() if "@" in text]:
        raise UserError(f"the budget {named[0]} names its resolution: leave out --resolutions, or @HxW")
    sizes = resolutions.split(",") if isinstance(resolutions, str) else resolutions
    return list(dict.fromkeys(parse_resolution(size) for size in sizes))


def _chosen(
    run: Path, config: Any, sizes: Sequence[Resolution], options: Mapping[str, Any], log: Log
) -> ChosenNetworks:
    """The networks of the best resolutions; logs how they compare.

    Raises:
        UserError: the run is not of ``search``, or as of ``derive_resolutions``.
    """
    if not isinstance(config, SearchConfig):
        raise UserError(f"--resolutions compares the networks of fbnetv5 search; {run} is no run of it")
    networks = derive_resolutions(run, config, sizes, **options)
    for architecture in networks.architectures.values():
        log(describe_choice(architecture))
    return networks
