"""Reads what a run folder contains so far, for its page. A run may be unfinished: files that are missing are left out.

Files that are there and damaged, or of a newer version, are errors: a page must not show half of a result.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json
from export.manifest import NAME as MANIFEST
from export.manifest import Manifest, read_unverified_manifest
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.costs.budgets import MEMORY
from fbnetv5.labeling.assemble import LABELS
from fbnetv5.runs.config import NAME as CONFIG
from fbnetv5.runs.config import Run, read_config
from fbnetv5.runs.folder import BRANCHED
from fbnetv5.runs.history import NAME as HISTORY
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.nars.trial import RESULT, TrialResult, read_result
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.spaces.graph import Variable
from fbnetv5.training.run import EVALUATION

LABELLING = "label"
"""Kind of the folder of ``fbnetv5 label``, which has no ``config.json``."""
PARETO = "pareto.json"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run folder."""

    folder: Path
    kind: str
    """The method: "search", "later-task", "branch", "nars", "training", "derivation" or "label"."""
    config: dict[str, Any]
    """Of ``config.json``; of a labelling, its settings."""

    @cached_property
    def run(self) -> Run:
        """Tasks and images of the run; not of a labelling."""
        return Run.load(self.folder)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the run's tasks."""
        return self.run.tasks

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The entries of the history in order; none if the run has not begun."""
        return read_history(self.folder / HISTORY)

    @cached_property
    def pareto(self) -> dict[str, Any] | None:
        """The document of the Pareto fronts or trials; None before the end of a search."""
        required = {"search": "tasks", "later-task": "tasks", "branch": "points", "nars": "trials"}.get(
            self.kind, "schema"
        )
        return _optional(self.folder / PARETO, "Pareto front", required)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """The figures on the test images; None before the end of a training."""
        return _optional(self.folder / EVALUATION, "evaluation", "tasks")

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """The networks of the run by file name, those of one task in the order of tasks."""
        names = dict.fromkeys([*self.tasks, "+".join(self.tasks), BRANCHED])
        files = {name: self.folder / f"{name}.json" for name in names}
        return {name: load_architecture(file) for name, file in files.items() if file.exists()}

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """The decisions of a search, from its networks or, before it has any, from its settings.

        Raises:
            UserError: the settings are of another version.
        """
        for network in self.architectures.values():
            return network.space.variables
        if self.kind == "branch":
            return BranchConfig.load(self.folder).space.variables
        return SearchConfig.load(self.folder).space.variables

    @property
    def budgets(self) -> dict[str, dict[str, Any]]:
        """The budgets of a search, each with its limit and unit, by the name of its costs in the history.

        That of memory has no costs there. The name is the task, and its unit where the task has several budgets; of a
        branched network it is "".
        """
        if isinstance(self.config.get("budget"), dict):
            return {"": self.config["budget"]}
        by_task = self.config.get("budgets")
        named: dict[str, dict[str, Any]] = {}
        for task, own in by_task.items() if isinstance(by_task, dict) else ():
            budgets = [budget for budget in own if budget["unit"] != MEMORY] if isinstance(own, list) else [own]
            named |= {f"{task}/{each['unit']}" if len(budgets) > 1 else task: each for each in budgets}
        return named

    @cached_property
    def exports(self) -> dict[Path, Manifest]:
        """The exported folders inside of the run folder."""
        folders = sorted(path.parent for path in (self.folder / "export").glob(f"*/{MANIFEST}"))
        return {folder: read_unverified_manifest(folder) for folder in folders}

    @cached_property
    def trials(self) -> dict[int, TrialResult]:
        """The finished trials of a search for pairs, by number."""
        folders = sorted(path.parent for path in (self.folder / "trials").glob(f"*/{RESULT}"))
        results = {int(folder.name): read_result(folder) for folder in folders if folder.name.isdigit()}
        return {number: result for number, result in results.items() if result is not None}

    @property
    def finished(self) -> bool:
        """Whether the run has written its results."""
        if self.kind == LABELLING:
            return (self.folder / LABELS).exists()
        if self.kind == "derivation":
            return bool(self.architectures)
        if self.kind == "training":
            done = self.history[-1]["step"] if self.history else 0
            return self.evaluation is not None or bool(done >= self.config.get("steps", 0))
        return self.pareto is not None


def open_run(folder: Path) -> RunFiles:
    """Open a run folder, or the folder of a labelling.

    Raises:
        UserError: there is no such folder, it is no run folder, or its settings are damaged or of another version.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}: name the folder of a run, such as runs/latest")
    if (folder / CONFIG).exists():
        document = read_config(folder)
        Run.load(folder)
        return RunFiles(folder=folder, kind=str(document.pop("kind")), config=document)
    if (folder / LABELS).exists():
        return RunFiles(folder=folder, kind=LABELLING, config=_labelling(folder / LABELS, "tasks", "images"))
    settings = folder / ".labeling" / "settings.json"
    if settings.exists():
        return RunFiles(folder=folder, kind=LABELLING, config=_labelling(settings))
    raise UserError(
        f"{folder} is no run folder, it has no {CONFIG} and no {LABELS}: name that of a fbnetv5 search, branch, nars, "
        "train or label"
    )


def _labelling(path: Path, *required: str) -> dict[str, Any]:
    """The document of a labelling with its settings and further required fields."""
    document = read_json(path, what="labelling", schema=1)
    for field in ("settings", *required):
        if field not in document:
            raise UserError(f"labelling file {path} is damaged: {field} is missing")
    return document


def _optional(path: Path, what: str, required: str) -> dict[str, Any] | None:
    """A document with a required field; None if there is no such file."""
    if not path.exists():
        return None
    document = read_json(path, what=what, schema=1)
    if required not in document:
        raise UserError(f"{what} file {path} is damaged: {required} is missing")
    return document


def read_history(path: Path) -> list[dict[str, Any]]:
    """The entries of a history; an incomplete last line, which a killed run leaves, is left out.

    Raises:
        UserError: the file cannot be read, or another line is damaged.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None and number < len(lines):
            raise UserError(f"{path} is damaged in line {number}: remove this line to report without it")
        if entry is not None:
            entries.append(entry)
    return entries


def _entry(line: str) -> dict[str, Any] | None:
    """The entry of a line; None if it is damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None
