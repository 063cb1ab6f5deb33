"""The loop of every run, from the last checkpoint to the last step, for any kind of step.

A method derives its loop from ``Loop`` and defines a step, the entries of the history, and the contents of a
checkpoint. The loop reads and writes checkpoints and writes the history. It skips a step whose loss is not finite and
replaces an image that cannot be read, counts both, and stops with a one-line error when there are too many. All
processes of a run skip the same steps and know the same number of images. All randomness of a step is a function of
(seed, step), so a resumed run repeats what an uninterrupted run would have done.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from export.errors import UserError, VerificationError
from fbnetv5.data.loading import IN_THIS_PROCESS, Order, Reading, Transform, batches
from fbnetv5.data.resident import resident_batches, worth_keeping
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.runs.checkpoint import by_group, check_identity, load_checkpoint, save_checkpoint
from fbnetv5.runs.divergence import DivergenceGuard
from fbnetv5.runs.folder import running
from fbnetv5.runs.history import Entry, History
from fbnetv5.runs.processes import distributed_state, fastest_convolutions, in_first_process, make_accelerator, united

CHECKPOINT = "checkpoint"
LOG_EVERY = 10
"""Steps between entries of the history, unless a method needs one at another step."""
STREAMS = 4
"""Maximum number of image streams of a run; each has its own seed."""

E = TypeVar("E", bound=Entry)


class Loop(ABC, Generic[E]):
    """The state of a run and its steps; ``run`` executes them from the last checkpoint to the end."""

    title: ClassVar[str]
    """Name of such a run in messages, e.g. "search"."""
    advice: str
    """What to do when a loss is not finite, as a sentence."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        checkpoint_every: int,
        seed: int,
        reading: Reading = IN_THIS_PROCESS,
        max_skipped: int = 0,
    ) -> None:
        """Create the loop before its first step.

        Args:
            folder: of the run.
            steps: number of all steps.
            checkpoint_every: steps between checkpoints.
            seed: of the order of the images.
            reading: how images are read beside the steps.
            max_skipped: number of steps that may be skipped, and of images that may be replaced, before the error.
        """
        self.folder = folder
        self.steps = steps
        self.checkpoint_every = checkpoint_every
        self.seed = seed
        self.reading = reading
        self.max_skipped = max_skipped
        self.unreadable: set[str] = set()
        """The error of each image that a process could not read, as of the last entry or checkpoint."""
        self._own_unreadable: set[str] = set()
        self.accelerator = make_accelerator()
        if self.accelerator.mixed_precision == "fp16":
            raise UserError(f"fp16 mixed precision needs loss scaling, which a {self.title} lacks; use bf16 or none")
        self.done = 0
        """Steps finished."""
        device = self.accelerator.device
        lag = 0 if device.type == "cpu" else 1
        self.guard = DivergenceGuard(device, self.diverged, lag=lag, max_skipped=max_skipped)

    @abstractmethod
    def step(self) -> None:
        """Run step number ``done``; one whose loss or gradient is not finite changes nothing.

        Raises:
            VerificationError: too many steps were skipped, with this step or, with a lag of the guard, with the step
                before.
        """

    def is_logged(self, *, last: bool) -> bool:
        """Whether the state after ``done`` steps may have an entry in the history; the same in every process."""
        return self.done % LOG_EVERY == 0 or last

    @abstractmethod
    def entry(self, *, last: bool) -> E | None:
        """The entry of the history for the state after ``done`` steps, if there is one; called in the first process."""

    def measure(self, *, last: bool) -> None:
        """Compute what the entry for the state after ``done`` steps needs of all processes; called in each of them."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, by GROUP/NAME."""

    def state(self) -> dict[str, Any]:
        """The JSON values of a checkpoint besides its identity."""
        return {}

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Settings that must be equal when a run is resumed, stored in its checkpoints."""

    @abstractmethod
    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Restore the contents of a checkpoint: tensors by group and name, and the JSON.

        Raises:
            UserError: the checkpoint is of another network or configuration.
        """

    def run(self, report: Callable[[E], None]) -> None:
        """Resume from a checkpoint if there is one, run the remaining steps, and write a checkpoint of the last.

        Args:
            report: called with every entry of the history, in the first process.

        Raises:
            UserError: another command runs it, or the checkpoint is damaged, or of another network or configuration.
            VerificationError: more than ``max_skipped`` steps were skipped, or images replaced.
        """
        with ExitStack() as stack:
            in_first_process(lambda: self._lock(stack))
            fresh = not self.restore()
            self.accelerator.wait_for_everyone()  # else a late process would find the first one's new checkpoint
            stack.enter_context(fastest_convolutions())
            if not self.accelerator.is_main_process:
                history = None
            else:
                history = stack.enter_context(closing(History(self.folder, step=-1 if fresh else self.done)))
            if fresh:
                self.measure(last=self.done == self.steps)
                self._log(history, report)
                self._save_in_first_process()
            while self.done < self.steps:
                self.step()
                self.done += 1
                last = self.done == self.steps
                saved = self.done % self.checkpoint_every == 0 or last
                if saved or self.is_logged(last=last):
                    self._check_skipped()  # in every process, or the others would wait for one that stopped
                self.measure(last=last)
                self._log(history, report)
                if saved:
                    self._save_in_first_process()

    def _lock(self, stack: ExitStack) -> Path:
        """Keep other commands from running this folder until the stack is closed."""
        stack.enter_context(running(self.folder))
        return self.folder

    def _log(self, history: History | None, report: Callable[[E], None]) -> None:
        if history is None:
            return
        entry = self.entry(last=self.done == self.steps)
        if entry is not None:
            entry = replace(entry, skipped_steps=self.guard.skipped, unreadable_images=len(self.unreadable))
            history.add(entry)
            report(entry)

    def _check_skipped(self) -> None:
        """Read the reports of all steps, and tell all processes which images each could not read."""
        self.guard.check_all()
        self.unreadable |= united(self.accelerator, self._own_unreadable - self.unreadable)
        if len(self.unreadable) > self.max_skipped:
            raise VerificationError(
                f"{len(self.unreadable)} images could not be read until step {self.done}, max_skipped is "
                f"{self.max_skipped}; one of them: {min(self.unreadable)}; {self._last_checkpoint()}"
            )

    def _save_in_first_process(self) -> None:
        if self.accelerator.is_main_process:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        skips = {"skipped_steps": self.guard.skipped, "unreadable_images": sorted(self.unreadable)}
        state = self.state() | {name: value for name, value in skips.items() if value} | self._full_identity()
        save_checkpoint(self.folder / CHECKPOINT, self.done, self.tensors(), state)

    def restore(self) -> bool:
        """Restore the newest checkpoint; return whether there is one.

        Raises:
            UserError: the checkpoint is damaged, or of another network or configuration.
        """
        checkpoint = load_checkpoint(self.folder / CHECKPOINT)
        if checkpoint is None:
            return False
        tensors, state = checkpoint
        check_identity(state, self._full_identity(), self.folder, self.title)
        self.load(by_group(tensors), state)
        self.guard.skipped = int(state.get("skipped_steps", 0))
        self.unreadable = set(state.get("unreadable_images", ()))
        self.done = int(state["step"])
        return True

    def _full_identity(self) -> dict[str, Any]:
        return self.identity() | distributed_state(self.accelerator)

    def batches(
        self, images: ImageSet, batch: int, *, first_step: int, stream: int, transform: Transform | None = None
    ) -> Iterator[Batch]:
        """This process's share of the endless batches of a set of images, on the loop's device.

        An image that cannot be read is replaced by the next one, see ``fbnetv5.data.loading``. An accelerator keeps a
        small set in its memory if no worker processes read it and nothing augments it.

        Args:
            images: to draw from.
            batch: images per process.
            first_step: number of batches to skip, which the run used before it was resumed.
            stream: number of the stream, below ``STREAMS``; each is shuffled differently.
            transform: augmentation.
        """
        device = self.accelerator.device
        order = Order(
            batch=batch,
            seed=self.seed * STREAMS + stream,
            first_step=first_step,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        draws = (self.steps - self.done) * batch
        if transform is None and self.reading.num_workers == 0 and worth_keeping(images, device, draws=draws):
            return self.noted(resident_batches(images, order, device))
        return self.noted(batches(images, order, reading=self.reading, transform=transform, device=device))

    def noted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the images that could not be read for them count from now on."""
        for batch in batches:
            self._own_unreadable |= set(batch.unreadable)
            yield batch

    def diverged(self, what: str, step: int) -> VerificationError:
        """The error to raise when ``what`` is not finite in step number ``step``, counted from 0."""
        count = self.guard.skipped - 1
        skipped = f" {count} steps were skipped for such a value before (max_skipped)." if count > 0 else ""
        return VerificationError(
            f"{what} is not finite at step {step + 1}; {self._last_checkpoint()}.{skipped} {self.advice}"
        )

    def _last_checkpoint(self) -> str:
        steps = (self.folder / CHECKPOINT).glob("step-*.json")
        newest = max(steps, key=lambda path: path.stat().st_mtime, default=None)
        return f"the last good checkpoint is {newest or 'none yet'}"
