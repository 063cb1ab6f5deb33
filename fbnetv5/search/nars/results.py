"""Writes the results of a search for pairs: the network with its weights, the recipe, and all trials."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.files import atomic_write
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, Latency, load_architecture, make_architecture
from fbnetv5.costs.memory import memory_limit
from fbnetv5.runs.config import Run
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.trial import damaged
from fbnetv5.search.nars.trials import Trials
from fbnetv5.spaces.space import Choices
from fbnetv5.training.recipe import Recipe
from latency.estimate import EstimatedTable

RECIPE = "recipe.json"


def pair_architecture(prepared: Prepared, pair: Choices, **provenance: Any) -> Architecture:
    """The architecture of a pair [S + R], with its latency where there is a table."""
    config, latency = prepared.config, None
    (choices,) = prepared.pairs.architectures(pair[None])
    if prepared.table is not None:
        value = prepared.cost("ms").cost_of(choices)
        estimated = isinstance(prepared.table, EstimatedTable)
        latency = Latency(value=value, table=prepared.table.name, estimated=estimated)
    limit = memory_limit(config.space, prepared.task, config.budgets)
    return make_architecture(
        config.space,
        {config.task_name: choices},
        prepared.task.classes,
        config.resolution,
        latency_ms=latency,
        peak_activation_bytes=None if limit is None else int(limit.peak(choices[None])[0]),
        provenance={
            "version": __version__,
            "method": "nars",
            "seed": config.seed,
            "budgets": [{"limit": budget.limit, "unit": budget.unit} for budget in config.budgets],
            "trained_at": list(config.data.size),
            "fit": config.data.fit,
            "metric": prepared.task.metric.name,
            **({} if config.teacher is None else {"teacher": config.teacher}),
            **provenance,
        },
    )


def write_best(folder: Path, prepared: Prepared, trials: Trials, number: int) -> Architecture:
    """Write the architecture, weights and recipe of a trial as the result of the run.

    Raises:
        UserError: the trial's folder is damaged.
    """
    trial, task = trials.trial_folder(number), prepared.task.name
    weights = trial / f"{task}.safetensors"
    with damaged(trial):
        trained = load_architecture(trial / f"{task}.json")
        trained.load(weights)
    architecture = trained.changed(provenance={**trained.provenance, "trial": number})
    with atomic_write(folder / weights.name) as temporary:
        shutil.copyfile(weights, temporary)
    write_pair(folder, prepared.config, architecture, prepared.pairs.recipe(trials.pairs[number]))
    return architecture


def write_pair(folder: Path, config: NarsConfig, architecture: Architecture, recipe: Mapping[str, Any]) -> None:
    """Write an architecture and a recipe, which has the searched fields and those that all trainings had."""
    architecture.save(folder / f"{config.task_name}.json")
    fields = config.train_fields(recipe)
    Recipe(**{name: value for name, value in fields.items() if name in Recipe.model_fields}).save(folder / RECIPE)


def pareto_document(prepared: Prepared, trials: Trials) -> dict[str, Any]:
    """The document ``pareto.json``: every trial with its costs, recipe and scores."""
    pairs = trials.pairs
    statistics = prepared.statistics_of(prepared.pairs.architectures(pairs))
    units = [table.unit for table in prepared.statistics]
    rows = [
        {
            "trial": number,
            "cost": dict(zip(units, costs, strict=True)),
            "recipe": prepared.pairs.recipe(pairs[number]),
            "steps": list(result.steps),
            "scores": list(result.scores),
            "failure": result.failure,
        }
        for number, (result, costs) in enumerate(zip(trials.results, statistics.tolist(), strict=True))
    ]
    return {"schema": 1, "task": prepared.task.name, "metric": prepared.task.metric.name, "trials": rows}


def train_command(folder: Path, architecture: Architecture) -> str:
    """The command that trains the pair of a folder."""
    words = ["fbnetv5", "train", "--arch", f"{folder / architecture.file_name}.json", "--init", "scratch"]
    words += ["--config", str(folder / RECIPE)]
    data, teacher = Run.load(folder).data.folder, architecture.provenance.get("teacher")
    for option, value in (("--data", data), ("--teacher", teacher)):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
