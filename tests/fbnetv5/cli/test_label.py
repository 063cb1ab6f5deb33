"""``fbnetv5 label`` as a user types it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import from_numpy, uint8, zeros
from torch.nn import functional

from export.manifest import read_manifest
from export.runners import OrtRunner
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.maps import write_map
from tests.command_line import QUICK, SMALL, assert_refused, document, in_process
from tests.fbnetv5.data.test_instance_masks import HEIGHT, WIDTH, write_coco
from tests.fbnetv5.labeling.labelled_scenes import SIZES, number_of, rectangle, true_mask, write_images
from tests.fbnetv5.labeling.teachers.onnx_files import CLASSES, classifier, save_png, segmenter


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with ten unlabelled images in ``images/a``, ``cls.onnx`` and ``seg.onnx``."""
    write_images(tmp_path / "all", 20)
    shutil.copytree(tmp_path / "all" / "0", tmp_path / "images" / "a")
    shutil.rmtree(tmp_path / "all")
    classifier(tmp_path / "cls.onnx")
    segmenter(tmp_path / "seg.onnx", size=[96, 96])
    return tmp_path


TEACHERS = ("--teacher", "cls=cls.onnx", "--teacher", "seg=seg.onnx")


def test_the_summary_is_one_line_and_one_document(images: Path) -> None:
    (images / "images" / "a" / "damaged.jpg").write_bytes(b"damaged")
    arguments = ["label", "images", *TEACHERS, "--derive", "edges=seg", "-o", "out", "--threshold", "0.6"]
    done = in_process(*arguments, cwd=images)
    assert done.returncode == 0, done.stderr
    line = "out: 10 images, labelled cls 10, seg 10, edges 10; 1 unreadable left out (left-out.jsonl)\n"
    assert done.stdout == line
    assert "images: images without labels" in done.stderr
    printed = document(*arguments, cwd=images)
    assert printed["tasks"]["seg"] == {"labelled": 10, "kept": 0, "teacher": 10, "derived": 0}
    assert len(open_folder(images / "out")) == 10


def test_the_output_of_a_preview_may_be_the_present_folder(images: Path) -> None:
    folder = images / "here"
    folder.mkdir()
    printed = document("label", "../images", "--teacher", "cls=../cls.onnx", "-o", ".", "--preview", "1", cwd=folder)
    assert Path(printed["preview"]) == images / "here-preview.html"


def test_a_preview_is_one_page_beside_the_output(images: Path) -> None:
    printed = document("label", "images", *TEACHERS, "-o", "out", "--preview", "2", cwd=images)
    assert printed == {"preview": "out-preview.html", "images": 2}
    assert "<img " in (images / "out-preview.html").read_text(encoding="utf-8")
    assert not (images / "out").exists()


def test_polygons_of_coco_become_the_labels_of_four_tasks(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", ("triangle", "two polygons"))
    for name in ("5.png", "6.png"):
        save_png(tmp_path / "coco" / "train" / name, zeros(3, HEIGHT, WIDTH, dtype=uint8))
    rules = [f"--derive={task}=instances" for task in ("seg", "saliency", "edges")]
    printed = document("label", "coco", *rules, "--derive=cls=largest-box", "-o", "out", cwd=tmp_path)
    assert printed["tasks"]["det"]["kept"] == 2
    data = open_folder(tmp_path / "out")
    assert data.labels(data.names.index("train__5.png")).keys() == {"label", "boxes", "mask", "saliency", "edges"}
    assert not data.labels(data.names.index("train__6.png"))["edges"].any()


WRONG = {
    "no teacher": ([], "there is nothing to label with"),
    "form": (["--teacher", "cls.onnx"], "--teacher 'cls.onnx' is not TASK=VALUE"),
    "twice": (["--teacher", "cls=a", "--teacher", "cls=b"], "names task cls twice"),
    "no file": (["--teacher", "cls=none.onnx"], "there is no ONNX file none.onnx"),
    "task": (["--teacher", "det=cls.onnx"], "cls.onnx is a teacher of task cls, not of det"),
    "device": ([*TEACHERS, "--device", "tpu"], "--device 'tpu' is neither cpu nor cuda"),
    "rule": (["--derive", "cls=largest-box"], "reads boxes, and there are none"),
    "threshold": ([*TEACHERS, "--threshold", "1.5"], "threshold"),
    "names": ([*TEACHERS, "--config", "names.json"], "names 'blue', which is no class of the teacher"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_writes_nothing(options: list[str], message: str, images: Path) -> None:
    (images / "names.json").write_text('{"teachers": {"cls": {"classes": {"blue": "x"}}}}', encoding="utf-8")
    assert_refused(["label", "images", *options, "-o", "out"], message, cwd=images)


def test_a_description_that_is_missing_or_wrong_is_named(images: Path) -> None:
    fields = json.loads((images / "seg.json").read_text(encoding="utf-8"))
    (images / "seg.json").write_text(json.dumps(fields | {"classes": ["a", "b"]}), encoding="utf-8")
    arguments = ["label", "images", *TEACHERS, "-o", "out"]
    assert_refused(arguments, "teacher seg.onnx: its output has 3 classes, and 2 are named", cwd=images)
    (images / "seg.json").unlink()
    assert_refused(arguments, "seg.json does not exist: it describes the ONNX file beside it", cwd=images)


def test_missing_weights_exit_with_3(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(images))
    done = in_process("label", "images", "--teacher", "cls=torchvision:resnet18", "-o", "out", cwd=images)
    assert done.returncode == 3
    assert "add --download" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def write_truth(root: Path, count: int) -> Path:
    """The images 0, 1, ... with their true labels, as a data set for several tasks."""
    write_images(root / "plain", count)
    (root / "images").mkdir()
    records = []
    for file in sorted((root / "plain").rglob("*.png")):
        number, name = number_of(file.name), f"{file.parent.name}__{file.name}"
        file.rename(root / "images" / name)
        write_map(root / "masks" / name, "mask", true_mask(number).numpy())
        height, width = SIZES[number % len(SIZES)]
        label = CLASSES[rectangle(number)[4]]
        records.append({"id": number, "file_name": name, "height": height, "width": width, "label": label})
    fields = {"labels": CLASSES, "mask_classes": ("background", *CLASSES), "images": records}
    (root / "instances.json").write_text(json.dumps(fields), encoding="utf-8")
    return root


@pytest.mark.slow
def test_a_search_and_a_training_on_the_labels_score_on_true_ones(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 120)
    write_truth(tmp_path / "truth", 120)
    classifier(tmp_path / "cls.onnx")
    segmenter(tmp_path / "seg.onnx", size=[96, 96])
    document("label", "images", "--ignore-labels", *TEACHERS, "-o", "out", cwd=tmp_path)
    assert open_folder(tmp_path / "out").names == open_folder(tmp_path / "truth").names
    search = ["search", "--flops", "15M@64x64", "--data", "out", "--tasks", "cls,seg", "--name", "one", *SMALL]
    document(*search, "--config", str(QUICK), cwd=tmp_path)
    fields = {"steps": 150, "batch": 8, "warmup_steps": 10, "evaluate_every": 50, "checkpoint_every": 50, "lr": 2e-3}
    (tmp_path / "train.json").write_text(json.dumps(fields), encoding="utf-8")
    train = ["train", "--task", "seg", "--data", "out", "--size", "64x64", "--config", "train.json", "--output", "seg"]
    document(*train, cwd=tmp_path)
    score = document("eval", "--arch", "seg/seg.json", "--data", "truth", "--size", "64x64", cwd=tmp_path)
    assert score["metric"]["value"] > 0.6
    exported = document("export", "--task", "seg", "--run", "seg", cwd=tmp_path)
    assert exported["metric"]["stages"]["fp32"] > 0.6


def test_an_exported_network_labels_as_it_predicts(work: Path, images: Path) -> None:
    folder = work / document("export", "--task", "seg", cwd=work)["folder"]
    arguments = ["label", "images", "--teacher", f"seg={folder}", "--threshold", "0", "-o", "out"]
    assert document(*arguments, cwd=images)["tasks"]["seg"]["teacher"] == 10
    data = open_folder(images / "out")
    (steps, runner) = read_manifest(folder).preprocessing, OrtRunner(folder / "model.onnx")
    for index in range(3):
        file = Image.open(data.path(index))
        values = np.asarray(file.resize(steps.resize[::-1], Image.Resampling.BILINEAR), np.float32) / 255
        inputs = ((values - steps.mean) / steps.std).transpose(2, 0, 1)[None].astype(np.float32)
        logits = from_numpy(runner({"images": inputs})["logits"])
        resized = functional.interpolate(logits, size=file.size[::-1], mode="bilinear", align_corners=False)
        assert (resized.argmax(1)[0] == data.labels(index)["mask"]).float().mean() > 0.95
