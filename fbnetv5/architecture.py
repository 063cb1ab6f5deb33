"""The architecture file: all that is needed to rebuild a network of one task or several, checked when it is read.

Each task has its own choices in one space. The blocks share one set of weights: the network runs a block once for two
tasks that have the same choices from the images up to this block.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, Strict, model_serializer, model_validator
from torch import Tensor

from export.document import Document
from export.errors import UserError
from export.files import read_json, write_json
from fbnetv5.costs.tables import Counter
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_tensors, load_weights
from fbnetv5.runs.folder import BRANCHED
from fbnetv5.spaces import SpaceField
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.graph import Graph, merge
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import ClassNames, Task

SCHEMA = 3
KIND = "architecture"
OLD_CLASSES = {"labels": "label", "boxes": "boxes", "masks": "mask"}
"""Names of the targets in schema 1, which listed all three -> their names now."""


Names = Annotated[tuple[str, ...], Strict(False)]
Numbers = Annotated[tuple[int, ...], Strict(False)]
Side = Annotated[int, Field(gt=0)]


class Latency(Document):
    """A predicted latency."""

    title: ClassVar[str] = "latency_ms"
    value: Annotated[float, Field(ge=0.0)]
    table: str
    """Name of the latency table that predicts it."""
    estimated: bool = False
    """Whether the table was computed from a data sheet instead of measured."""


class Cost(Document):
    """Costs of the network at its deploy resolution, heads included."""

    title: ClassVar[str] = "cost"
    macs: Annotated[int, Field(ge=0)]
    params: Annotated[int, Field(ge=0)]
    latency_ms: Latency | None = None
    quantities: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default={})
    """By the unit of a budget in the quantity of a cost file, such as {"energy_mJ": 4.2}."""
    peak_activation_bytes: Annotated[int, Field(ge=0)] | None = None
    """Peak activation memory, where a search had a limit of it (``fbnetv5.costs.memory``)."""

    def in_unit(self, unit: str) -> float | None:
        """The cost in the unit of a budget, other than that of memory; None where it is not known."""
        latency_ms = None if self.latency_ms is None else self.latency_ms.value
        return {"macs": self.macs, "params": self.params, "ms": latency_ms, **self.quantities}.get(unit)

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields without those that are absent in files of a search without such budgets."""
        fields: dict[str, Any] = serialize(self)
        absent = {name for name in ("quantities", "peak_activation_bytes") if not getattr(self, name)}
        return {name: value for name, value in fields.items() if name not in absent}


class Architecture(Document):
    """A network of one task or several: one choice per variable of a space and task, and its cost when deployed."""

    title: ClassVar[str] = "architecture"
    space: SpaceField
    choices: Annotated[dict[str, Numbers], Field(min_length=1)]
    """Task -> a choice per variable."""
    classes: dict[str, Names]
    """Target -> names of its classes in the images that the network's run learned from."""
    resolution: Annotated[tuple[Side, Side], Strict(False)]
    """(height, width) of the deployed network's images."""
    cost: Cost
    provenance: dict[str, Any]
    """Origin of the network: version, seed, budget, score."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for choices in self.choices.values():
            self.space.check(choices)
        self.space.check_tasks(self.choices)
        check_resolution(self.resolution)
        return self

    @property
    def name(self) -> str:
        """Name of the task, or of the tasks, such as "cls+det"."""
        return "+".join(self.choices)

    @property
    def file_name(self) -> str:
        """Name of the network's files in a run folder, without their suffixes: "branched", or the tasks."""
        branched = len(self.choices) > 1 and isinstance(self.space, BranchingSpace)
        return BRANCHED if branched else self.name

    @property
    def task(self) -> str:
        """Name of the only task.

        Raises:
            UserError: the network has several.
        """
        if len(self.choices) > 1:
            raise UserError(f"this is one network for {self.name}; a network of one task is needed here")
        return next(iter(self.choices))

    @property
    def choices_array(self) -> Choices:
        """[S], of the only task."""
        return np.array(self.choices[self.task], dtype=np.int64)

    @property
    def latency_text(self) -> str:
        """The latency as text: "8.94 ms", "8.94 ms estimated", or "-" if there is none."""
        latency = self.cost.latency_ms
        if latency is None:
            return "-"
        return f"{latency.value:.2f} ms{' estimated' if latency.estimated else ''}"

    def make_tasks(self) -> dict[str, Task]:
        """The tasks on this architecture's classes."""
        return make_tasks(tuple(self.choices), self.classes)

    def make_task(self) -> Task:
        """The only task on this architecture's classes."""
        return self.make_tasks()[self.task]

    @cached_property
    def graph(self) -> Graph:
        """The live blocks; a block that tasks have in common runs once."""
        return shared_graph(self.space, self.make_tasks(), self.choices)

    def alone(self, task: str) -> "Architecture":
        """The network of one of the tasks by itself, with its cost."""
        return make_architecture(
            self.space, {task: self.choices[task]}, self.classes, self.resolution, provenance=self.provenance
        )

    def build(self) -> Network:
        """The network, with fresh weights."""
        return Network(self.make_tasks(), self.graph)

    def load(self, weights: Path) -> Network:
        """The network with the weights of a safetensors file.

        Raises:
            UserError: the file is missing, damaged or of another network.
        """
        network = self.build()
        load_weights(network, with_present_names(load_tensors(weights), self.name), weights)
        return network

    def to_json(self) -> dict[str, Any]:
        """The file's document."""
        return {"schema": SCHEMA, "kind": KIND, **super().to_json()}

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, self.to_json())


def shared_graph(space: Space, tasks: Mapping[str, Task], choices: Mapping[str, Any]) -> Graph:
    """The graph of several tasks that share one set of weights, each with its own choices [S]."""
    graphs = {
        name: space.graph(np.array(choices[name], dtype=np.int64), {name: task.paths}) for name, task in tasks.items()
    }
    return merge(graphs, lambda step, task, other: True)


def make_architecture(
    space: Space,
    choices: Mapping[str, Any],
    classes: ClassNames,
    resolution: Resolution,
    *,
    latency_ms: Latency | None = None,
    quantities: Mapping[str, float] | None = None,
    peak_activation_bytes: int | None = None,
    provenance: Mapping[str, Any],
) -> Architecture:
    """The record of a network, its multiply-adds and parameters counted."""
    count = Counter(resolution).graph(shared_graph(space, tasks := make_tasks(tuple(choices), classes), choices), tasks)
    return Architecture(
        space=space,
        choices={name: tuple(int(choice) for choice in of_task) for name, of_task in choices.items()},
        classes=dict(classes),
        resolution=resolution,
        cost=Cost(
            macs=count.macs,
            params=count.params,
            latency_ms=latency_ms,
            quantities=dict(quantities or {}),
            peak_activation_bytes=peak_activation_bytes,
        ),
        provenance=dict(provenance),
    )


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file; check that its choices fit its space and that its cost agrees with them.

    Raises:
        UserError: the file is missing, damaged, does not fit, or was edited so that its cost no longer agrees.
    """
    document = read_json(path, what="architecture", schema=(1, 2, SCHEMA))
    try:
        schema, kind = document.pop("schema"), document.pop("kind", KIND)
        if kind != KIND:
            raise UserError(f"it is a file of kind {kind!r}")
        architecture = Architecture(**(document if schema == SCHEMA else _from_older(document, schema)))
        _check_cost(architecture)
    except UserError as error:
        raise UserError(f"architecture file {path} is refused: {error}") from None
    return architecture


def with_present_names(tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Rename the tensors of older files, which had a single head because a network had a single task."""
    return {re.sub(r"^head\.", f"heads.{task}.", name): tensor for name, tensor in tensors.items()}


def _from_older(document: Mapping[str, Any], schema: int) -> dict[str, Any]:
    """Convert to the fields of schema 3: earlier schemas had a single task, and schema 1 other names of targets."""
    fields = dict(document)
    fields["choices"] = {str(fields.pop("task", None)): fields.get("choices")}
    match fields:
        case {"cost": {"latency_ms": {"table": str(table)} as latency} as cost}:
            estimated = table.endswith("-estimated")
            fields["cost"] = {**cost, "latency_ms": {**latency, "estimated": estimated}}
    classes = fields.get("classes")
    if schema == 1 and isinstance(classes, dict):
        if set(classes) != set(OLD_CLASSES):
            raise UserError(f"classes must have {', '.join(OLD_CLASSES)}")
        fields["classes"] = {OLD_CLASSES[kind]: names for kind, names in classes.items() if names}
    return fields


def _check_cost(architecture: Architecture) -> None:
    count = Counter(architecture.resolution).graph(architecture.graph, architecture.make_tasks())
    for unit in ("macs", "params"):
        counted, stated = getattr(count, unit), getattr(architecture.cost, unit)
        if stated != counted:
            raise UserError(f"it states {stated} {unit}, but its choices cost {counted}")
