"""Whole predictions: files, and the same average precision as that of an evaluation."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from export.errors import UserError
from fbnetv5.data.predictions import ProbabilityMap
from fbnetv5.deploy.predict.models import Predictor, load
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap
from fbnetv5.deploy.predict.run import FILE, _save, map_pixels, predict_frames
from fbnetv5.deploy.predict.sources import Frame, open_source
from fbnetv5.deploy.predict.truth import open_labelled
from fbnetv5.evaluate import evaluate_file
from fbnetv5.runs.checkpoint import load_tensors, save_tensors

SIZES = [(64, 40), (30, 70), (50, 50), (33, 91), (128, 20), (45, 31), (80, 64), (20, 20)]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Images of noise of several sizes, (width, height), in a data set without objects."""
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        noise = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height)).save(folder / f"{number}.png")
    return folder.parent


@pytest.fixture
def detector(networks: Path, tmp_path: Path) -> Path:
    """The architecture file of a detector whose boxes and scores differ, unlike those of initial weights."""
    file = Path(shutil.copytree(networks, tmp_path / "networks")) / "det.json"
    weights = load_tensors(file.with_suffix(".safetensors"))
    torch.manual_seed(0)
    for name, values in weights.items():
        if name.startswith("heads.det") and values.ndim == 4:
            values.normal_(std=(500 if "classify" in name else 5) / values[0].numel() ** 0.5)
    save_tensors(file.with_suffix(".safetensors"), weights)
    return file


def run(model: Predictor, source: Path, folder: Path) -> dict[str, Any]:
    predict_frames(model, open_source(str(source)), folder, report=lambda frame: None)
    document: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return document


def test_the_json_file_has_the_average_precision_of_an_evaluation(
    detector: Path, photographs: Path, tmp_path: Path
) -> None:
    found = run(load(detector), photographs / "images", tmp_path / "found")
    boxes = found["annotations"]
    best = {image["id"]: [box for box in boxes if box["image_id"] == image["id"]][:6] for image in found["images"]}
    true = [dict(box, bbox=[side * 0.98 for side in box["bbox"]]) for rows in best.values() for box in rows[::2]]
    images = [{**image, "split": "test"} for image in found["images"]]
    for number in range(100, 112):  # for the other splits
        Image.new("RGB", (20, 20)).save(photographs / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 20, "height": 20})
    truth = {"images": images, "categories": found["categories"], "annotations": true}
    (photographs / "instances.json").write_text(json.dumps(truth), encoding="utf-8")
    evaluation = evaluate_file(detector, task=None, weights=None, data=photographs, size=None)["det"]
    coco = COCO(str(photographs / "instances.json"))
    peer = COCOeval(coco, coco.loadRes(boxes), "bbox")
    peer.evaluate(), peer.accumulate(), peer.summarize()
    assert evaluation.images == len(SIZES)
    assert 0.05 < evaluation.value == pytest.approx(peer.stats[0], abs=2e-3)


def test_boxes_from_the_minimum_score_on_are_counted(detector: Path, photographs: Path, tmp_path: Path) -> None:
    weights = load_tensors(detector.with_suffix(".safetensors"))
    save_tensors(
        detector.with_suffix(".safetensors"),
        {name: values / 30 if "classify" in name and values.ndim == 4 else values for name, values in weights.items()},
    )
    frames, middle = open_source(str(photographs / "images")), 0.25
    result = predict_frames(load(detector), frames, tmp_path / "found", min_score=middle, report=lambda frame: None)
    boxes = json.loads(result.file.read_text(encoding="utf-8"))["annotations"]
    scores = [box["score"] for box in boxes]
    above = sum(score >= middle for score in scores)
    assert result.boxes == above
    assert 0 < above < len(scores)
    assert result.highest_score == pytest.approx(max(scores), abs=1e-6)


def test_every_image_is_drawn_and_has_its_map(networks: Path, photographs: Path, tmp_path: Path) -> None:
    (photographs / "images" / "broken.png").write_bytes(b"no image")
    found = run(load(networks / "seg.json"), photographs, tmp_path / "found")
    assert [row["file_name"] for row in found["images"]] == [f"images/{number}.png" for number in range(len(SIZES))]
    assert [row["file_name"] for row in found["left_out"]] == ["images/broken.png"]
    for row, (width, height) in zip(found["images"], SIZES, strict=True):
        assert Image.open(tmp_path / "found" / row["file_name"]).size == (width, height)
        ids = np.asarray(Image.open(tmp_path / "found" / row["seg"]))
        assert ids.shape == (height, width)
        assert ids.max() < len(found["classes"]["seg"])


def test_classes_are_listed_from_the_most_probable(networks: Path, photographs: Path, tmp_path: Path) -> None:
    found = run(load(networks / "cls.json"), photographs, tmp_path / "found")
    probabilities = [row["probability"] for row in found["images"][0]["cls"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)


def test_without_a_readable_image_nothing_is_written(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"no image can be read: cannot read .*broken\.png"):
        run(load(networks / "cls.json"), tmp_path / "broken.png", tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_the_values_of_maps_are_those_that_data_sets_have() -> None:
    ones = np.ones((2, 3), dtype=np.float32)
    pixels = [
        map_pixels(each)
        for each in (
            ClassMap(ones.astype(np.uint8)),
            ProbabilityMap(ones / 2),
            DepthMap(ones * 1.2345),
            NormalMap(np.stack([ones, 0 * ones, -ones])),
        )
    ]
    assert [None if each is None else each.flat[0] for each in pixels] == [1, 128, 1234, 255]
    assert [None if each is None else each.dtype for each in pixels] == [np.uint8, np.uint8, np.uint16, np.uint8]


def test_the_images_themselves_are_never_replaced(networks: Path, photographs: Path) -> None:
    images = photographs / "images"
    before = {path: path.read_bytes() for path in images.iterdir()}
    with pytest.raises(UserError, match=r"0\.png is an image of the source: name another folder with -o"):
        predict_frames(load(networks / "cls.json"), open_source(f"{images}/*.png"), images, report=lambda frame: None)
    assert before == {path: path.read_bytes() for path in images.iterdir()}


def test_a_drawing_that_its_format_cannot_have_becomes_a_png(tmp_path: Path) -> None:
    _save(Image.new("RGB", (16384, 1)), tmp_path / "wide.webp")
    _save(Image.new("RGB", (2, 1)), tmp_path / "a.bmp")
    assert Image.open(tmp_path / "wide.webp.png").format == "PNG"
    assert Image.open(tmp_path / "a.bmp").format == "BMP"


def test_the_images_of_a_data_set_are_never_replaced_either(networks: Path, image_folder: Path) -> None:
    before = {path: path.read_bytes() for path in (image_folder / "images").iterdir()}
    frames, truth = open_labelled(image_folder, ("cls",))
    with pytest.raises(UserError, match=r"00\.png is an image of the source: name another folder with -o"):
        predict_frames(
            load(networks / "cls.json"), frames, image_folder / "images", truth=truth, report=lambda frame: None
        )
    assert before == {path: path.read_bytes() for path in (image_folder / "images").iterdir()}


def test_nothing_is_written_outside_of_the_folder_of_the_results(networks: Path, tmp_path: Path) -> None:
    frame = Frame(name="../a.png", image=Image.new("RGB", (8, 8)))
    with pytest.raises(UserError, match=r"\.\./a\.png lies outside of the data set"):
        predict_frames(load(networks / "seg.json"), iter([frame]), tmp_path / "found", report=lambda frame: None)
    assert list(tmp_path.iterdir()) == []
