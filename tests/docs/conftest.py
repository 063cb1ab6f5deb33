"""The files and folders that the pages suppose, such as a data set, photographs and a finished run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fbnetv5.architecture import make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.spaces.branching import BranchingSpace
from tests.command_line import in_process
from tests.contract.stored import TASKS, stored_run
from tests.docs.small import CONFIGS
from tests.fbnetv5.data.test_instance_masks import HEIGHT, WIDTH, write_coco


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory, labelled_scenes: Path) -> Path:
    """A folder with everything that pages suppose, under the names that they use."""
    folder = tmp_path_factory.mktemp("supplies")
    for name in ("my-images", "labelled", "DIR"):
        shutil.copytree(labelled_scenes, folder / name)
    write_photos(folder, labelled_scenes / "images")
    write_video(folder / "street.mp4")
    write_coco_folder(folder / "coco")
    write_run(folder)
    for name in ("tree", "trained/branched"):
        write_tree(folder / name)
    write_trained(folder)
    return folder


def write_photos(folder: Path, images: Path) -> None:
    """Two photographs in ``photos``, of which one is of a month, and ``photo.jpg``."""
    for name, image in {"photo.jpg": "00.png", "photos/a.jpg": "01.png", "photos/2026-07/b.jpg": "02.png"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(images / image).save(folder / name)


def write_video(path: Path) -> None:
    """Two frames of 64x64 pixels."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (60, 120):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_coco_folder(folder: Path) -> None:
    """A COCO data set of two images with polygons."""
    write_coco(folder, ("triangle", "two polygons"))
    for name in ("5.png", "6.png"):
        (folder / "train").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "train" / name)


def write_run(folder: Path) -> None:
    """``runs/latest``, a finished search, and the exported folder of its detector in ``shipped``."""
    (folder / "runs").mkdir()
    stored_run(folder / "runs" / "one")
    (folder / "runs" / "latest").symlink_to("one")
    run(folder, "export", "--task", "det", "--output", "shipped")
    for name in ("model.onnx", "large.onnx"):
        shutil.copy(folder / "shipped" / "det" / "model.onnx", folder / name)


def write_tree(folder: Path) -> None:
    """A branched network of three tasks with random weights: det leaves the others early, cls and seg late."""
    space = BranchingSpace(width=0.25)
    layers = len(space.variables)
    choices = {"cls": [0] * layers, "det": [0, 0] + [1] * (layers - 2), "seg": [0] * (layers - 3) + [2] * 3}
    architecture = make_architecture(space, choices, CLASSES, (64, 64), provenance={"trained_at": [64, 64]})
    folder.mkdir(parents=True)
    architecture.save(folder / "branched.json")
    torch.manual_seed(1)
    save_tensors(folder / "branched.safetensors", architecture.build().state_dict())


def write_trained(folder: Path) -> None:
    """``trained/TASK`` of a few steps; copies of these networks as larger ones, in ``trained/large`` and ``large``."""
    (folder / "train.json").write_text(json.dumps(CONFIGS["train"]), encoding="utf-8")
    for task in TASKS:
        run(folder, "train", "--task", task, "--config", "train.json")
        for large in ("trained/large", "large"):
            shutil.copytree(folder / "trained" / task, folder / large, dirs_exist_ok=True)


def run(folder: Path, *arguments: str) -> None:
    """Run a command that must succeed."""
    done = in_process(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
