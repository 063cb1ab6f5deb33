"""Teachers in ONNX files see images as their description says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto

from export.errors import UserError
from export.runners import OrtRunner
from fbnetv5.data.predictions import ClassScores
from fbnetv5.labeling.teachers import onnx
from fbnetv5.labeling.teachers.decoders import ScoredMap
from fbnetv5.labeling.teachers.onnx import open_onnx
from tests.fbnetv5.labeling.teachers.onnx_files import classifier, constant, rectangle_image, segmenter

IMAGES = [
    rectangle_image((40, 60), [(5, 5, 40, 30)], [0]),
    rectangle_image((64, 48), [(5, 5, 40, 60)], [1]),
    rectangle_image((40, 60), [(5, 5, 50, 35)], [1]),
]
NAMES = ["0", "1", "2"]


def test_a_classifier_sees_images_of_any_size(tmp_path: Path) -> None:
    teacher = open_onnx("cls", classifier(tmp_path / "model.onnx"), device="cpu")
    predictions = list(teacher.predict(IMAGES, NAMES, batch=2))
    assert [int(p.probabilities.argmax()) for p in predictions if isinstance(p, ClassScores)] == [0, 1, 1]


def test_a_process_of_several_uses_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_on_cpu(file: Path, *, provider: str, provider_options: dict[str, str] | None, threads: int) -> OrtRunner:
        seen.append((provider, provider_options))
        return OrtRunner(file, threads=threads)

    seen: list[object] = []
    monkeypatch.setattr(onnx, "OrtRunner", run_on_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for device in ("cuda", "cpu"):
        open_onnx("cls", classifier(tmp_path / "model.onnx"), device=device)
    assert seen == [("cuda", {"device_id": "3"}), ("cpu", None)]


@pytest.mark.parametrize(
    ("shape", "dtype", "fields"),
    [
        ((2, 3, 32, 32), TensorProto.FLOAT, {}),
        (("n", 3, 32, 32), TensorProto.FLOAT, {"order": "bgr", "classes": ["blue", "green"]}),
    ],
    ids=["fixed batch", "bgr"],
)
def test_a_fixed_batch_is_filled_and_channels_are_ordered(
    shape: tuple[int | str, ...], dtype: int, fields: dict[str, object], tmp_path: Path
) -> None:
    teacher = open_onnx("cls", classifier(tmp_path / "model.onnx", shape=shape, dtype=dtype, **fields), device="cpu")
    logits = teacher.class_logits(torch.stack([IMAGES[0], IMAGES[2], IMAGES[2]]))
    assert logits.shape == (3, 2)
    assert logits.argmax(1).tolist()[1:] == [1, 1]
    assert bool(logits[0, 0] > 1) == ("order" not in fields)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_class_map_has_the_rectangles_of_the_image(fit: str, tmp_path: Path) -> None:
    teacher = open_onnx("seg", segmenter(tmp_path / "model.onnx", fit=fit, size=[128, 128]), device="cpu")
    for image, prediction in zip(IMAGES, teacher.predict(IMAGES, NAMES), strict=True):
        assert isinstance(prediction, ScoredMap)
        truth = (image[0] == 255) + 2 * (image[1] == 255).long()
        assert (prediction.ids == truth).float().mean() > 0.99


def test_nan_names_the_teacher_and_the_image(tmp_path: Path) -> None:
    file = constant(
        tmp_path / "nan.onnx",
        {"logits": np.array([np.nan, 1], np.float32)},
        task="cls",
        size=[32, 32],
        decoder="logits",
        classes=["a", "b"],
    )
    with pytest.raises(UserError, match=r"nan\.onnx returns NaN or infinity for 0"):
        list(open_onnx("cls", file, device="cpu").predict(IMAGES[:1], NAMES))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = classifier(tmp_path / "model.onnx", shape=("n", 3, 48, 48))
    with pytest.raises(UserError, match="reads images of 3x48x48, and its description says 3x32x32"):
        open_onnx("cls", file, device="cpu")
    with pytest.raises(UserError, match="is a teacher of task cls, not of det"):
        open_onnx("det", file, device="cpu")
    with pytest.raises(UserError, match="has no output 'boxes'; it has: logits"):
        open_onnx("cls", classifier(tmp_path / "model.onnx", outputs=["boxes"]), device="cpu")
    with pytest.raises(UserError, match="there is no ONNX file"):
        open_onnx("cls", tmp_path / "none.onnx", device="cpu")
