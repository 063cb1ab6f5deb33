"""Scores EVERY architecture of a small space for all three tasks with real shared weights, as ground truth for race.py.

The space: variant a with two later stages, 12 free variables of two choices (4096 architectures), the other stage-0
repeats and later blocks skipped, the other fusion edges kept. The weights are trained on the demo scenes under random
architectures. Then every architecture's loss is computed on the same chunks of held-out images with batch norm on the
statistics of the chunk, as in a step of the search that trains policies. The output of a block is cached by the block
and its inputs, so that 4096 networks take little longer than their heads.

    python -m benchmarks.ground_truth runs/ground-truth

Leaves ``benchmarks/ground_truth.npz``: per chunk and task the mean loss over all architectures, and each one's
deviation from it. With ``--wide 5`` it leaves ``wide-0.npz`` to ``wide-4.npz`` in the folder: five subspaces of the
wide space with the smallest and the largest choice of 12 variables: the widths of the four paths, whether four nodes
run, and four of the kernels, expansions and squeeze-excites. They share the weights. A killed run is resumed. Ends in
one JSON line.
"""

import argparse
import datetime as dt
import itertools
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.files import atomic_write
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.networks.backbone import run_graph
from fbnetv5.networks.supernet import Supernet
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.loop import SearchLoop, warmup_architecture
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Graph, Step
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.variants import widen_choices
from fbnetv5.spaces.wide import WideSpace

TASKS = ("cls", "det", "seg")
SPACE = FourPathSpace(stages=2, blocks_per_path=1)
WIDE = WideSpace(stages=2, blocks_per_path=1)
FREE = (
    "s0_p4_4",
    "s0_p8_1",
    "s0_p16_1",
    "s0_p16_6",
    "s0_p32_1",
    "s1_p8_0",
    "s1_p16_0",
    "s1_p32_from_p16",
    "s1_p32_0",
    "s2_p16_0",
    "s2_p32_from_p16",
    "s2_p32_0",
)
"""Names of the nodes with free variables."""
RUNS, BLOCK, WIDTH = "runs", "block", "width"
"""Kinds of variables of the wide space."""
DRAWN = 4
"""Variables of each of the first two kinds that a subspace of the wide space has, beside the four widths."""
DATA = Path(__file__).with_name("ground_truth.npz")
CHUNK = 64
"""Held-out images of one evaluation, the number of a step that trains policies."""
MAX_CHUNKS = 16

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subspace:
    """The architectures of a space that differ in a few variables, each with two of its choices."""

    space: Space
    fixed: Choices
    """[S]: the choices of the other variables."""
    free: tuple[int, ...]
    """[F]: numbers of the variables."""
    high: Choices
    """[F]: the second choice of each; the first is the variable's first."""

    def embed(self, free: Choices) -> Choices:
        """[B, S] from the choices 0 or 1 of the free variables [B, F]."""
        choices = np.tile(self.fixed, (len(free), 1))
        choices[:, self.free] = free * self.high
        return choices


def default_subspace() -> Subspace:
    """That of the default space: which of the nodes ``FREE`` run."""
    names = [variable.name for variable in SPACE.variables]
    fixed = np.array([int("_from_" in name) for name in names])
    return Subspace(
        space=SPACE, fixed=fixed, free=tuple(map(names.index, FREE)), high=np.ones(len(FREE), dtype=np.int64)
    )


def wide_subspace(seed: int) -> Subspace:
    """One of the wide space: the widths of all paths, and variables of the nodes ``FREE`` that are drawn by the seed.

    Four of these decide whether a node runs, and four what the block of another node is, so that all networks differ.
    Nodes run with the block of the default space where no variable is free.
    """
    default = default_subspace()
    fixed = widen_choices(default.embed(np.ones((1, len(FREE)), dtype=np.int64))[0], SPACE, WIDE)
    names = [variable.name for variable in WIDE.variables]
    rng = np.random.default_rng(seed)
    switches = rng.permutation([name for name in names if _kind(name) == RUNS])[:DRAWN].tolist()
    of_others = [name for name in names if _kind(name) == BLOCK and name.partition(".")[0] not in switches]
    drawn = {*switches, *rng.permutation(of_others)[:DRAWN].tolist()}
    free = tuple(number for number, name in enumerate(names) if _kind(name) == WIDTH or name in drawn)
    return Subspace(
        space=WIDE, fixed=fixed, free=free, high=np.array([WIDE.choice_counts[number] - 1 for number in free])
    )


def _kind(name: str) -> str:
    """What a variable of the wide space sets; "" if its node is not free."""
    owner, _, decision = name.partition(".")
    if decision == "width":
        return WIDTH
    return "" if owner not in FREE else BLOCK if decision else RUNS


def is_trained(space: Space) -> NDArray[np.bool_]:
    """[S]: whether a variable is free in some subspace, and so differs from step to step of the training."""
    return np.array([_kind(variable.name) != "" for variable in space.variables])


def everything() -> Choices:
    """[4096, F]: all choices of the free variables; row r has the binary digits of r."""
    return np.array(list(itertools.product(range(2), repeat=len(FREE))), dtype=np.int64)


class Training(SearchLoop):
    """A warm-up whose architectures differ only in variables that are free in some subspace."""

    @cached_property
    def fixed(self) -> Choices:
        """[S]: the choices of the other variables."""
        return (default_subspace() if self.supernet.space == SPACE else wide_subspace(0)).fixed

    def step(self) -> None:
        rng = np.random.default_rng([self.config.seed, self.done])
        drawn = warmup_architecture(self.supernet.space, rng)
        choices = np.where(is_trained(self.supernet.space), drawn, self.fixed)
        self.train_weights(next(self.weight_batches), choices, np.ones(len(TASKS)))


@dataclass(frozen=True, slots=True)
class Cached:
    """A block that runs once on the same inputs. ``cache`` has its outputs, so the ids of inputs stay valid."""

    block: Callable[..., Tensor]
    key: tuple[str, int]
    cache: dict[tuple[object, ...], Tensor]

    def __call__(self, *inputs: Tensor) -> Tensor:
        key = (*self.key, *map(id, inputs))
        if key not in self.cache:
            self.cache[key] = self.block(*inputs)
        return self.cache[key]


@torch.no_grad()
def score(supernet: Supernet, graphs: Sequence[Graph], batch: Batch) -> Floats:
    """[A, T]: mean loss of each architecture on the batch, batch norm on the batch's own statistics."""
    supernet.train()
    images = normalise(batch.images).contiguous(memory_format=torch.channels_last)
    cache: dict[tuple[object, ...], Tensor] = {}
    losses: dict[tuple[object, ...], float] = {}

    def module_of(step: Step) -> Cached:
        return Cached(supernet.module_of(step), (step.name, step.candidate), cache)

    def loss(name: str, read: list[Tensor]) -> float:
        task = supernet.tasks[name]
        key = (name, *map(id, read))
        if key not in losses:
            losses[key] = float(task.losses(supernet.head(name, read), batch).mean())
        return losses[key]

    def losses_of(graph: Graph) -> list[float]:
        features = run_graph(graph, module_of, images)
        return [loss(name, features[name]) for name in TASKS]

    return np.array([losses_of(graph) for graph in graphs])


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """The losses and costs of every architecture of the space."""

    means: NDArray[np.float32]
    """[chunks, T]: mean loss over all architectures."""
    deviations: NDArray[np.float16]
    """[A, chunks, T]: the difference of each architecture's loss to that mean."""
    macs: NDArray[np.float64]
    """[A, T]: multiply-adds of each task's live network at 224x224."""

    @property
    def losses(self) -> Floats:
        """[A, chunks, T]."""
        return self.means.astype(np.float64) + self.deviations.astype(np.float64)


def save(losses: Floats, macs: Floats, path: Path, about: dict[str, object]) -> None:
    """Write the data file from the losses [chunks, A, T]."""
    means = losses.mean(1)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            means=means.astype(np.float32),
            deviations=(losses - means[:, None]).transpose(1, 0, 2).astype(np.float16),
            macs=macs,
            about=np.array(json.dumps(about)),
        )


def load(path: Path = DATA) -> GroundTruth:
    """Read the data file."""
    with np.load(path) as arrays:
        return GroundTruth(means=arrays["means"], deviations=arrays["deviations"], macs=arrays["macs"])


def train(folder: Path, config: SearchConfig, report: Callable[[SearchEntry], None]) -> SearchLoop:
    """Train the shared weights, or resume from the folder's checkpoint; return the loop."""
    torch.manual_seed(config.seed)
    prepared = prepare(config)
    supernet = Supernet(config.space, prepared.tasks)
    loop = Training(config, folder, supernet, prepared.splits, prepared.constraints)
    loop.run(report)
    return loop


def score_all(folder: Path, name: str, loop: SearchLoop, subspace: Subspace, chunks: int) -> Floats:
    """[chunks, A, T]: the losses of all architectures; finished chunks are in the folder."""
    start = time.perf_counter()
    graphs = [loop.supernet.graph(row) for row in subspace.embed(everything())]
    losses = []
    held_out = in_order(loop.splits.policies, batch=CHUNK, limit=CHUNK * chunks)
    for chunk, batch in enumerate(held_out):
        path = folder / f"{name}-chunk-{chunk}.npy"
        if not path.exists():
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, score(loop.supernet, graphs, batch))
        losses.append(np.load(path))
        print(f"{name}, chunk {chunk}: {time.perf_counter() - start:.0f} s", flush=True)
    return np.stack(losses)


def main() -> None:
    """Train, score chunk by chunk, write the data files and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the weights and the finished chunks")
    parser.add_argument("--steps", type=int, default=3000, help="that train weights")
    parser.add_argument("--chunks", type=int, default=8, help=f"of {CHUNK} held-out images, at most {MAX_CHUNKS}")
    parser.add_argument("--wide", type=int, metavar="N", help="write N subspaces of the wide space into the folder")
    parser.add_argument("--output", type=Path, default=DATA, help="file of the default space's subspace")
    arguments = parser.parse_args()
    subspaces = {arguments.output: default_subspace()}
    if arguments.wide is not None:
        subspaces = {arguments.folder / f"wide-{seed}.npz": wide_subspace(seed) for seed in range(arguments.wide)}
    config = SearchConfig(
        budgets={name: (Budget(limit=200e6, unit="macs"),) for name in TASKS},
        space=SPACE if arguments.wide is None else WIDE,
        data=DataConfig(size=(32, 32), scenes=(16_000, CHUNK * MAX_CHUNKS, 32)),
        warmup_steps=arguments.steps,
        steps=0,
    )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    loop = train(arguments.folder, config, lambda entry: print(entry.step, dict(entry.losses), flush=True))
    about = {
        "benchmark": "ground_truth",
        "architectures": len(everything()),
        "chunks": arguments.chunks,
        "images_per_chunk": CHUNK,
        "steps": arguments.steps,
        "final_training_losses": {
            name: round(float(v), 4) for name, v in zip(TASKS, loop.scale.on_host(), strict=True)
        },
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "date": dt.date.today().isoformat(),
    }
    for file, subspace in subspaces.items():
        free = [subspace.space.variables[number].name for number in subspace.free]
        losses = score_all(arguments.folder, file.stem, loop, subspace, arguments.chunks)
        choices = subspace.embed(everything())
        macs = np.stack([loop.constraints[name].tables[0](choices) for name in TASKS], axis=1)
        save(losses, macs, file, about | {"free": free})
    print(json.dumps(about | {"files": [str(file) for file in subspaces]}))


if __name__ == "__main__":
    main()
