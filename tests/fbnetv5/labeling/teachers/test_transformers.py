"""Networks of transformers, of tiny size and with random weights in a local folder."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UnavailableError, UserError
from fbnetv5.data.predictions import ClassScores, ScoredBoxes
from fbnetv5.labeling.teachers.decoders import DenseValues, ScoredMap
from fbnetv5.labeling.teachers.families import open_teacher

IMAGE = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 9), scale_factor=8.0, mode="bilinear")[0]
PIXELS = (IMAGE * 255).to(torch.uint8)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
NAMES = {"id2label": {0: "cat", 1: "N/A", 2: "dog"}, "label2id": {"cat": 0, "N/A": 1, "dog": 2}}


def saved(folder: Path, network: Any, processor: Any) -> str:
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_without_the_library_the_extra_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"pip install 'fbnetv5\[teachers\]'"):
        open_teacher("cls", "transformers:google/vit")


def test_a_classifier_and_a_detector_return_what_the_library_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=8, **SMALL, **NAMES)
    )
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    teacher = open_teacher("cls", saved(tmp_path / "vit", network, processor), device="cpu")
    with torch.inference_mode():
        expected = network.eval()(**processor(images=[PIXELS], return_tensors="pt")).logits
    torch.testing.assert_close(teacher.class_logits(PIXELS[None]), expected, atol=1e-4, rtol=1e-4)
    (scores,) = teacher.predict([PIXELS], ["a"])
    assert isinstance(scores, ClassScores)
    assert teacher.classes == ("cat", "N/A", "dog")

    config = transformers.YolosConfig(image_size=[64, 64], num_detection_tokens=5, **SMALL, **NAMES)
    processor = transformers.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    name = saved(tmp_path / "yolos", transformers.YolosForObjectDetection(config), processor)
    teacher = open_teacher("det", name, device="cpu")
    (boxes,) = teacher.predict([PIXELS], ["a"])
    assert isinstance(boxes, ScoredBoxes)
    assert teacher.classes == ("cat", "", "dog")
    assert bool((boxes.xyxy[:, 2:] <= torch.tensor([72.0, 48.0])).all())
    with pytest.raises(UserError, match="is no network of this task"):
        open_teacher("cls", name)


def test_segmentation_and_metric_depth_cover_the_image(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 1, 1], "depths": [1, 1, 1, 1]}
    config = transformers.SegformerConfig(decoder_hidden_size=16, **sizes, **NAMES)
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    name = saved(tmp_path / "seg", transformers.SegformerForSemanticSegmentation(config), processor)
    (classes,) = open_teacher("seg", name, device="cpu").predict([PIXELS], ["a"])
    assert isinstance(classes, ScoredMap)
    assert classes.ids.shape == (48, 72)
    glpn = transformers.GLPNForDepthEstimation(transformers.GLPNConfig(decoder_hidden_size=16, **sizes))
    name = saved(tmp_path / "depth", glpn, transformers.GLPNImageProcessor())
    (depth,) = open_teacher("depth", name, device="cpu").predict([PIXELS], ["a"])
    assert isinstance(depth, DenseValues)
    assert depth.values.shape == (48, 72)


def test_what_is_not_on_this_machine_is_not_downloaded() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UnavailableError, match=r"is not on this machine .* add --download"):
        open_teacher("det", "transformers:no-such/detector")
