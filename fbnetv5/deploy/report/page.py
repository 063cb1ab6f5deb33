"""The page of a run: which sections it has, by the kind of the run."""

from collections.abc import Mapping, Sequence

from fbnetv5 import __version__
from fbnetv5.data.sample import ImageSet
from fbnetv5.deploy.report.curves import (
    BRANCH,
    LOSSES,
    SEARCH,
    TRAINING_LOSSES,
    Series,
    cost_figure,
    learning_rate_figure,
    score_figure,
    series_figure,
)
from fbnetv5.deploy.report.exports import export_items
from fbnetv5.deploy.report.files import LABELLING, RunFiles
from fbnetv5.deploy.report.fronts import branch_front, search_fronts
from fbnetv5.deploy.report.images import prediction_items
from fbnetv5.deploy.report.labels import label_sections
from fbnetv5.deploy.report.limits import limits
from fbnetv5.deploy.report.looks import METHODS, metric_of
from fbnetv5.deploy.report.networks import network_figure
from fbnetv5.deploy.report.policies import policy_figures, sharing_figure
from fbnetv5.deploy.report.result import number_text, result_items
from fbnetv5.deploy.report.settings import key_facts, settings_items
from fbnetv5.deploy.report.trials import nars_sections
from latency.page.content import Facts, Item, Notes, Page, Section, Table, Text, side_by_side


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
    return [*items, *result_items(files), key_facts(files)]


def _run_sections(files: RunFiles, test: ImageSet | None) -> list[Section]:
    networks = [network_figure(name, network) for name, network in files.architectures.items()]
    of_method = {
        "search": _search,
        "later-task": _later_task,
        "branch": _branch,
        "nars": nars_sections,
        "training": _training,
    }.get(files.kind)
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
    return [
        _fronts(files),
        Section(name="course", title="Course of the search", items=_curves(files, SEARCH)),
        Section(name="policies", title="Policies", items=side_by_side(policies)),
    ]


def _later_task(files: RunFiles) -> list[Section]:
    figures = [series_figure(files.history, LOSSES), learning_rate_figure(files.history)]
    return [_fronts(files), Section(name="course", title="Training of the head", items=side_by_side(figures))]


def _fronts(files: RunFiles) -> Section:
    """The Pareto front of each task, and the quality of the panel's fit."""
    front = search_fronts(files.pareto, files.architectures) if files.pareto else []
    return Section(name="pareto", title="Pareto fronts", items=[*side_by_side(front), *_panel(files)])


def _panel(files: RunFiles) -> list[Item]:
    """How well the panel's fit ranks networks that it was not fitted to."""
    rows = [
        [
            task,
            f"{panel['architectures']}",
            f"{panel['rank_correlation']:.2f}",
            f"{panel['p_value']:.3g}",
            f"{panel['evidence']:.1f}" if "evidence" in panel else "-",
            "yes" if panel["has_signal"] else "no",
        ]
        for task, network in files.architectures.items()
        if isinstance(panel := network.provenance.get("panel"), Mapping)
    ]
    head = ["task", "networks not in the fit", "rank correlation", "p-value", "evidence of effects, nats", "signal"]
    caption = (
        "Predicted and measured losses of the panel (Spearman, one-sided), and how much likelier its losses are with "
        "effects of blocks"
    )
    return [Table(head=head, rows=rows, caption=caption)] if rows else []


def _branch(files: RunFiles) -> list[Section]:
    history, layers = files.history, files.variables
    names = [layer.name for layer in layers]
    routing = policy_figures(history, "routing", names, [layer.choices for layer in layers], {})
    sharing = sharing_figure(history, names)
    network = next(iter(files.architectures.values()), None)
    front = branch_front(files.pareto, network) if files.pareto else None
    return [
        Section(name="pareto", title="Pareto front", items=[front] if front else []),
        Section(name="course", title="Course of the search", items=_curves(files, BRANCH)),
        Section(name="routing", title="Routing", items=[*([sharing] if sharing else []), *side_by_side(routing)]),
    ]


def _curves(files: RunFiles, series: Sequence[Series]) -> list[Item]:
    history, limits = files.history, dict[str, dict[str, float]]()
    figures = [series_figure(history, LOSSES)]
    for name, budget in files.budgets.items():
        limits.setdefault(budget["unit"], {})[name] = budget["limit"]
    figures += [cost_figure(history, of_unit, unit) for unit, of_unit in limits.items()]
    figures += [series_figure(history, each) for each in series]
    return side_by_side(figures)


def _training(files: RunFiles) -> list[Section]:
    history = files.history
    figures = [series_figure(history, TRAINING_LOSSES)]
    figures += [score_figure(history, task) for task in files.tasks]
    figures.append(learning_rate_figure(history))
    return [
        Section(name="metrics", title="Metrics", items=_metrics(files)),
        Section(name="course", title="Course of the training", items=side_by_side(figures)),
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
            *(number_text(of_task["held_out"][name]) for name in ("initial", "best")),
            number_text(of_task["test"]["metric"]["value"]),
            f"{of_task['test']['images']}",
        ]
        for task, of_task in of_tasks.items()
    ]
    head = ["task", "metric", "held-out, initial", "held-out, best", "test", "test images"]
    items.append(Table(head=head, rows=rows))
    for task, of_task in of_tasks.items():
        figures = {name: value for name, value in of_task["test"]["figures"].items() if isinstance(value, int | float)}
        if figures:
            items.append(Facts(values={f"{task}: {name}": number_text(value) for name, value in figures.items()}))
    return items


def _label_page(files: RunFiles) -> list[Section]:
    return label_sections(files) if files.finished else []
