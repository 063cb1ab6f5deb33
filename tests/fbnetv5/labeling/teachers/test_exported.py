"""The folders that ``fbnetv5 export`` writes are teachers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.errors import UserError
from export.manifest import Manifest, Preprocessing, TensorEntry, read_manifest, write_manifest
from export.parity import OutputGroup
from fbnetv5.data.predictions import ScoredBoxes
from fbnetv5.deploy.predict.models import load
from fbnetv5.labeling.teachers.exported import open_exported
from fbnetv5.labeling.teachers.families import open_teacher
from fbnetv5.tasks.detection import suppress
from tests.fbnetv5.labeling.teachers.onnx_files import constant

BOXES = np.array([[0, 0, 20, 20], [1, 1, 20, 20], [30, 30, 60, 60]], np.float32)
SCORES, LABELS = np.array([0.9, 0.8, 0.7], np.float32), np.array([1, 1, 0])


def write_export(folder: Path, outputs: dict[str, NDArray[np.generic]], *, batch: int | str = "batch") -> Path:
    """An exported detector whose outputs are the same for every image."""
    folder.mkdir()
    constant(
        folder / "model.onnx",
        outputs,
        shape=(batch, 3, "height", "width"),
        task="det",
        size=[64, 64],
        decoder="ssd",
        classes=["a", "b"],
    )
    (folder / "model.json").unlink()
    manifest = Manifest(
        precision="fp32",
        inputs=(TensorEntry(name="images", shape=(batch, 3, "height", "width"), dtype="float32"),),
        outputs=(),
        preprocessing=Preprocessing(resize=(64, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
        task_outputs={"det": OutputGroup(outputs=tuple(outputs))},
        labels={"det": ("a", "b")},
        architecture={},
        versions={},
        parity=(),
        metrics={},
    )
    write_manifest(folder, manifest, files=["model.onnx"])
    return folder


def test_boxes_are_those_that_the_task_itself_finds(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    teacher = open_exported("det", folder, device="cpu")
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(3, 128, 64, dtype=torch.uint8)]
    ((boxes, scores, labels),) = suppress([torch.from_numpy(values)[None] for values in (BOXES, SCORES, LABELS)])
    for scale, prediction in zip((1, 2), teacher.predict(images, ["a", "b"]), strict=True):
        assert isinstance(prediction, ScoredBoxes)
        assert torch.equal(prediction.xyxy, boxes * torch.tensor([1, scale, 1, scale]))
        assert torch.equal(prediction.scores, scores)
        assert torch.equal(prediction.labels, labels)
    assert teacher.preparation.mean == (0.5, 0.5, 0.5)
    assert teacher.classes == ("a", "b")


def test_images_are_fitted_as_the_manifest_says(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    manifest = read_manifest(folder)
    steps = manifest.preprocessing.changed(fit="letterbox", padding=114)
    write_manifest(folder, manifest.changed(preprocessing=steps), files=["model.onnx"])
    (prediction,) = open_exported("det", folder, device="cpu").predict([torch.zeros(3, 32, 64, dtype=torch.uint8)], "a")
    assert isinstance(prediction, ScoredBoxes)
    assert prediction.xyxy.tolist() == [[0, 0, 20, 4], [30, 14, 60, 32]]  # 16 rows above, cut at the borders


def test_images_have_the_size_of_the_training_as_in_predict(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    architecture = {"det": {"provenance": {"trained_at": [32, 96]}}}
    write_manifest(folder, read_manifest(folder).changed(architecture=architecture), files=["model.onnx"])
    teacher = open_exported("det", folder, device="cpu")
    assert teacher.preparation.size == load(folder).preprocessing.resize == (32, 96)
    assert teacher.provenance["size"] == "32x96"


def test_the_other_forms_of_a_detector_are_read(tmp_path: Path) -> None:
    scores = np.array([[0, 0.9], [0, 0.8], [0.7, 0]], np.float32)
    teacher = open_exported("det", write_export(tmp_path / "decode", {"boxes": BOXES, "scores": scores}), device="cpu")
    (prediction,) = teacher.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)], ["a"])
    assert isinstance(prediction, ScoredBoxes)
    assert prediction.labels.tolist() == [1, 0]


def test_boxes_without_a_batch_axis_are_read_image_by_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "nms", {"boxes": BOXES, "scores": SCORES, "labels": LABELS}, batch=1)
    model, manifest = onnx.load(folder / "model.onnx"), read_manifest(folder)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_axis"))
    for output in model.graph.output:
        model.graph.node.append(helper.make_node("Squeeze", [output.name, "first_axis"], [f"nms_{output.name}"]))
        output.CopyFrom(helper.make_empty_tensor_value_info(f"nms_{output.name}"))
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "model.onnx")
    outputs = OutputGroup(outputs=("nms_boxes", "nms_scores", "nms_labels"))
    write_manifest(folder, manifest.changed(task_outputs={"det": outputs}), files=["model.onnx"])
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 3
    predictions = list(open_exported("det", folder, device="cpu").predict(images, list("abc")))
    assert [len(prediction.labels) for prediction in predictions if isinstance(prediction, ScoredBoxes)] == [2, 2, 2]


def test_a_damaged_folder_and_another_task_are_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    with pytest.raises(UserError, match="is a teacher of det, not of seg"):
        open_exported("seg", folder, device="cpu")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="checksums differ"):
        open_exported("det", folder, device="cpu")


def test_a_description_that_contradicts_the_manifest_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    description = {"schema": 1, "task": "det", "size": [64, 64], "decoder": "ssd", "classes": ["a", "b"]}
    (folder / "model.json").write_text(json.dumps(description), encoding="utf-8")
    assert open_teacher("det", str(folder / "model.onnx"), device="cpu").preparation.text == "images stretched to 64x64"
    (folder / "model.json").write_text(json.dumps({**description, "fit": "letterbox"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.json says fit 'letterbox', and .*manifest\.json says 'stretch'"):
        open_teacher("det", str(folder / "model.onnx"), device="cpu")
