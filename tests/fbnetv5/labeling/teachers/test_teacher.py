"""The interface of a teacher: batches, raw outputs and class logits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.preprocess import normalise
from fbnetv5.labeling.teachers.decoders import Decoding
from fbnetv5.labeling.teachers.onnx import open_onnx
from fbnetv5.labeling.teachers.preparation import Preparation
from fbnetv5.labeling.teachers.teacher import Teacher
from tests.fbnetv5.labeling.teachers.onnx_files import classifier, segmenter


def make_teacher(sizes: list[int], *, size: tuple[int, int] | None = (8, 8), max_batch: int | None = None) -> Teacher:
    """A classifier by the mean of the first two channels; it notes the size of each batch."""

    def run(images: Tensor) -> tuple[Tensor]:
        sizes.append(len(images))
        return (images.mean((2, 3))[:, :2],)

    return Teacher(
        name="means",
        task="cls",
        classes=("a", "b"),
        preparation=Preparation(size=size),
        network=run,
        decoding=Decoding(name="logits", classes=2),
        provenance={},
        max_batch=max_batch,
    )


@pytest.mark.parametrize(
    ("size", "max_batch", "expected"), [((8, 8), None, [3, 2]), ((8, 8), 2, [2, 2, 1]), (None, None, [1] * 5)]
)
def test_images_run_in_batches_that_the_network_allows(
    size: tuple[int, int] | None, max_batch: int | None, expected: list[int]
) -> None:
    sizes: list[int] = []
    images = [torch.full((3, 8 + n, 9), n, dtype=torch.uint8) for n in range(5)]
    teacher = make_teacher(sizes, size=size, max_batch=max_batch)
    assert len(list(teacher.predict(images, list("abcde"), batch=3))) == 5
    assert sizes == expected


def test_class_logits_of_stored_and_of_normalised_images_are_the_same(tmp_path: Path) -> None:
    teacher = open_onnx("cls", classifier(tmp_path / "model.onnx"), device="cpu")
    images = torch.randint(256, (4, 3, 50, 50), dtype=torch.uint8)
    logits = teacher.class_logits(images)
    assert logits.shape == (4, 2)
    torch.testing.assert_close(teacher.class_logits(normalise(images)), logits, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(logits / 20, images.float().mean((2, 3))[:, :2] / 255, atol=1e-2, rtol=0)


def test_only_a_classifier_has_class_logits(tmp_path: Path) -> None:
    teacher = open_onnx("seg", segmenter(tmp_path / "model.onnx"), device="cpu")
    assert teacher.outputs(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[0].shape == (1, 3, 64, 64)
    with pytest.raises(UserError, match="class logits need a teacher of task cls"):
        teacher.class_logits(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_an_error_names_the_teacher() -> None:
    teacher = make_teacher([])
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)]
    wrong = Teacher(
        name="means",
        task="cls",
        classes=("a",),
        preparation=teacher.preparation,
        network=teacher.network,
        decoding=Decoding(name="logits", classes=1),
        provenance={},
    )
    with pytest.raises(UserError, match="teacher means: its output has 2 classes, and 1 are named"):
        list(wrong.predict(images, ["a"]))
