"""The settings of a run, the versions and the machine."""

import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.manifest import installed_version
from fbnetv5 import __version__
from fbnetv5.costs.budgets import unit_words
from fbnetv5.deploy.report.files import RunFiles
from fbnetv5.deploy.report.looks import cost_text
from latency.page.content import Facts, Folded, Item, Table, Text
from latency.runtimes.onnxruntime import cpu_name

HIDDEN = ("schema", "tasks", "kind", "costs")


def key_facts(files: RunFiles) -> Facts:
    """The settings that a reader looks for first."""
    config, data = files.config, files.run.data
    values = {
        "tasks": ", ".join(files.tasks),
        "images": data.folder or "built-in demo scenes",
        "image size": f"{data.size[0]}x{data.size[1]}, {data.fit}",
        **_budgets(config),
        "steps": _steps(files),
        "seed": str(config.get("seed", "-")),
        "latency table": Path(config["table"]).stem if config.get("table") else "none",
    }
    return Facts(values={name: value for name, value in values.items() if value})


def _steps(files: RunFiles) -> str:
    config = files.config
    if "steps" in config:
        total = config["steps"] + config.get("warmup_steps", 0) if files.kind == "search" else config["steps"]
        return f"{files.history[-1]['step'] if files.history else 0} of {total}"
    return f"{len(files.trials)} trials" if files.kind == "nars" else ""


def _budgets(config: Mapping[str, Any]) -> dict[str, str]:
    """The budgets of any method, each with its resolution."""
    stored = config.get("budgets", config.get("budget"))
    if isinstance(stored, str):
        return {"budget": stored}
    if isinstance(stored, list):
        return {"budgets": ", ".join(map(_budget, stored))}
    if isinstance(stored, dict) and "limit" in stored:
        return {"budget": _budget(stored)}
    texts = {task: " and ".join(map(_budget, _as_list(own))) for task, own in (stored or {}).items()}
    if len(set(texts.values())) == 1:
        return {"budget of each task": next(iter(texts.values()))}
    return {f"budget of {task}": text for task, text in texts.items()}


def _as_list(budgets: Any) -> list[Any]:
    """A task's budgets, of which a file has a single one without a list."""
    return budgets if isinstance(budgets, list) else [budgets]


def _budget(budget: Mapping[str, Any]) -> str:
    cost = f"{cost_text(budget['limit'], budget['unit'])}{unit_words(budget['unit'])}"
    return f"{cost} at {'x'.join(map(str, budget['resolution']))}"


def settings_items(files: RunFiles) -> list[Item]:
    """All settings in a folded table, then versions and the machine."""
    rows = [[name, value] for name, value in _flat(files.config) if name.partition(".")[0] not in HIDDEN]
    found_by = {str(network.provenance.get("version", "")) for network in _networks(files)} - {""}
    facts = {
        **({"result made by": ", ".join(f"fbnetv5 {version}" for version in sorted(found_by))} if found_by else {}),
        "page written by": f"fbnetv5 {__version__}",
        "on": f"{cpu_name()}, {platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": installed_version("torch"),
        "page written at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    remark = "The versions and the machine are those that wrote this page, at the end of the run or later."
    return [
        Folded(summary="All settings of the run", items=[Table(head=["field", "value"], rows=rows)]),
        Facts(values=facts),
        Text(paragraphs=[remark], style="soft"),
    ]


def _networks(files: RunFiles) -> list[Any]:
    return [] if files.kind == "label" else list(files.architectures.values())


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of nested objects by dotted name; a list of numbers is one value."""
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None or value == {} else str(value)
