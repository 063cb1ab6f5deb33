"""The page of a run: which sections it has, by the kind of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv5 import __version__
from fbnetv5.architecture import Architecture
from fbnetv5.data.sample import ImageSet
from fbnetv5.deploy.report import curves, fronts, trials
from fbnetv5.deploy.report.exports import export_items
from fbnetv5.deploy.report.files import LABELLING, RunFiles
from fbnetv5.deploy.report.images import prediction_items
from fbnetv5.deploy.report.labels import label_sections
from fbnetv5.deploy.report.limits import limits
from fbnetv5.deploy.report.looks import METHODS, metric_of
from fbnetv5.deploy.report.networks import network_figure
from fbnetv5.deploy.report.policies import policy_figures, sharing_figure
from fbnetv5.deploy.report.settings import key_facts, settings_items
from latency.page.content import Facts, Figure, Figures, Item, Notes, Page, Section, Table, Text


def make_page(files: RunFiles, test: ImageSet | None = None) -> Page:
    """The contents of a run's page.

    Args:
        files: of the run.
        test: its test images, if they are open already.

    Raises:
        UserError: a file of the run is damaged or of another version.
    """
    sections = _label_page(files) if files.kind == LABELLING else _run_sections(files, test)
    return Page(
        title=files.folder.resolve().name,
        kicker=f"fbnetv5 {METHODS.get(files.kind, files.kind)}",
        lead=_lead(files),
        sections=[
            *(section for section in sections if section.items),
            Section(name="limits", title="What these figures do not show", items=[Notes(items=limits(files))]),
            Section(name="settings", title="Settings and versions", items=settings_items(files)),
        ],
        footer=f"Written by fbnetv5 {__version__} from {files.folder.resolve()}. This file loads nothing.",
    )


def _lead(files: RunFiles) -> list[Item]:
    """The most important sentence, and the settings that a reader looks for first."""
    items: list[Item] = []
    if not files.finished:
        items.append(
            Text(paragraphs=["This run is unfinished: the page shows what its folder has so far."], style="warning")
        )
    if files.kind == LABELLING:
        counts = {task: f"{counts['labelled']:,} images" for task, counts in files.config.get("tasks", {}).items()}
        images = {
            name.replace("_", " "): f"{files.config[name]:,}" for name in ("images", "left_out") if name in files.config
        }
        return [*items, Facts(values={"source": str(files.config["settings"]["images"]), **images, **counts})]
    return [*items, *_result(files), key_facts(files)]


def _result(files: RunFiles) -> list[Item]:
    """A table of the networks of the result, and whether a search saw a signal."""
    if not files.architectures:
        return []
    rows = [row for name, network in files.architectures.items() for row in _network_rows(name, network, files)]
    head = ["task", "network", "multiply-adds, M", "parameters, M", "predicted latency", "metric", "value"]
    weak = [name for name, network in files.architectures.items() if not _has_signal(network)]
    sentence = (
        f"The search found no signal for {', '.join(weak)}: its predictions do not rank networks that it measured. "
        "Treat such a network as a random network within the budget, or search longer."
    )
    warning = [Text(paragraphs=[sentence], style="warning")] if weak else []
    return [*warning, Table(head=head, rows=rows, caption="Result")]


def _has_signal(network: Architecture) -> bool:
    panel = network.provenance.get("panel")
    return not isinstance(panel, Mapping) or bool(panel.get("has_signal", True))


def _network_rows(name: str, network: Architecture, files: RunFiles) -> list[list[str]]:
    """A row per task; the costs of a network of several tasks are in its first row."""
    where, scores = (
        "held-out",
        {network.name: network.provenance.get("score"), **network.provenance.get("scores", {})},
    )
    if files.evaluation is not None:
        where = "test"
        scores = {task: of_task["test"]["metric"]["value"] for task, of_task in files.evaluation["tasks"].items()}
    costs = [f"{network.cost.macs / 1e6:.1f}", f"{network.cost.params / 1e6:.2f}", network.latency_text]
    return [
        [
            task,
            f"{name}.json",
            *(costs if number == 0 else [""] * len(costs)),
            f"{where} {metric_of(task).label}",
            _number(scores.get(task)),
        ]
        for number, task in enumerate(network.choices)
    ]


def _run_sections(files: RunFiles, test: ImageSet | None) -> list[Section]:
    networks = [network_figure(name, network) for name, network in files.architectures.items()]
    of_method = {"search": _search, "branch": _branch, "nars": _nars, "training": _training}.get(files.kind)
    exported = export_items(files.exports) if files.architectures else []
    return [
        Section(name="networks", title="Networks", items=networks),
        *(of_method(files) if of_method else []),
        Section(name="predictions", title="Predictions", items=prediction_items(files, test)),
        Section(name="deployment", title="Latency and precision", items=exported),
    ]


def _search(files: RunFiles) -> list[Section]:
    history, variables = files.history, files.variables
    chosen = {name: network.choices[name] for name, network in files.architectures.items()}
    policies = policy_figures(
        history, "policies", [each.name for each in variables], [each.choices for each in variables], chosen
    )
    front = fronts.search_fronts(files.pareto, files.architectures) if files.pareto else []
    return [
        Section(name="pareto", title="Pareto fronts", items=[*_side_by_side(front), *_panel(files)]),
        Section(name="course", title="Course of the search", items=_curves(files, curves.SEARCH)),
        Section(name="policies", title="Policies", items=_side_by_side(policies)),
    ]


def _panel(files: RunFiles) -> list[Item]:
    """How well the panel's fit ranks networks that it was not fitted to."""
    rows = [
        [
            task,
            f"{panel['architectures']}",
            f"{panel['rank_correlation']:.2f}",
            f"{panel['p_value']:.3g}",
            "yes" if panel["has_signal"] else "no",
        ]
        for task, network in files.architectures.items()
        if isinstance(panel := network.provenance.get("panel"), Mapping)
    ]
    head = ["task", "networks not in the fit", "rank correlation", "p-value", "signal"]
    caption = "Predicted and measured losses of the panel (Spearman, one-sided)"
    return [Table(head=head, rows=rows, caption=caption)] if rows else []


def _branch(files: RunFiles) -> list[Section]:
    history, layers = files.history, files.variables
    names = [layer.name for layer in layers]
    routing = policy_figures(history, "routing", names, [layer.choices for layer in layers], {})
    sharing = sharing_figure(history, names)
    found = next(iter(files.architectures.values()), None)
    front = fronts.branch_front(files.pareto, found) if files.pareto else None
    return [
        Section(name="pareto", title="Pareto front", items=[front] if front else []),
        Section(name="course", title="Course of the search", items=_curves(files, curves.BRANCH)),
        Section(name="routing", title="Routing", items=[*([sharing] if sharing else []), *_side_by_side(routing)]),
    ]


def _curves(files: RunFiles, series: Sequence[curves.Series]) -> list[Item]:
    history, budgets = files.history, files.budgets
    figures = [curves.series_figure(history, curves.LOSSES)]
    if budgets:
        limits = [budget["limit"] for budget in budgets.values()]
        figures.append(curves.cost_figure(history, limits, next(iter(budgets.values()))["unit"]))
    figures += [curves.series_figure(history, each) for each in series]
    return _side_by_side([figure for figure in figures if figure is not None])


def _nars(files: RunFiles) -> list[Section]:
    task, best = files.tasks[0], None
    for network in files.architectures.values():
        best = network.provenance.get("trial")
    of_trials = trials.curves_figure(task, files.trials, best)
    costs = trials.trials_figure(files.pareto, best) if files.pareto else None
    figures = [figure for figure in (of_trials, costs) if figure is not None]
    pair = [] if files.pareto is None else _pair(files, best)
    return [
        Section(name="pair", title="Best pair", items=pair),
        Section(name="trials", title="Trials", items=_side_by_side(figures)),
        Section(name="predictor", title="Predictor", items=_side_by_side(trials.quality_figures(files.history))),
    ]


def _pair(files: RunFiles, best: int | None) -> list[Item]:
    assert files.pareto is not None
    recipe: dict[str, Any] = next((row["recipe"] for row in files.pareto["trials"] if row["trial"] == best), {})
    rows = [[name, str(value)] for name, value in recipe.items()]
    return [Table(head=["recipe", "value"], rows=rows, caption=f"Searched fields of trial {best}")] if rows else []


def _training(files: RunFiles) -> list[Section]:
    history = files.history
    figures = [curves.series_figure(history, curves.TRAINING_LOSSES)]
    figures += [curves.score_figure(history, task) for task in files.tasks]
    figures.append(curves.learning_rate_figure(history))
    return [
        Section(name="metrics", title="Metrics", items=_metrics(files)),
        Section(
            name="course", title="Course of the training", items=_side_by_side([f for f in figures if f is not None])
        ),
    ]


def _metrics(files: RunFiles) -> list[Item]:
    """The metric before and after the training, and all figures on the test images."""
    if files.evaluation is None:
        return []
    of_tasks, items = files.evaluation["tasks"], list[Item]()
    rows = [
        [
            task,
            metric_of(task).label,
            *(_number(of_task["held_out"][name]) for name in ("initial", "best")),
            _number(of_task["test"]["metric"]["value"]),
            f"{of_task['test']['images']}",
        ]
        for task, of_task in of_tasks.items()
    ]
    head = ["task", "metric", "held-out, initial", "held-out, best", "test", "test images"]
    items.append(Table(head=head, rows=rows))
    for task, of_task in of_tasks.items():
        figures = {name: value for name, value in of_task["test"]["figures"].items() if isinstance(value, int | float)}
        if figures:
            items.append(Facts(values={f"{task}: {name}": _number(value) for name, value in figures.items()}))
    return items


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _label_page(files: RunFiles) -> list[Section]:
    return label_sections(files) if files.finished else []


def _side_by_side(figures: Sequence[Figure]) -> list[Item]:
    return [Figures(items=figures)] if figures else []
