"""Run by ``test_run.py`` in each of two processes: a search they share, and what must hold across them.

Usage: torchrun --nproc_per_node 2 two_processes.py RUN_FOLDER
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import ABSENT
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.processes import process_group_cleanup
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.search.scoring import FinalistScorer
from fbnetv5.spaces.four_path import FourPathSpace

CONFIG = SearchConfig(
    budgets={"cls": (Budget(limit=425e6, unit="macs"),), "seg": (Budget(limit=450e6, unit="macs"),)},
    space=FourPathSpace(stages=1, blocks_per_path=1, strict=True),
    data=DataConfig(size=(32, 32), scenes=(24, 24, 16)),
    batch=4,
    policy_batch=4,
    warmup_steps=2,
    steps=4,
    clip_norm=1e9,
    panel_draws=16,
    panel_checks=3,
    finalists=2,
    score_images=16,
)


def own_batch(loop: SearchLoop) -> Batch:
    """Other images in each process, and three of four without a label in the second."""
    rank = loop.accelerator.process_index
    batch: Batch = list(in_order(loop.splits.weights, batch=4, limit=8))[rank]
    labelled = torch.arange(4) < (1 if rank else 4)
    labels = torch.where(labelled, batch.targets["label"], ABSENT)
    return replace(batch, targets={**batch.targets, "label": labels}, present={**batch.present, "label": labelled})


def expected_gradients(loop: SearchLoop, batch: Batch) -> list[Tensor]:
    """Of the sum over tasks of each one's mean loss over ALL labelled images, relative to itself."""
    loop.supernet.train()
    raw = loop.supernet(normalise(batch.images), loop.supernet.space.full())
    parameters = list(loop.supernet.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for name, task in loop.supernet.tasks.items():
        losses = task.losses(raw[name], batch).sum()
        gradients = torch.autograd.grad(losses, parameters, retain_graph=True, allow_unused=True)
        count, loss = loop.accelerator.reduce(torch.stack([task.labelled(batch).sum(), losses.detach()]), "sum")
        for index, gradient in enumerate(gradients):
            zero = torch.zeros_like(parameters[index])
            summed = loop.accelerator.reduce(zero if gradient is None else gradient, "sum")
            total[index] += summed / count / (loss / count)
    return total


def check_gradients(folder: Path) -> None:
    """The gradient that the optimizer gets is that of the pooled mean losses."""
    prepared = prepare(CONFIG)
    torch.manual_seed(0)
    loop = SearchLoop(CONFIG, folder, Supernet(CONFIG.space, prepared.tasks), prepared.splits, prepared.constraints)
    batch = own_batch(loop)
    expected = expected_gradients(loop, batch)
    loop.train_weights(batch, loop.supernet.space.full(), np.ones(2))
    for parameter, gradient in zip(loop.supernet.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def check_equality(loops: list[SearchLoop]) -> None:
    """After the search all processes hold the same weights and policies."""
    (loop,) = loops
    digest = hashlib.sha256(loop.policies.controller.logits.numpy().tobytes() + loop.scale.on_host().tobytes())
    for parameter in loop.supernet.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    digests = gather_object([digest.hexdigest()])
    assert len(digests) == 2
    assert len(set(digests)) == 1


def check_scoring(loops: list[SearchLoop]) -> None:
    """A process scores architectures by itself: an odd one at the end keeps nobody waiting, and no scores are mixed."""
    (loop,) = loops
    scorer = FinalistScorer(loop.supernet, loop.splits, images=16, device=loop.accelerator.device)
    full, cost = loop.supernet.space.full(), loop.constraints["seg"]
    alone = scorer("seg", full, cost) if loop.accelerator.is_main_process else None
    together = gather_object([scorer("seg", full, cost)])
    assert together[0] == together[1]
    assert alone in (None, together[0])


def main(folder: Path) -> None:
    """Check the gradient, search, and check that both processes end alike."""
    loops: list[SearchLoop] = []
    own_run = SearchLoop.run

    def run(loop: SearchLoop, *arguments: object) -> None:
        own_run(loop, *arguments)  # type: ignore[arg-type]
        loops.append(loop)

    check_gradients(folder)
    SearchLoop.run = run  # type: ignore[assignment, method-assign]
    run_folder, prepared = start_run(CONFIG, folder, lambda _: None, print)
    gradients = run_search(run_folder, prepared, lambda _: None, lambda *_: None)
    check_equality(loops)
    check_scoring(loops)
    architectures = gather_object([[gradients[task].to_json() for task in CONFIG.tasks]])
    assert architectures[0] == architectures[1]


if __name__ == "__main__":
    with process_group_cleanup():
        main(Path(sys.argv[1]))
