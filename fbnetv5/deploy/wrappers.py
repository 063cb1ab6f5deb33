"""What a derived network can be wrapped in before it is exported: its preprocessing, and the networks of other tasks.

Several tasks of one run may start alike: with the same blocks, on the same outputs, with the same weights and the same
batch-norm statistics. A joint network runs such blocks once and answers for all tasks, so one file does the work of
several and is smaller and faster than they are together. Nothing is made alike that is not: where the first difference
is, the ways part, and what comes after runs once for each.

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
    """A network that takes images as they are stored, uint8 [N, 3, H, W] in RGB, and normalises them itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(normalise(images))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What a joint network saves, at one resolution."""

    blocks_shared: int
    """Blocks that run once for two tasks or more."""
    blocks_separate: int
    """Blocks of the tasks' networks when each runs alone, all together."""
    macs_joint: int
    """Multiply-adds of the joint network, heads included."""
    macs_separate: int
    """Of the tasks' networks, each alone, all together."""

    @property
    def saved(self) -> float:
        """The share of multiply-adds that need not be done again, 0..1."""
        return 1 - self.macs_joint / self.macs_separate


class JointNetwork(nn.Module):
    """The networks of several tasks on one image: normalised [N, 3, H, W] -> the deployable outputs of all tasks.

    The weights are the given networks' own, not copies.
    """

    def __init__(self, networks: Mapping[str, TaskNetwork]) -> None:
        """Join networks.

        Args:
            networks: by name of their task; their outputs come in this order.

        Raises:
            UserError: no two of them share a block.
        """
        super().__init__()
        self.tasks = {name: network.task for name, network in networks.items()}
        self.space = next(iter(networks.values())).backbone.space
        self.backbone = JointBackbone(networks)
        self.heads = nn.ModuleDict({name: network.head for name, network in networks.items()})
        if not self.backbone.shared:
            raise UserError(
                f"the networks of {', '.join(networks)} share no block, so that one file of them would save nothing: "
                "export them one by one"
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Every task's outputs under its name, such as "det_boxes"."""
        return tuple(f"{name}_{output}" for name, task in self.tasks.items() for output in task.output_names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(images)
        return tuple(out for name, task in self.tasks.items() for out in task.deploy(self.heads[name](features[name])))

    def sharing(self, resolution: Resolution) -> Sharing:
        """What is saved on images of ``resolution``."""
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
    """The blocks of several tasks' backbones, equal ones once: [N, 3, H, W] -> by task, the features its head reads.

    A block that every task shares bears the name of its step, any other one the names of its tasks besides, such as
    "s1_p8_0_of_det" or "s0_p8_1_of_det_seg".
    """

    def __init__(self, networks: Mapping[str, TaskNetwork]) -> None:
        super().__init__()
        instances = _find_instances(networks)
        names = {one.key: _name(one, tuple(networks)) for one in instances}
        self.steps = tuple(
            replace(one.step, name=names[one.key], inputs=tuple(names[key] for key in one.inputs)) for one in instances
        )
        self.tasks_of = {names[one.key]: tuple(one.tasks) for one in instances}
        self.blocks = nn.ModuleDict({names[one.key]: one.module for one in instances})
        where = {(task, one.step.name): names[one.key] for one in instances for task in one.tasks}
        self.features = {
            task: tuple(where[task, network.backbone.graph.outputs[path]] for path in network.backbone.paths)
            for task, network in networks.items()
        }

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the blocks that run once for two tasks or more."""
        return tuple(name for name, tasks in self.tasks_of.items() if len(tasks) > 1)

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        values = run_steps(self.steps, lambda step: self.blocks[step.name], images)
        return {task: [values[name] for name in names] for task, names in self.features.items()}


_Key = tuple[str, str]
"""(step, first of the tasks it runs for): names an instance."""


@dataclass(slots=True, kw_only=True)
class _Instance:
    """A block that runs once."""

    step: Step
    inputs: tuple[_Key, ...]
    module: nn.Module
    tasks: list[str]
    """For which it runs."""

    @property
    def key(self) -> _Key:
        return self.step.name, self.tasks[0]

    def does(self, step: Step, inputs: tuple[_Key, ...], module: nn.Module) -> bool:
        """Whether this instance gives what ``module`` would at its step."""
        same = (self.step.name, self.step.block, self.inputs) == (step.name, step.block, inputs)
        return same and _equal_weights(self.module, module)


def _find_instances(networks: Mapping[str, TaskNetwork]) -> list[_Instance]:
    """The blocks to run, inputs before their readers."""
    instances: list[_Instance] = []
    for task, network in networks.items():
        own: dict[str, _Instance] = {}
        for step in network.backbone.graph.steps:
            inputs, module = tuple(own[name].key for name in step.inputs), network.backbone.blocks[step.name]
            known = next((one for one in instances if one.does(step, inputs, module)), None)
            if known is None:
                known = _Instance(step=step, inputs=inputs, module=module, tasks=[])
                instances.append(known)
            known.tasks.append(task)
            own[step.name] = known
    return instances


def _equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit, batch-norm statistics included; how many batches these are from changes nothing."""
    mine, theirs = (
        {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
        for module in (one, other)
    )
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def _name(one: _Instance, all_tasks: tuple[str, ...]) -> str:
    step, tasks = one.step.name, tuple(one.tasks)
    return step if tasks == all_tasks else f"{step}_of_{'_'.join(tasks)}"
