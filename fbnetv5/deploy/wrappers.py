"""Wrappers around a derived network before export: its preprocessing, and the networks of other tasks.

The networks of several tasks of one run may begin with equal blocks: the same block on the same inputs, with the same
weights and the same batch-norm statistics. A joint network runs such blocks once and has the outputs of all tasks, so
one file replaces several and is smaller and faster than they are together. Different blocks are not merged: from the
first difference on, each task has its own blocks.

Shape legend: N images, H x W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.costs.tables import Counter
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.networks.backbone import TaskNetwork, run_steps
from fbnetv5.spaces.space import Step


class FromPixels(nn.Module):
    """A network that takes stored images, uint8 [N, 3, H, W] in RGB, and normalises them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(normalise(images))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The savings of a joint network at one resolution."""

    blocks_shared: int
    """Blocks that run once for two or more tasks."""
    blocks_separate: int
    """Total number of blocks if each task's network runs separately."""
    macs_joint: int
    """Multiply-adds of the joint network, heads included."""
    macs_separate: int
    """Total multiply-adds if each task's network runs separately."""

    @property
    def saved(self) -> float:
        """Share of multiply-adds that the joint network saves, 0..1."""
        return 1 - self.macs_joint / self.macs_separate


class JointNetwork(nn.Module):
    """The networks of several tasks on one image: normalised [N, 3, H, W] -> the deployable outputs of all tasks.

    It shares the weights of the networks that it joins, without copies.
    """

    def __init__(self, networks: Mapping[str, TaskNetwork]) -> None:
        """Join networks.

        Args:
            networks: networks by task; the outputs have this order.

        Raises:
            UserError: no two networks share a block.
        """
        super().__init__()
        self.tasks = {name: network.task for name, network in networks.items()}
        self.space = next(iter(networks.values())).backbone.space
        self.backbone = JointBackbone(networks)
        self.heads = nn.ModuleDict({name: network.head for name, network in networks.items()})
        if not self.backbone.shared:
            raise UserError(
                f"the networks of {', '.join(networks)} share no block, so one file would save nothing: "
                "export them one by one"
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs of every task with its name as prefix, such as "det_boxes"."""
        return tuple(f"{name}_{output}" for name, task in self.tasks.items() for output in task.output_names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(images)
        return tuple(out for name, task in self.tasks.items() for out in task.deploy(self.heads[name](features[name])))

    def sharing(self, resolution: Resolution) -> Sharing:
        """The savings on images of ``resolution``."""
        counter, tasks = Counter(resolution), self.backbone.tasks_of
        macs = {step.name: counter.block(step.block, step.stride).macs for step in self.backbone.steps}
        heads = sum(counter.head(task, self.space).macs for task in self.tasks.values())
        return Sharing(
            blocks_shared=len(self.backbone.shared),
            blocks_separate=sum(map(len, tasks.values())),
            macs_joint=sum(macs.values()) + heads,
            macs_separate=sum(macs[name] * len(tasks[name]) for name in macs) + heads,
        )


class JointBackbone(nn.Module):
    """The blocks of several tasks' backbones, equal blocks once: [N, 3, H, W] -> by task, the features of its head.

    A block that all tasks share has the name of its step. Any other block has the names of its tasks as suffix, such as
    "s1_p8_0_of_det" or "s0_p8_1_of_det_seg".
    """

    def __init__(self, networks: Mapping[str, TaskNetwork]) -> None:
        super().__init__()
        instances = _find_instances(networks)
        names = {instance.key: _name(instance, tuple(networks)) for instance in instances}
        self.steps = tuple(
            replace(instance.step, name=names[instance.key], inputs=tuple(names[key] for key in instance.inputs))
            for instance in instances
        )
        self.tasks_of = {names[instance.key]: tuple(instance.tasks) for instance in instances}
        self.blocks = nn.ModuleDict({names[instance.key]: instance.module for instance in instances})
        name_of = {(task, instance.step.name): names[instance.key] for instance in instances for task in instance.tasks}
        self.features = {
            task: tuple(name_of[task, network.backbone.graph.outputs[path]] for path in network.backbone.paths)
            for task, network in networks.items()
        }

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the blocks that run once for two or more tasks."""
        return tuple(name for name, tasks in self.tasks_of.items() if len(tasks) > 1)

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        values = run_steps(self.steps, lambda step: self.blocks[step.name], images)
        return {task: [values[name] for name in names] for task, names in self.features.items()}


_Key = tuple[str, str]
"""Key of an instance: (name of its step, first of its tasks)."""


@dataclass(slots=True, kw_only=True)
class _Instance:
    """A block that runs once."""

    step: Step
    inputs: tuple[_Key, ...]
    module: nn.Module
    tasks: list[str]
    """The tasks that use it."""

    @property
    def key(self) -> _Key:
        return self.step.name, self.tasks[0]

    def replaces(self, step: Step, inputs: tuple[_Key, ...], module: nn.Module) -> bool:
        """Whether this instance has the same output as ``module`` at its step."""
        equal = (self.step.name, self.step.block, self.inputs) == (step.name, step.block, inputs)
        return equal and _equal_weights(self.module, module)


def _find_instances(networks: Mapping[str, TaskNetwork]) -> list[_Instance]:
    """The blocks to run, in an order in which inputs precede their readers."""
    instances: list[_Instance] = []
    for task, network in networks.items():
        own: dict[str, _Instance] = {}
        for step in network.backbone.graph.steps:
            inputs, module = tuple(own[name].key for name in step.inputs), network.backbone.blocks[step.name]
            instance = next((shared for shared in instances if shared.replaces(step, inputs, module)), None)
            if instance is None:
                instance = _Instance(step=step, inputs=inputs, module=module, tasks=[])
                instances.append(instance)
            instance.tasks.append(task)
            own[step.name] = instance
    return instances


def _equal_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether weights and batch-norm statistics are bit-identical; the number of their batches is ignored."""
    first_state, second_state = (
        {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
        for module in (first, second)
    )
    if first_state.keys() != second_state.keys():
        return False
    return all(torch.equal(value, second_state[name]) for name, value in first_state.items())


def _name(instance: _Instance, all_tasks: tuple[str, ...]) -> str:
    step, tasks = instance.step.name, tuple(instance.tasks)
    return step if tasks == all_tasks else f"{step}_of_{'_'.join(tasks)}"
