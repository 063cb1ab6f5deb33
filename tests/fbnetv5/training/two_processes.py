"""Run by ``test_run.py`` in each of two processes: a training they share, and what must hold across them.

Usage: torchrun --nproc_per_node 2 two_processes.py ARCHITECTURE FOLDER
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.utils import gather_object
from torch import Tensor

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.processes import process_group_cleanup
from fbnetv5.tasks import needed_targets
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.loop import TrainLoop
from fbnetv5.training.run import run_training, start_training

SHARE = 0.3
"""Of the teacher, the network of the same file, in the loss."""


def make_config(tasks: Sequence[str], teacher: Path) -> TrainConfig:
    return TrainConfig(
        task_names=tuple(tasks),
        teacher=str(teacher),
        distillation=SHARE,
        task_weights={task: float(number + 1) for number, task in enumerate(tasks)},
        data=DataConfig(size=(32, 32), scenes=(24, 12, 16)),
        held_out=8,
        steps=4,
        batch=4,
        warmup_steps=0,
        evaluate_every=2,
        clip_norm=1e9,
    )


def own_batch(loop: TrainLoop) -> Batch:
    """Other images in each process, and three of four without a mask in the second."""
    rank = loop.accelerator.process_index
    batch: Batch = list(in_order(loop.dataset, batch=4, limit=8))[rank]
    labelled = torch.arange(4) < (1 if rank else 4)
    masks = batch.targets["mask"].masked_fill(~labelled[:, None, None], IGNORE)
    return replace(batch, targets={**batch.targets, "mask": masks}, present={**batch.present, "mask": labelled})


def expected_gradients(loop: TrainLoop, batch: Batch, teacher: Network) -> list[Tensor]:
    """The gradients of the weighted sum of the tasks' losses.

    Labels have a mean over ALL labelled images of both processes, and the distance from the teacher over all 8 images.
    """
    network, reduce, objective = loop.network.train(), loop.accelerator.reduce, torch.zeros(())
    raw, taught = network.raw(normalise(batch.images)), teacher.raw(normalise(batch.images))
    for number, (name, task) in enumerate(network.tasks.items()):
        count = reduce(task.labelled(batch).sum().float(), "sum")
        assert count == (5 if name == "seg" else 8)
        labels = task.losses(raw[name], batch).sum() / count
        distance = task.distillation_losses(raw[name], taught[name], 1.0).sum() / 8
        objective = objective + (number + 1) * ((1 - SHARE) * labels + SHARE * distance)
    return [reduce(gradient, "sum") for gradient in torch.autograd.grad(objective, list(network.parameters()))]


def check_gradients(file: Path, folder: Path) -> None:
    """The gradient that the optimizer gets is that of the pooled mean loss."""
    architecture = load_architecture(file)
    config = make_config(list(architecture.choices), file)
    images = config.data.open(needed_targets(config.tasks)).weights
    torch.manual_seed(0)
    loop = TrainLoop(config, folder, architecture, architecture.build(), dataset=images, held_out=images)
    batch = own_batch(loop)
    teacher = architecture.load(file.with_suffix(".safetensors")).eval().requires_grad_(False)
    expected = expected_gradients(loop, batch, teacher)
    loop.train(batch)
    for parameter, gradient in zip(loop.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def main(file: Path, folder: Path) -> None:
    """Check the gradient, train, and check that both processes end alike."""
    loops: list[TrainLoop] = []
    own_run = TrainLoop.run

    def run(loop: TrainLoop, *arguments: object) -> None:
        own_run(loop, *arguments)  # type: ignore[arg-type]
        loops.append(loop)

    check_gradients(file, folder)
    regularizers = {"dropout": 0.2, "stochastic_depth": 0.2, "mixup": 0.2, "optimizer": "rmsprop"}
    config = make_config(list(load_architecture(file).choices), file).changed(**regularizers)
    TrainLoop.run = run  # type: ignore[assignment, method-assign]
    run_training(*start_training(config, file, folder), lambda _: None, lambda _: None)
    (loop,) = loops
    digest = hashlib.sha256()
    for parameter in loop.network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    digests = gather_object([digest.hexdigest()])
    assert len(digests) == 2
    assert len(set(digests)) == 1
    with pytest.raises(UserError, match="exists already"):  # in both, or one would wait
        start_training(config, file, folder)


if __name__ == "__main__":
    with process_group_cleanup():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
