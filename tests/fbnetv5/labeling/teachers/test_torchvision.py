"""Networks of torchvision, with random weights in a file."""

from pathlib import Path

import pytest
import torch
from torchvision import models

from export.errors import UnavailableError, UserError
from fbnetv5.data.predictions import ScoredBoxes
from fbnetv5.labeling.teachers.decoders import ScoredMap
from fbnetv5.labeling.teachers.families import open_teacher

IMAGE = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 9), scale_factor=40.0, mode="bilinear")[0]
PIXELS = (IMAGE * 255).to(torch.uint8)


def saved(path: Path, name: str, **options: object) -> tuple[str, torch.nn.Module]:
    """The name of a teacher with random weights, and its network."""
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, **options).eval()
    torch.save(network.state_dict(), path)
    return f"torchvision:{name}@{path}", network


def test_a_classifier_is_prepared_as_torchvision_does(tmp_path: Path) -> None:
    name, peer = saved(tmp_path / "w.pth", "mobilenet_v3_small", num_classes=4)
    teacher = open_teacher("cls", name, class_names=("a", "b", "c", "d"), device="cpu")
    prepare = models.get_model_weights("mobilenet_v3_small").DEFAULT.transforms()
    with torch.inference_mode():
        expected = peer(prepare(PIXELS)[None])
    torch.testing.assert_close(teacher.class_logits(PIXELS[None]), expected, atol=1e-3, rtol=1e-3)


def test_a_detector_returns_its_boxes_in_pixels_of_the_image(tmp_path: Path) -> None:
    name, peer = saved(tmp_path / "w.pth", "ssdlite320_mobilenet_v3_large", weights_backbone=None, num_classes=3)
    teacher = open_teacher("det", name, class_names=("cat", "dog"), device="cpu")
    assert teacher.classes == ("", "cat", "dog")
    (prediction,) = teacher.predict([PIXELS], ["a"])
    assert isinstance(prediction, ScoredBoxes)
    with torch.inference_mode():
        (expected,) = peer([PIXELS / 255])
    torch.testing.assert_close(prediction.scores[0], expected["scores"][0])
    torch.testing.assert_close(prediction.xyxy[0], expected["boxes"][0], atol=1e-3, rtol=0)
    assert prediction.labels.min() >= 1


def test_segmentation_covers_the_image(tmp_path: Path) -> None:
    name, _ = saved(tmp_path / "w.pth", "lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=3)
    teacher = open_teacher("seg", name, class_names=("background", "a", "b"), device="cpu")
    (prediction,) = teacher.predict([PIXELS], ["a"])
    assert isinstance(prediction, ScoredMap)
    assert prediction.ids.shape == (240, 360)


def test_published_classes_and_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"torchvision has no network 'resnet18' for det; it has: .*ssdlite320"):
        open_teacher("det", "torchvision:resnet18")
    with pytest.raises(UnavailableError, match="the weights of torchvision:resnet18 are not on this machine"):
        open_teacher("cls", "torchvision:resnet18")
    name, _ = saved(tmp_path / "w.pth", "lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=21)
    assert open_teacher("seg", name).classes[:2] == ("background", "aeroplane")
