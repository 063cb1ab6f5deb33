"""Fixtures that several folders of tests share."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.cuda import find_gpus
from export.errors import UnavailableError
from export.runners import Array
from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.deploy.profile import Scope, graphs_of
from fbnetv5.spaces.four_path import FourPathSpace
from latency.profile import NULL, onnx_of

SCENES = 24


def annotations_of(sample: Sample, image_id: int, first_id: int) -> list[dict[str, object]]:
    """A scene's boxes as COCO annotations."""
    boxes = sample.targets["boxes"]
    return [
        {"id": first_id + n, "image_id": image_id, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for n, ((x0, y0, x1, y1), label) in enumerate(zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True))
    ]


def pytest_configure() -> None:
    """Take Ctrl+C as a terminal sends it: in a job of the background it is ignored, also by the commands it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The mark ``gpu`` skips a test where there is none."""
    if item.get_closest_marker("gpu") is not None:
        try:
            here = bool(find_gpus())
        except UnavailableError:
            here = False
        if not here:
            pytest.skip("needs an NVIDIA GPU with a driver")


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Header indexes of this run's data sets go into a folder of the run, those of its subprocesses too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def without_tensorrt(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started here find empty modules under TensorRT's names, as packages of type stubs leave them."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("tensorrt", "tensorrt_rtx"):
        (folder / f"{name}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def image_folder(labelled_scenes: Path, tmp_path: Path) -> Path:
    """A folder of 24 fully labelled 64x64 images, 00.png to 23.png: the first training scenes."""
    return Path(shutil.copytree(labelled_scenes, tmp_path / "images"))


@pytest.fixture
def uneven_folder(image_folder: Path) -> Path:
    """The same folder with images of various aspects: black is added on the right, or below every third image."""
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    for number, record in enumerate(document["images"]):
        more = 17 * (number % 5)
        record["width"], record["height"] = (64, 64 + more) if number % 3 == 0 else (64 + more, 64)
        for folder in ("images", "masks", "parts", "saliency", "edges", "depth", "normals"):
            path = image_folder / folder / record["file_name"]
            pixels = np.asarray(Image.open(path))
            added = [(0, record["height"] - 64), (0, record["width"] - 64), (0, 0)][: pixels.ndim]
            Image.fromarray(np.pad(pixels, added)).save(path)
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return image_folder


@pytest.fixture(scope="session")
def labelled_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the copies ``image_folder``, which no test may change."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir()
    for name in ("masks", "parts", "saliency", "edges", "depth", "normals"):
        (root / name).mkdir()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    scenes = Scenes("train", size=(64, 64), count=SCENES)
    for index in range(SCENES):
        sample, name = scenes[index], f"{index:02d}.png"
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(root / "images" / name)
        Image.fromarray(sample.targets["mask"].numpy()).save(root / "masks" / name)
        Image.fromarray(sample.targets["parts"].numpy()).save(root / "parts" / name)
        for binary in ("saliency", "edges"):
            Image.fromarray(sample.targets[binary].numpy() * 255).save(root / binary / name)
        Image.fromarray((sample.targets["depth"].numpy() * 1000).astype(np.uint16)).save(root / "depth" / name)
        colours = (
            ((sample.targets["normals"].nan_to_num(-1).permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
        )
        Image.fromarray(colours).save(root / "normals" / name)
        label = CLASSES["label"][sample.targets["label"]]
        images.append({"id": index + 1, "file_name": name, "width": 64, "height": 64, "label": label})
        annotations += annotations_of(sample, index + 1, len(annotations) + 1)
    document = {
        "labels": CLASSES["label"],
        "mask_classes": CLASSES["mask"],
        "part_classes": CLASSES["parts"],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES["boxes"])],
    }
    (root / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def blocks() -> dict[str, tuple[bytes, dict[str, Array]]]:
    """Every distinct block and head of variant a at 224x224, and the graph that does nothing: (ONNX, inputs) by key."""
    scope = Scope(space=FourPathSpace(variant="a"), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(224, 224))
    return {graph.key: onnx_of(graph) for graph in [NULL, *graphs_of(scope)]}
