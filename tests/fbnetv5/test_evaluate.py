import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from export.errors import UserError
from export.placement import FITS
from fbnetv5 import evaluate as module
from fbnetv5.architecture import load_architecture, make_architecture
from fbnetv5.cli import app
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import in_order
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.data.splits import Concatenated, Subset, open_splits, targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import (
    Raw,
    baseline_files,
    check_labelled,
    compare,
    delta_m,
    evaluate_file,
    measure,
    trained_fit,
    trained_size,
)
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.average_precision import COCO_FIGURES
from fbnetv5.tasks.depth import RATIOS
from fbnetv5.tasks.normals import LIMITS
from fbnetv5.tasks.task import MetricInfo
from fbnetv5.training.config import TrainConfig
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
    "normals": {"mean_angle", "median_angle", *LIMITS},
    "parts": {"miou", "pixel_accuracy", "iou"},
}
HIGHER = MetricInfo(name="miou")
PASCAL_CONTEXT = {
    "seg": (59.69, 65.11, HIGHER),
    "parts": (55.96, 57.54, HIGHER),
    "saliency": (63.03, 65.41, HIGHER),
    "normals": (16.02, 13.98, MetricInfo(name="mean_angle", unit="degrees", lower_is_better=True)),
    "edges": (67.80, 69.50, HIGHER),
}
"""Task -> value of the shared MobileNetV2 and of one network per task, as BMTAS reports them; the metric."""
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
    metrics = measure(make_tasks(("cls",), CLASSES), network_with_outputs(labels), in_order(IMAGES, batch=batch))
    assert metrics["cls"].compute() == pytest.approx(expected)


def test_images_without_labels_do_not_count() -> None:
    (batch,) = in_order(IMAGES, batch=10)
    known = keep_labels(batch, "label", torch.arange(10) < 4)
    predictions = torch.where(torch.arange(10) < 3, TRUTH, (TRUTH + 1) % len(CLASSES["label"]))
    metrics = measure(make_tasks(("cls",), CLASSES), network_with_outputs(predictions), [known])
    assert metrics["cls"].compute() == pytest.approx(0.75)


def test_the_check_of_labels_reads_no_image(image_folder: Path) -> None:
    """The last image alone has a class; the first is damaged since the folder was opened."""
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    for row in document["images"][:-1]:
        del row["label"]
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    data = open_folder(image_folder).only(["label"])
    for path in (image_folder / "images").iterdir():
        path.write_bytes(b"damaged")
    (task,) = make_tasks(("cls",), class_names(data.targets)).values()
    view = data.resized((32, 32))
    for images in (view, Concatenated(Subset(view, [0]), view)):
        check_labelled(task, images, "learn from")
    with pytest.raises(UserError, match="none of the 2 images to learn from has labels for cls"):
        check_labelled(task, Concatenated(Subset(view, [1]), Subset(view, [2])), "learn from")


def test_a_part_without_any_object_fails_the_check_for_detection(image_folder: Path) -> None:
    """Two images show no object, and the file of one of them is damaged."""
    path = image_folder / "instances.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    empty = [row["id"] for row in document["images"][:2]]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] not in empty]
    path.write_text(json.dumps(document), encoding="utf-8")
    data = open_folder(image_folder).only(["boxes"])
    (image_folder / "images" / document["images"][0]["file_name"]).write_bytes(b"damaged")
    view = data.resized((32, 32))
    (task,) = make_tasks(("det",), class_names(data.targets)).values()
    check_labelled(task, view, "test on")
    with pytest.raises(UserError, match="none of the 2 images to test on shows an object for det"):
        check_labelled(task, Subset(view, [0, 1]), "test on")


def test_demo_scenes_pass_the_check_of_labels() -> None:
    for task in make_tasks(("cls", "det", "seg"), CLASSES).values():
        check_labelled(task, IMAGES, "test on")


def test_networks_see_normalised_images_without_gradients() -> None:
    seen: list[tuple[float, bool]] = []

    def raw(images: Tensor) -> dict[str, Tensor]:
        seen.append((float(images.abs().max()), torch.is_grad_enabled()))
        return {"cls": torch.zeros(len(images), len(CLASSES["label"]))}

    measure(make_tasks(("cls",), CLASSES), raw, in_order(IMAGES, batch=5))
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


def test_demo_scenes_are_not_letterboxed(networks: Path) -> None:
    evaluation = evaluate_file(networks / "cls.json", task=None, weights=None, data=None, size=None, fit="letterbox")
    assert evaluation["cls"].fit == "stretch"


def test_the_fit_is_that_of_the_training_unless_another_is_asked_for(
    networks: Path, uneven_folder: Path, tmp_path: Path
) -> None:
    architecture, values = load_architecture(networks / "seg.json"), {}
    assert trained_fit(architecture) == "stretch"
    file = Path(shutil.copytree(networks, tmp_path / "networks")) / "seg.json"
    architecture.changed(provenance={**architecture.provenance, "fit": "letterbox"}).save(file)
    for fit in (None, *FITS[::-1]):
        evaluation = evaluate_file(file, task="seg", weights=None, data=uneven_folder, size=None, fit=fit)["seg"]
        assert evaluation.fit == (fit or "letterbox")
        values[fit] = evaluation.value
    assert values[None] == values["letterbox"] != values["stretch"]
    theirs = {"seg": networks / "seg.json"}
    of_baselines = [compare(theirs, {"seg": evaluation}, uneven_folder, fit).baselines["seg"].value for fit in FITS]
    assert of_baselines == [values["stretch"], values["letterbox"]]
    assert compare(theirs, {"seg": evaluation}, uneven_folder).baselines["seg"].value == values["stretch"]


def test_delta_m_is_that_of_the_paper() -> None:
    values = {task: value for task, (value, _, _) in PASCAL_CONTEXT.items()}
    baselines = {task: baseline for task, (_, baseline, _) in PASCAL_CONTEXT.items()}
    metrics = {task: metric for task, (_, _, metric) in PASCAL_CONTEXT.items()}
    assert delta_m(values, baselines, metrics) == pytest.approx(-6.35, abs=5e-3)
    assert delta_m(baselines, baselines, metrics) == 0


def test_a_baseline_of_zero_has_no_relative_gain(
    networks: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = evaluate_file(networks / "seg.json", task="seg", weights=None, data=image_folder, size=(32, 64))
    nothing = {"seg": replace(ours["seg"], value=0.0)}
    monkeypatch.setattr(module, "evaluate_file", lambda *_, **__: nothing)
    comparison = compare({"seg": networks / "seg.json"}, ours, image_folder)
    assert (comparison.baselines["seg"].gain_percent, comparison.delta_m_percent) == (None, None)
    check_document(["eval", "--baseline"], {"tasks": {"seg": ours["seg"].to_json()}, **comparison.to_json()})


def test_baselines_are_evaluated_on_the_same_images(branched: Path, networks: Path, image_folder: Path) -> None:
    ours, alone = (
        evaluate_file(file, task="seg", weights=None, data=image_folder, size=(32, 64))
        for file in (branched, networks / "seg.json")
    )
    comparison = compare({"seg": networks / "seg.json"}, ours, image_folder)
    value, reference = ours["seg"].value, alone["seg"].value
    assert comparison.baselines["seg"].value == reference > 0
    assert comparison.delta_m_percent == pytest.approx(100 * (value / reference - 1))


def test_a_folder_has_the_baselines_of_all_tasks(branched: Path, networks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(networks, folder)
    TrainConfig(task_names=("det", "seg", "depth")).save(folder)
    files = baseline_files([folder, networks / "cls.json"], load_architecture(branched), ["cls", "det", "seg"])
    assert files == {"cls": networks / "cls.json", "det": folder / "det.json", "seg": folder / "seg.json"}


def test_the_folder_of_a_branched_network_is_no_baseline(branched: Path, tmp_path: Path) -> None:
    shutil.copy(branched, tmp_path)
    TrainConfig(task_names=("cls", "det", "seg")).save(tmp_path)
    with pytest.raises(UserError, match=r"one network of several tasks \(cls\+det\+seg\); a baseline must be of one"):
        baseline_files([tmp_path], load_architecture(branched), ["cls", "det", "seg"])


WRONG_BASELINES = {
    "missing": (["cls", "seg"], "there is no baseline for det: add --baseline FILE"),
    "two": (["cls", "det", "seg", "det"], r"there are two baselines for det: .*det\.json and .*det\.json"),
    "another task": (["depth"], r"depth\.json is a network for depth; one of these is needed: cls, det, seg"),
    "several tasks": (["branched"], r"branched\.json is a network for cls\+det\+seg; one of these is needed"),
    "no weights": (["cls", "det", "seg"], r"--baseline .*cls\.json has no weights, .*cls\.safetensors: train it first"),
    "other classes": (["renamed"], r"--baseline .*renamed\.json has other classes than the network"),
}


@pytest.mark.parametrize(("names", "message"), WRONG_BASELINES.values(), ids=WRONG_BASELINES)
def test_wrong_baselines_are_named(
    branched: Path, networks: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    for name in ("cls", "det", "seg"):
        shutil.copy(networks / f"{name}.json", tmp_path)
    shutil.copy(branched, tmp_path)
    det = load_architecture(networks / "det.json")
    det.changed(classes={**det.classes, "boxes": tuple(reversed(det.classes["boxes"]))}).save(tmp_path / "renamed.json")
    make_architecture(det.space, {"depth": det.choices["det"]}, det.classes, det.resolution, provenance={}).save(
        tmp_path / "depth.json"
    )
    paths = [tmp_path / f"{name}.json" for name in names]
    with pytest.raises(UserError, match=message):
        baseline_files(paths, load_architecture(branched), ["cls", "det", "seg"])
