"""The loop of every run, on one whose state is a number."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export.errors import UserError, VerificationError
from fbnetv5.data.loading import Reading
from fbnetv5.data.sample import ImageSet, Sample
from fbnetv5.data.scenes import Scenes
from fbnetv5.runs import loop
from fbnetv5.runs.folder import running
from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import Loop

IMAGES = Scenes("train", size=(32, 32), count=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountEntry(Entry):
    total: float

    @property
    def scalars(self) -> dict[str, float]:
        return {"total": self.total}


class Counting(Loop[CountEntry]):
    """Adds the number of every step, and of every image that it meets."""

    title = "count"
    advice = "Count again"

    def __init__(
        self, folder: Path, *, steps: int = 6, name: str = "a", spoiled: Collection[int] = (), max_skipped: int = 0
    ) -> None:
        super().__init__(folder, steps=steps, checkpoint_every=4, seed=1, reading=Reading(), max_skipped=max_skipped)
        self.name = name
        self.spoiled = spoiled
        self.total = torch.zeros(1)
        self.dataset: ImageSet = IMAGES
        self.images: list[list[int]] = []

    def step(self) -> None:
        batch = next(self.batches(self.dataset, 2, first_step=self.done, stream=1))
        self.images.append(batch.indices.tolist())
        value = torch.tensor(math.nan if self.done in self.spoiled else 1.0)
        if self.guard.check_now({"the sum": value}, self.done):
            return
        self.total += self.done + float(batch.indices.sum())

    def entry(self, *, last: bool) -> CountEntry | None:
        return CountEntry(step=self.done, total=float(self.total)) if last or self.done % 2 == 0 else None

    def tensors(self) -> dict[str, Tensor]:
        return {"sums/total": self.total}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        self.total = groups["sums"]["total"].clone()


class Damaged:
    """The images, some of which cannot be read."""

    targets = IMAGES.targets

    def __init__(self, *damaged: int) -> None:
        self.damaged = damaged

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Sample:
        if index in self.damaged:
            raise UserError(f"image {index} is damaged")
        return IMAGES[index]


def quiet(entry: CountEntry) -> None:
    pass


def stop_at(step: int) -> Callable[[CountEntry], None]:
    def report(entry: CountEntry) -> None:
        if entry.step == step:
            raise KeyboardInterrupt

    return report


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [0, 2, 4])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, step: int) -> None:
    whole, first, again = (Counting(tmp_path / name) for name in ("whole", "cut", "cut"))
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole.run(quiet)
    with pytest.raises(KeyboardInterrupt):
        first.run(stop_at(step))
    again.run(quiet)
    assert torch.equal(again.total, whole.total)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [0, 2, 4, 6]
    assert again.images == whole.images[-len(again.images) :]


def test_a_resident_set_gives_a_resumed_run_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("loaded", "resident"):
        (tmp_path / folder).mkdir()
    (loaded := Counting(tmp_path / "loaded")).run(quiet)
    monkeypatch.setattr(loop, "worth_keeping", lambda *_, **__: True)  # as on an accelerator
    with pytest.raises(KeyboardInterrupt):
        (first := Counting(tmp_path / "resident")).run(stop_at(6))
    (second := Counting(tmp_path / "resident")).run(quiet)
    assert first.images == loaded.images
    assert second.images == loaded.images[4:]
    assert torch.equal(second.total, loaded.total)


def test_a_run_that_another_command_runs_is_refused_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Counting(tmp_path).run(stop_at(6))
    before = sorted(tmp_path.rglob("*"))
    with running(tmp_path), pytest.raises(UserError, match=r"is being run by another process: wait for it, or stop it"):
        Counting(tmp_path).run(quiet)
    assert sorted(tmp_path.rglob("*")) == before
    (again := Counting(tmp_path)).run(quiet)
    assert again.done == 6


def test_a_finished_run_repeats_no_step(tmp_path: Path) -> None:
    Counting(tmp_path).run(quiet)
    again, entries = Counting(tmp_path), list[CountEntry]()
    again.run(entries.append)
    assert (again.images, entries, again.done) == ([], [], 6)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Counting(tmp_path).run(quiet)
    with pytest.raises(UserError, match=r"was made with other name: a, now b\. .* start a new count"):
        Counting(tmp_path, name="b").run(quiet)


@pytest.mark.parametrize(("step", "checkpoint"), [(1, "step-0.json"), (5, "step-4.json")])
def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path: Path, step: int, checkpoint: str) -> None:
    expected = rf"the sum is not finite at step {step + 1}; the last good checkpoint is \S*{checkpoint}\. Count again$"
    with pytest.raises(VerificationError, match=expected):
        Counting(tmp_path, spoiled=[step]).run(quiet)


def test_a_resumed_run_skips_and_counts_as_an_undisturbed_one(tmp_path: Path) -> None:
    def make(name: str) -> Counting:
        counting = Counting(tmp_path / name, spoiled=[1, 4], max_skipped=2)
        counting.dataset = Damaged(3, 5)
        return counting

    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    (whole := make("whole")).run(quiet)
    with pytest.raises(KeyboardInterrupt):
        make("cut").run(stop_at(4))
    (again := make("cut")).run(quiet)
    assert torch.equal(again.total, whole.total)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    counts = [[line.get(name) for name in ("skipped_steps", "unreadable_images")] for line in lines(tmp_path / "whole")]
    assert [count[0] for count in counts] == [None, 1, 1, 2]
    assert counts[-1] == [2, 2]
    assert not {3, 5} & {index for step in whole.images for index in step}
    saved = json.loads((tmp_path / "whole/checkpoint/step-6.json").read_text())
    assert (saved["skipped_steps"], saved["unreadable_images"]) == (2, ["image 3 is damaged", "image 5 is damaged"])


def test_one_skipped_step_too_many_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        VerificationError, match=r"not finite at step 4; .* 2 steps were skipped .*before \(max_skipped"
    ):
        Counting(tmp_path, spoiled=[0, 2, 3], max_skipped=2).run(quiet)


def test_one_unreadable_image_too_many_ends_the_run(tmp_path: Path) -> None:
    counting = Counting(tmp_path, max_skipped=1)
    counting.dataset = Damaged(3, 5)
    with pytest.raises(
        VerificationError, match=r"2 images could not be read .* max_skipped is 1; .*image 3 is damaged;"
    ):
        counting.run(quiet)
