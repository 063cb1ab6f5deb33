"""Run by ``test_processes.py`` in each of two processes: what they share, and what they must agree on.

Usage: torchrun --nproc_per_node 2 two_processes.py FOLDER
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from export.errors import UserError, VerificationError
from fbnetv5 import evaluate
from fbnetv5.data.config import DataConfig
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import Reading, in_order
from fbnetv5.data.sample import ImageSet, Sample
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.evaluate import in_run_precision, measure, measure_network
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.runs import start
from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import Loop
from fbnetv5.runs.processes import (
    BUCKET_BYTES,
    GradientAverage,
    copy_from_first,
    distributed_state,
    in_first_process,
    make_accelerator,
    process_group_cleanup,
    united,
)
from fbnetv5.runs.start import check_processes, describe_images, once_per_machine, open_images
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks

SCENES = Scenes("train", size=(32, 32), count=11)


class Noted(Entry):
    """An entry without values of its own."""

    @property
    def scalars(self) -> dict[str, float]:
        return {}


class Damaged:
    """Scenes, of which the one with the index of a process cannot be read by that process."""

    targets = SCENES.targets

    def __len__(self) -> int:
        return len(SCENES)

    def __getitem__(self, index: int) -> Sample:
        if index == make_accelerator().process_index:
            raise UserError(f"image {index} is damaged")
        return SCENES[index]


class Descending(Loop[Noted]):
    """Lowers a weight by its gradient, which is the same in all processes unless one of them has a step spoiled."""

    title = "descent"
    advice = "Descend again"

    def __init__(self, folder: Path, images: ImageSet, *, spoiled: tuple[int, ...], max_skipped: int) -> None:
        super().__init__(folder, steps=6, checkpoint_every=6, seed=0, reading=Reading(), max_skipped=max_skipped)
        self.weight = nn.Parameter(torch.zeros(2))
        self.optimizer = torch.optim.SGD([self.weight], lr=1.0)
        self.gradients = GradientAverage(self.accelerator, [self.weight])
        self.spoiled = spoiled if self.accelerator.process_index == 1 else ()
        self.steps_of_images = self.batches(images, 2, first_step=0, stream=0)
        self.images: list[int] = []

    def step(self) -> None:
        self.images += next(self.steps_of_images).indices.tolist()
        self.optimizer.zero_grad()
        factor = torch.nan if self.done in self.spoiled else 1.0
        self.accelerator.backward((self.weight * factor).sum())
        self.gradients.finish()
        assert self.weight.grad is not None
        if not self.guard.check({"the gradient": self.weight.grad.norm()}, self.done):
            self.optimizer.step()

    def entry(self, *, last: bool) -> Noted | None:
        return Noted(step=self.done) if last else None

    def tensors(self) -> dict[str, Tensor]:
        return {"weights/weight": self.weight}

    def identity(self) -> dict[str, Any]:
        return {}

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def check_gradients() -> None:
    """Over two steps with other parameters, gradients become the means that one reduction after backward computes."""
    accelerator = make_accelerator()
    sizes = [(2,), (BUCKET_BYTES // 4,), (3, 2, 3, 3), (BUCKET_BYTES // 8, 2), (5,)]
    parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
    parameters[2].data = parameters[2].data.to(memory_format=torch.channels_last)
    average = GradientAverage(accelerator, parameters)
    generator = torch.Generator().manual_seed(accelerator.process_index)
    for live in (parameters[:4], parameters[2:]):
        gradients = [torch.randn(parameter.shape, generator=generator) for parameter in live]
        expected = [accelerator.reduce(gradient, "mean") for gradient in gradients]
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward([(p * gradient).sum() for p, gradient in zip(live, gradients, strict=True)])
        average.finish()
        for parameter, mean in zip(live, expected, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, mean)
        assert all(parameter.grad is None for parameter in set(parameters) - set(live))
    assert distributed_state(accelerator)["processes"] == 2


def check_first_process(folder: Path) -> None:
    """The first process alone works; both get its path, and both raise its error."""
    own = folder / str(make_accelerator().process_index)

    def make() -> Path:
        own.mkdir()
        return own

    assert in_first_process(make) == folder / "0"
    assert [path.name for path in folder.iterdir()] == ["0"]

    def refuse() -> Path:
        raise UserError(f"refused in {own.name}")

    with pytest.raises(UserError, match="refused in 0"):
        in_first_process(refuse)


def check_exchanges() -> None:
    """Texts become common to both processes, and tensors those of the first."""
    accelerator = make_accelerator()
    rank = accelerator.process_index
    assert united(accelerator, {"a", str(rank)}) == {"a", "0", "1"}
    assert united(accelerator, set()) == set()
    tensors = [torch.full((2,), float(rank)), torch.full((1, 3), rank + 2.0)]
    copy_from_first(accelerator, tensors)
    assert [tensor.flatten().tolist() for tensor in tensors] == [[0.0, 0.0], [2.0, 2.0, 2.0]]


def check_skipping(folder: Path) -> None:
    """A step that is spoiled in one process is skipped in both; images that one of them cannot read count in both."""
    loop = Descending(folder, Damaged(), spoiled=(1, 4), max_skipped=2)
    loop.run(lambda entry: None)
    assert loop.weight.tolist() == [-4.0, -4.0]
    assert loop.guard.skipped == 2
    assert loop.unreadable == {"image 0 is damaged", "image 1 is damaged"}
    assert loop.accelerator.process_index not in loop.images
    loop.accelerator.wait_for_everyone()
    (line,) = (folder / "history.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 6, "skipped_steps": 2, "unreadable_images": 2}
    stopped = Descending(folder / "0", SCENES, spoiled=(1, 4), max_skipped=1)
    with pytest.raises(VerificationError, match="the gradient is not finite at step 5"):  # in both
        stopped.run(lambda entry: None)


def check_shares() -> None:
    """Two processes draw every image of an epoch once, and each evaluates its share of all images."""
    loop = Descending(Path(), SCENES, spoiled=(), max_skipped=0)
    batches = islice(loop.batches(SCENES, 1, first_step=0, stream=1), len(SCENES))
    drawn = Counter(gather_object([index for batch in batches for index in batch.indices.tolist()]))
    assert drawn == dict.fromkeys(range(len(SCENES)), 2)  # two epochs
    evaluate.BATCH = 3
    sizes: list[int] = []
    space = FourPathSpace(stages=1, blocks_per_path=1, strict=True)
    for name, task in make_tasks(("cls", "det", "seg", "depth"), CLASSES).items():
        torch.manual_seed(0)
        network: Network = task_network(task, space, space.full()).eval()
        network.backbone.register_forward_hook(lambda module, inputs, _: sizes.append(len(inputs[0])))
        sizes.clear()
        (metric,) = measure_network(network, SCENES).values()
        assert sizes == ([3, 2] if loop.accelerator.process_index else [3, 3])
        raw = in_run_precision(network.raw, torch.device("cpu"), make_accelerator())
        (alone,) = measure(network.tasks, raw, in_order(SCENES, batch=3)).values()
        assert metric.report() == alone.report(), name


def check_start(folder: Path, image_folder: Path) -> None:
    """One process of the machine opens the images; a folder or images that only one process sees are an error."""
    rank, opened = make_accelerator().process_index, list[Path]()
    data = DataConfig.of(image_folder, size=(64, 64))

    def open_and_count() -> object:
        opened.append(image_folder)
        return data.open(["label", "boxes"])

    splits = once_per_machine(open_and_count)
    assert len(opened) == (rank == 0)
    images = open_images(data, ["label", "boxes"]).test
    assert torch.equal(images[0].image, data.open(["label"]).test[0].image)
    assert type(splits) is type(data.open(["label"]))

    lines: list[str] = []
    describe_images(image_folder, lines.append)
    assert len(lines) == (rank == 0)
    with pytest.raises(UserError, match="leave out --strict-data"):
        describe_images(image_folder, lines.append, strict=True)

    def refuse() -> None:
        raise UserError(f"refused in {rank}")

    with pytest.raises(UserError, match="refused in 0"):
        once_per_machine(refuse)

    def fail() -> None:
        raise MemoryError("no memory left")

    with pytest.raises(
        UserError if rank else MemoryError,
        match=r"the first process on \S+ failed: MemoryError: no memory left" if rank else "^no memory left",
    ):
        once_per_machine(fail)
    check_processes(folder, images)
    start.TOKEN_SECONDS = 0.3
    with pytest.raises(
        UserError, match=r"process 1 on \S+ does not see \S+, which the first process made\. All machines"
    ):
        check_processes(folder / str(rank) if rank else folder, images)
    other = open_folder(image_folder).resized((64, 64), range(3 + rank))
    with pytest.raises(UserError, match=r"process 1 on \S+ has images with checksum \w+ instead of \w+\."):
        check_processes(folder, other)


def main(folder: Path, image_folder: Path) -> None:
    """Check everything, each in a folder of its own."""
    os.chdir(folder)
    check_gradients()
    rank = make_accelerator().process_index
    for name in ("first", "skipping", "skipping/0", "start"):
        if rank == 0:
            (folder / name).mkdir()
    make_accelerator().wait_for_everyone()
    check_first_process(folder / "first")
    check_exchanges()
    check_skipping(folder / "skipping")
    check_shares()
    check_start(folder / "start", image_folder)


if __name__ == "__main__":
    with process_group_cleanup():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
