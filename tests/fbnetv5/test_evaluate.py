import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from export.errors import UserError
from fbnetv5.architecture import load_architecture, make_architecture
from fbnetv5.cli import app
from fbnetv5.data.loading import in_order
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.data.splits import open_splits, targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import Raw, evaluate, evaluate_file, trained_size
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.depth import RATIOS
from fbnetv5.tasks.detection import COCO_FIGURES
from tests.contract.schemas import check_document
from tests.fbnetv5.data.rearrange import as_ade20k, as_coco, as_image_folder
from tests.samples import keep_labels

ARRANGED = {"ImageFolder": as_image_folder, "COCO": as_coco, "ADE20K": as_ade20k}
FIGURES = {
    "cls": {"top1", "top5"},
    "det": set(COCO_FIGURES),
    "seg": {"miou", "pixel_accuracy", "iou"},
    "saliency": {"max_miou", "threshold", "mae"},
    "edges": {"ods_f", "threshold", "precision", "recall"},
    "depth": {"rmse", "abs_rel", *RATIOS},
}
UNITS = ("macs", "params")
IMAGES = Scenes("train", size=(32, 32), count=10)
TRUTH = torch.tensor([IMAGES[index].targets["label"] for index in range(10)])


def network_with_outputs(labels: Tensor) -> Raw:
    """A network that predicts the labels in turn, whatever its input is."""
    remaining = iter(labels)

    def raw(images: Tensor) -> dict[str, Tensor]:
        predicted = torch.stack([next(remaining) for _ in images])
        return {"cls": functional.one_hot(predicted, len(CLASSES["label"])).float()}

    return raw


@pytest.mark.parametrize(("wrong", "expected"), [(0, 1.0), (3, 0.7), (10, 0.0)])
@pytest.mark.parametrize("batch", [1, 4, 10])
def test_the_metric_is_taken_over_all_batches(wrong: int, expected: float, batch: int) -> None:
    labels = TRUTH.clone()
    labels[:wrong] = (labels[:wrong] + 1) % len(CLASSES["label"])
    scores = evaluate(make_tasks(("cls",), CLASSES), network_with_outputs(labels), in_order(IMAGES, batch=batch))
    assert scores == {"cls": pytest.approx(expected)}


def test_images_without_labels_do_not_count() -> None:
    (batch,) = in_order(IMAGES, batch=10)
    known = keep_labels(batch, "label", torch.arange(10) < 4)
    predictions = torch.where(torch.arange(10) < 3, TRUTH, (TRUTH + 1) % len(CLASSES["label"]))
    scores = evaluate(make_tasks(("cls",), CLASSES), network_with_outputs(predictions), [known])
    assert scores == {"cls": pytest.approx(0.75)}


def test_networks_see_normalised_images_without_gradients() -> None:
    seen: list[tuple[float, bool]] = []

    def raw(images: Tensor) -> dict[str, Tensor]:
        seen.append((float(images.abs().max()), torch.is_grad_enabled()))
        return {"cls": torch.zeros(len(images), len(CLASSES["label"]))}

    evaluate(make_tasks(("cls",), CLASSES), raw, in_order(IMAGES, batch=5))
    assert len(seen) == 2
    assert all(largest < 4 and not gradients for largest, gradients in seen)


@pytest.mark.parametrize(
    ("task", "layout"),
    [
        ("cls", "several tasks"),
        ("det", "several tasks"),
        ("seg", "several tasks"),
        ("cls", "ImageFolder"),
        ("det", "COCO"),
        ("seg", "ADE20K"),
    ],
)
def test_a_network_is_measured_on_each_layout(
    networks: Path, image_folder: Path, tmp_path: Path, task: str, layout: str
) -> None:
    root = ARRANGED[layout](image_folder, tmp_path / "root") if layout in ARRANGED else image_folder
    file = with_classes_of(root, networks / f"{task}.json", tmp_path / f"{task}.json")
    done = CliRunner().invoke(app, ["eval", "--arch", str(file), "--data", str(root), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    check_document(["eval"], document)
    assert (document["images"], document["size"]) == (
        len(open_splits(root, size=(32, 32), targets=CLASSES).test),
        [32, 32],
    )
    assert document["figures"].keys() == FIGURES[task]
    assert document["figures"][document["metric"]["name"]] == pytest.approx(document["metric"]["value"])


def with_classes_of(root: Path, source: Path, file: Path) -> Path:
    """The same network for the classes of a folder, with fresh weights."""
    of_scenes = load_architecture(source)
    architecture = make_architecture(
        of_scenes.space,
        of_scenes.choices,
        class_names(targets_of(root)),
        of_scenes.resolution,
        provenance=of_scenes.provenance,
    )
    architecture.save(file)
    save_tensors(file.with_suffix(".safetensors"), architecture.build().state_dict())
    return file


def test_wrong_files_are_named(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    file = networks / "cls.json"
    with pytest.raises(UserError, match=r"cls\.json is a network for cls, not for det"):
        evaluate_file(file, task="det", weights=None, data=image_folder, size=None)
    with pytest.raises(UserError, match="holds the weights of another network"):
        evaluate_file(file, task="cls", weights=networks / "det.safetensors", data=image_folder, size=None)
    root = as_coco(image_folder, tmp_path / "coco")
    with pytest.raises(UserError, match="no labels for task 'cls'"):
        evaluate_file(file, task="cls", weights=None, data=root, size=None)


def test_the_size_is_what_was_trained_at_unless_another_is_asked_for(networks: Path, image_folder: Path) -> None:
    for asked, expected in ((None, (32, 32)), ((64, 96), (64, 96))):
        found = evaluate_file(networks / "seg.json", task=None, weights=None, data=image_folder, size=asked)["seg"]
        assert found.size == expected
    bare = load_architecture(networks / "seg.json").changed(provenance={}, resolution=(224, 224))
    assert trained_size(bare) == (224, 224)
