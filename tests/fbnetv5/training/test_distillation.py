from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import CLASSES, PRODUCTS
from fbnetv5.tasks import make_tasks
from fbnetv5.training.distillation import fit_of_teacher, open_distillation_teacher
from tests.fbnetv5.labeling.teachers.onnx_files import SHARPNESS, classifier
from tests.fbnetv5.labeling.teachers.test_exported import BOXES, write_export

CPU = torch.device("cpu")
RED_AND_GREEN = make_tasks(("cls",), {"label": ("red", "green")})
PIXELS = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_an_architecture_teaches_the_tasks_that_it_has(branched: Path) -> None:
    teacher = open_distillation_teacher(str(branched), make_tasks(("seg", "depth", "cls"), CLASSES), CPU)
    assert teacher.tasks == {"seg", "cls"}
    network = load_architecture(branched).load(branched.with_suffix(".safetensors")).eval()
    raw, expected = teacher.raw(normalise(PIXELS)), network.raw(normalise(PIXELS))
    assert not raw["seg"].requires_grad
    for task in teacher.tasks:
        torch.testing.assert_close(raw[task], expected[task].detach(), rtol=1e-4, atol=1e-5)


def test_an_onnx_file_teaches_its_logits_for_normalised_images(tmp_path: Path) -> None:
    teacher = open_distillation_teacher(str(classifier(tmp_path / "t.onnx")), RED_AND_GREEN, CPU)
    logits = teacher.raw(normalise(PIXELS))["cls"]
    np.testing.assert_allclose(logits, SHARPNESS * PIXELS[:, :2].float().mean((2, 3)) / 255, rtol=1e-4)
    weights = torch.ones(2, requires_grad=True)
    (weights * logits).sum().backward()
    torch.testing.assert_close(weights.grad, logits.sum(0), rtol=0, atol=0)


def test_the_checksum_is_that_of_the_weights(tmp_path: Path, networks: Path) -> None:
    def checksum(name: Path) -> str:
        tasks = RED_AND_GREEN if name.suffix == ".onnx" else make_tasks(("det",), CLASSES)
        return open_distillation_teacher(str(name), tasks, CPU).checksum

    file = classifier(tmp_path / "t.onnx")
    first = checksum(file)
    assert first == checksum(classifier(tmp_path / "same.onnx"))
    file.write_bytes(file.read_bytes().replace(b"logits", b"LOGITS"))
    assert first != checksum(file)
    assert checksum(networks / "det.json") == checksum(networks / "det.json")


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path, networks: Path) -> None:
    file = classifier(tmp_path / "t.onnx")
    (tmp_path / "alone.json").write_bytes((networks / "det.json").read_bytes())
    wrong = {
        str(tmp_path / "no.json"): ("det", r"architecture file .*no\.json does not exist"),
        str(tmp_path / "no"): ("det", r"there is no teacher .*/no: name an architecture file with weights beside it"),
        str(tmp_path / "alone.json"): ("det", r"alone\.safetensors does not exist"),
        str(networks): ("det", r"is no exported folder: name an architecture file, such as .*/cls\.json"),
        str(networks / "seg.json"): ("det", r"seg\.json is a network for seg: it cannot teach det$"),
        str(classifier(tmp_path / "u.onnx")): (
            "cls",
            r"u\.onnx has other .* class 0 is 'red' there, and 't-shirt' here",
        ),
        str(file): ("det", r"t\.onnx can teach cls alone, not det: name an architecture file"),
        "timm:no_such_network": ("cls", "timm has no network 'no_such_network'"),
    }
    for name, (task, message) in wrong.items():
        with pytest.raises(UserError, match=message):
            open_distillation_teacher(name, make_tasks((task,), CLASSES), CPU)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (PRODUCTS[:-1], "class 9 is 'ankle boot' there, and None here"),
        ((*PRODUCTS, "hat"), "class 10 is None there, and 'hat' here"),
        ((*PRODUCTS[:3], "frock", *PRODUCTS[4:]), "class 3 is 'dress' there, and 'frock' here"),
    ],
    ids=["fewer", "more", "another"],
)
def test_the_first_class_that_differs_is_named(networks: Path, classes: tuple[str, ...], message: str) -> None:
    tasks = make_tasks(("cls",), {"label": classes})
    with pytest.raises(UserError, match=message):
        open_distillation_teacher(str(networks / "cls.json"), tasks, CPU)


def test_the_fit_of_a_teacher_is_that_of_its_training(networks: Path, tmp_path: Path) -> None:
    assert fit_of_teacher(str(networks / "cls.json")) == "stretch"
    architecture = load_architecture(networks / "cls.json")
    architecture.changed(provenance={**architecture.provenance, "fit": "letterbox"}).save(tmp_path / "cls.json")
    assert fit_of_teacher(str(tmp_path / "cls.json")) == "letterbox"
    assert fit_of_teacher(str(classifier(tmp_path / "t.onnx"))) is None
    assert fit_of_teacher("timm:resnet50") is None
    folder = write_export(tmp_path / "det", {"boxes": BOXES})
    assert fit_of_teacher(str(folder)) == fit_of_teacher(str(folder / "model.onnx")) == "stretch"
