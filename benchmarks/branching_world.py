"""The experiment of ``benchmarks/branching.py``: scenes with a planted conflict, pretrained weights, and trainings.

Five tasks read the demo scenes. Segmentation, edges and saliency come from one mask, so sharing is right there by
construction; depth and the image's class differ. Saliency is planted to contradict the others: its map is inverted in
half of the images, chosen at random. Nothing in an image tells which, so its best prediction is one half everywhere,
and every feature that separates objects from the background only adds to its loss.

Every network and every supernet starts from the same weights, of an encoder that was trained for classification and
segmentation of other scenes, as the paper's start from ImageNet (arXiv 2008.10292, section 4).

Shape legend: L layers, T tasks.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.from_scratch import named_seed
from export.errors import VerificationError
from fbnetv5.architecture import shared_graph
from fbnetv5.blocks.specs import initialise
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import Batch, ImageSet, Sample, collate
from fbnetv5.data.scenes import CLASSES, Scenes, Split
from fbnetv5.evaluate import evaluate_network
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_tensors, save_tensors
from fbnetv5.runs.optimization import half_cosine
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.trees import Groups
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.tasks import make_tasks, needed_targets
from fbnetv5.training.average import MovingAverage

TASKS = ("cls", "seg", "edges", "depth", "saliency")
PLANTED = "saliency"
"""The task whose targets contradict those of the others."""
PRETRAINING_TASKS = ("cls", "seg")
WIDTH = 0.5
SIZE: Resolution = (64, 64)
COUNTS = (6000, 1500, 1000)
"""Scenes that weights learn from, that the routing learns from, and that networks are tested on."""
SCENES_SEED, PRETRAINING_SEED = 7000, 8000
WARMUP_STEPS = 50
CLIP_NORM = 5.0
EMA_DECAY = 0.99
SMOOTHING = 0.95
"""Decay of the moving averages of the losses, by which each task's loss is divided."""

Weights = Mapping[str, Mapping[str, Tensor]]
"""By node of the encoder, the tensors of its block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that determines the result of a trial besides its inputs."""

    folder: Path
    pretraining_steps: int
    training_steps: int
    soft_steps: int
    sampled_steps: int
    """As many as take about as long as the soft ones."""
    batch: int
    lr: float
    budget_share: float
    """Where the budget lies between the cost of sharing every layer, 0, and none, 1."""
    threads: int = 1

    def budget(self, shared: float, separate: float) -> float:
        """The budget in multiply-adds, from the costs of the two extremes."""
        return shared + self.budget_share * (separate - shared)


class PlantedScenes:
    """Demo scenes in which the planted task's map is inverted in a random half of the images."""

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self._scenes = scenes
        self._inverted = np.random.default_rng([seed, 1]).integers(0, 2, len(scenes)).astype(np.uint8)
        self.targets = scenes.targets

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        sample = self._scenes[index]
        if PLANTED not in sample.targets:
            return sample
        planted = sample.targets[PLANTED] ^ int(self._inverted[index])
        return Sample(image=sample.image, targets={**sample.targets, PLANTED: planted})

    def resized(self, size: Resolution) -> "PlantedScenes":
        """The same scenes at another size."""
        resized = PlantedScenes(self._scenes.resized(size), 0)
        resized._inverted = self._inverted
        return resized


@cache
def scenes(use: str, seed: int, size: Resolution = SIZE) -> PlantedScenes:
    """The scenes "weights", "policies" or "test" of a seed; composed once in each process."""
    uses = ("weights", "policies", "test")
    count = COUNTS[uses.index(use)]
    split: Split = "test" if use == "test" else "train"
    first = COUNTS[0] if use == "policies" else 0
    of_seed = SCENES_SEED + seed
    plain = Scenes(split, size=size, count=count, seed=of_seed, first=first, targets=needed_targets(TASKS))
    return PlantedScenes(plain, of_seed + uses.index(use))


def space_of(tasks: Sequence[str]) -> BranchingSpace:
    """The encoder of half the width with a copy of each layer per task."""
    return BranchingSpace(encoder="fbnetv3-a", width=WIDTH, copies=max(1, len(tasks)))


def search_config(plan: Plan, limit: float, **fields: Any) -> BranchConfig:
    """The configuration of a search within ``limit`` multiply-adds; ``fields`` replace its defaults."""
    every: dict[str, Any] = {
        "budget": Budget(limit=limit, unit="macs", resolution=SIZE),
        "task_names": TASKS,
        "encoder": "fbnetv3-a",
        "width": WIDTH,
        "data": DataConfig(size=SIZE),
        "batch": plan.batch,
        "weight_lr": plan.lr,
    }
    return BranchConfig(**(every | fields))


def tree_network(tasks: Sequence[str], groups: Sequence[Groups], seed: int, weights: Weights | None) -> Network:
    """The network of a tree; weights that are not given depend on the seed and the node's or task's name alone."""
    made = make_tasks(tuple(tasks), CLASSES)
    choices = {task: tuple(row[number] for row in groups) for number, task in enumerate(tasks)}
    with torch.random.fork_rng(devices=[]):
        network = Network(made, shared_graph(space_of(tasks), made, choices))
        for step in network.backbone.graph.steps:
            block = network.backbone.blocks[step.name]
            torch.manual_seed(named_seed(seed, step.node))
            initialise(block)
            if weights is not None:
                block.load_state_dict(weights[step.node])
        for name, task in made.items():
            torch.manual_seed(named_seed(seed, name))
            network.heads[name] = task.build_head(network.backbone.graph.channels(name))
    return network.to(memory_format=torch.channels_last)


def random_batches(images: ImageSet, *, batch: int, steps: int, seed: int) -> Iterator[Batch]:
    """Batches of images in an order that depends on the seed alone; every image once before any twice."""
    rng, order = np.random.default_rng([seed, 2]), np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = rng.permutation(len(images))
        picked, order = order[:batch].tolist(), order[batch:]
        yield collate([images[index] for index in picked], images.targets, picked)


def train(network: Network, images: ImageSet, *, steps: int, batch: int, lr: float, seed: int) -> Network:
    """Train all tasks jointly, each loss divided by its moving average; returns the average of the weights.

    Raises:
        VerificationError: the gradient is not finite.
    """
    average = MovingAverage(network, decay=EMA_DECAY)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02, fused=True)
    scales: Tensor | None = None
    network.train()
    for step, images_and_labels in enumerate(random_batches(images, batch=batch, steps=steps, seed=seed)):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / WARMUP_STEPS, half_cosine(step / steps))
        raw = network.raw(normalise(images_and_labels.images))
        losses = torch.stack([task.losses(raw[name], images_and_labels).mean() for name, task in network.tasks.items()])
        now = losses.detach()
        scales = now if scales is None else SMOOTHING * scales + (1 - SMOOTHING) * now
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward((losses / scales).sum())
        if not torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)):
            raise VerificationError(f"the gradient is not finite at step {step}")
        optimizer.step()
        average.update(step + 1)
    return average.network


@torch.no_grad()
def test_losses(network: Network, images: ImageSet) -> dict[str, float]:
    """By task, the mean loss per image."""
    totals = dict.fromkeys(network.tasks, 0.0)
    for batch in in_order(images, batch=100):
        raw = network.raw(normalise(batch.images))
        for name, task in network.tasks.items():
            totals[name] += float(task.losses(raw[name], batch).double().sum()) / len(images)
    return totals


def train_tree(
    plan: Plan, tasks: Sequence[str], groups: Sequence[Groups], seed: int, weights: Weights
) -> tuple[Network, dict[str, Any]]:
    """The trained network of a tree, and its metrics and losses on the test scenes."""
    network = tree_network(tasks, groups, seed, weights)
    begin = time.perf_counter()
    images = scenes("weights", seed)
    average = train(network, images, steps=plan.training_steps, batch=plan.batch, lr=plan.lr, seed=seed)
    seconds = time.perf_counter() - begin
    test = scenes("test", seed)
    metrics = {name: evaluation.value for name, evaluation in evaluate_network(average, test, size=SIZE).items()}
    return average, {"metrics": metrics, "losses": test_losses(average, test), "seconds": seconds}


def pretrain(plan: Plan, seed: int) -> dict[str, Any]:
    """Train the encoder on scenes of another seed and write its weights."""
    space = space_of(PRETRAINING_TASKS)
    shared = [(0,) * len(PRETRAINING_TASKS)] * len(space.layers)
    network = tree_network(PRETRAINING_TASKS, shared, PRETRAINING_SEED + seed, None)
    images = Scenes(
        "train", size=SIZE, count=COUNTS[0], seed=PRETRAINING_SEED + seed, targets=needed_targets(PRETRAINING_TASKS)
    )
    trained = train(network, images, steps=plan.pretraining_steps, batch=plan.batch, lr=plan.lr, seed=seed)
    test = Scenes("test", size=SIZE, count=COUNTS[2], seed=PRETRAINING_SEED, targets=needed_targets(PRETRAINING_TASKS))
    save_tensors(weights_file(plan, seed), trained.backbone.blocks.state_dict())
    return {name: evaluation.value for name, evaluation in evaluate_network(trained, test, size=SIZE).items()}


def weights_file(plan: Plan, seed: int) -> Path:
    """The file of the pretrained encoder of a seed."""
    return plan.folder / f"encoder-{seed}.safetensors"


def pretrained(plan: Plan, seed: int) -> dict[str, dict[str, Tensor]]:
    """The pretrained weights of a seed, by node."""
    weights: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_tensors(weights_file(plan, seed)).items():
        node, _, rest = name.partition(".")
        weights.setdefault(node, {})[rest] = tensor
    return weights
