"""The interface of a teacher: a pretrained network with its preprocessing, classes and the meaning of its outputs.

Every family of networks is a module of this folder that makes such a value: ``onnx`` (ONNX files with a description),
``exported`` (folders of ``fbnetv5 export``), ``timm``, ``torchvision`` and ``transformers``.

    teacher = open_teacher("cls", "timm:resnet50.a1_in1k")
    teacher.predict(images)         # images of any size -> predictions at their own pixels, to label them
    teacher.class_logits(batch)     # one batch of one size -> [N, C], as a loss that distils the teacher needs it

Shape legend: N images, C classes, H x W pixels of an image, h x w pixels of the teacher's input.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.preprocess import MEAN, STD
from fbnetv5.labeling.teachers.decoders import Decoding, Prediction
from fbnetv5.labeling.teachers.preparation import Preparation

Network = Callable[[Tensor], Sequence[Tensor]]
"""Prepared images -> all outputs, each with the batch as its first axis. It runs on the device of its weights and
returns tensors there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A pretrained network of one task."""

    name: str
    """As the user named it: a file, or ``FAMILY:NAME``."""
    task: str
    classes: tuple[str, ...]
    """Names of its classes by id, () for a task without classes; "" for an id that stands for no class."""
    preparation: Preparation
    network: Network
    decoding: Decoding
    provenance: Mapping[str, str]
    """Facts that identify it: its family, and the checksum of its weights."""
    max_batch: int | None = None
    """Maximum number of images that the network runs on at once; None if unlimited."""

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The raw outputs for a batch of images of one size, [N, 3, H, W].

        Args:
            images: uint8, or float and normalised as ``fbnetv5.data.preprocess.normalise`` does; on any device.

        Raises:
            UserError: the network does not accept them.
        """
        with torch.inference_mode():
            return tuple(self.network(self.preparation(_pixels(images))))

    def class_logits(self, images: Tensor) -> Tensor:
        """Logits [N, C] of a classifier, float32 on the device of the images; arguments and errors as in ``outputs``.

        Raises:
            UserError: it is no classifier.
        """
        if self.decoding.name != "logits":
            raise UserError(f"teacher {self.name} is of task {self.task}: class logits need a teacher of task cls")
        (logits,) = self.outputs(images)
        return logits.flatten(1).float().to(images.device)

    def predict(self, images: Sequence[Tensor], names: Sequence[str], *, batch: int = 8) -> Iterator[Prediction]:
        """The predictions for images of any size, in their order.

        Args:
            images: uint8 [3, H, W] each.
            names: of the images, for messages.
            batch: maximum number of images that the network runs on at once.

        Raises:
            UserError: the network fails, or returns NaN or outputs of another form than its description says.
        """
        for positions in self._batches(images, batch):
            prepared = [self.preparation(images[position][None]) for position in positions]
            with torch.inference_mode(), self._named_errors():
                outputs = self.network(torch.cat(prepared))
            for row, position in enumerate(positions):
                single = [output[row] for output in outputs]
                if not all(bool(output.isfinite().all()) for output in single if output.is_floating_point()):
                    raise UserError(f"teacher {self.name} returns NaN or infinity for {names[position]}: replace it")
                place = self.preparation.placement((images[position].shape[1], images[position].shape[2]))
                with self._named_errors():
                    prediction = self.decoding(single, place)
                yield prediction

    def _batches(self, images: Sequence[Tensor], batch: int) -> list[range]:
        """Consecutive images that the network runs on at once."""
        size = 1 if self.preparation.size is None else min(batch, self.max_batch or batch)
        return [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A context in which a UserError names the teacher."""
        try:
            yield
        except UserError as error:
            raise UserError(f"teacher {self.name}: {error}") from None


def _pixels(images: Tensor) -> Tensor:
    """The images with values from 0 to 255; normalised ones are converted back."""
    if not images.is_floating_point():
        return images
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images * std + mean).clamp(0, 255)
