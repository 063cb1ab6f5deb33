"""Searched networks as timm models, each in the hands of the real library: timm, torchvision, segmentation_models."""

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.runners import OrtRunner
from fbnetv5.architecture import make_architecture
from fbnetv5.blocks.specs import initialise
from fbnetv5.data.preprocess import normalise
from fbnetv5.deploy.export_model import load_network
from fbnetv5.integrations.timm import register_architecture
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.spaces.four_path import FourPathSpace

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("x", "y")}
RESOLUTION = (64, 96)
PATHS = {"cls": [32], "det": [8, 16, 32], "seg": [4, 8, 16, 32]}
WIDTHS = {4: 24, 8: 40, 16: 120, 32: 224}
STEPS = 4


def save_network(run: Path, task_name: str) -> None:
    """A run's files of one task; weights and statistics are random, so that every block matters."""
    torch.manual_seed(0)
    choices = np.random.default_rng(1).integers(0, 2, size=len(SPACE.variables))
    architecture = make_architecture(SPACE, {task_name: choices}, CLASSES, RESOLUTION, provenance={})
    network = architecture.build()
    initialise(network)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    architecture.save(run / f"{task_name}.json")
    save_tensors(run / f"{task_name}.safetensors", network.state_dict())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm") / "runs" / "latest"
    folder.mkdir(parents=True)
    for task in PATHS:
        save_network(folder, task)
    return folder


def create(run: Path, task: str, **options: Any) -> Any:
    torch.manual_seed(1)
    return timm.create_model("fbnetv5", arch=str(run / f"{task}.json"), **options)


def load(run: Path, task: str) -> Network:
    return load_network(run, [task])[1]


def falls(model: nn.Module, loss_of: Callable[[], Tensor]) -> bool:
    """Whether a few of timm's steps on one batch lower the loss."""
    optimizer = create_optimizer_v2(model.train(), opt="adamw", lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return bool(losses[-1] < losses[0]) and bool(np.isfinite(losses).all())


@pytest.mark.parametrize("task", PATHS)
def test_features_are_those_of_the_paths_the_task_reads(run: Path, task: str) -> None:
    model, images = create(run, task, features_only=True, pretrained=True).eval(), torch.randn(2, 3, *RESOLUTION)
    assert model.feature_info.reduction() == PATHS[task]
    assert model.feature_info.channels() == [WIDTHS[path] for path in PATHS[task]]
    hooked: dict[str, Tensor] = {}
    for name in model.feature_info.module_name():
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: hooked.update({name: out}))
    features = model(images)
    assert [f.shape for f in features] == [(2, WIDTHS[p], RESOLUTION[0] // p, RESOLUTION[1] // p) for p in PATHS[task]]
    truth = load(run, task).backbone(images)[task]
    for name, feature, expected in zip(model.feature_info.module_name(), features, truth, strict=True):
        assert hooked[name] is feature
        assert torch.equal(feature, expected)


def test_features_ignore_options_of_the_classifier(run: Path) -> None:
    options: dict[str, Any] = {"features_only": True, "num_classes": 0, "global_pool": "", "drop_rate": 0.1}
    timms, model = timm.create_model("mobilenetv3_small_050", **options), create(run, "seg", **options)
    for one, count in ((timms, 5), (model, 4)):
        assert len(one(torch.randn(1, 3, 64, 64))) == count


@pytest.mark.parametrize(("asked", "indices"), [((0, -2), [0, 2]), (2, [2, 3])])
def test_out_indices_choose_features_and_drop_dead_blocks(run: Path, asked: Any, indices: list[int]) -> None:
    images, whole = torch.randn(1, 3, *RESOLUTION), load(run, "seg").backbone
    model = create(run, "seg", features_only=True, pretrained=True, out_indices=asked).eval()
    assert model.feature_info.reduction() == [PATHS["seg"][index] for index in indices]
    for feature, index in zip(model(images), indices, strict=True):
        assert torch.equal(feature, whole(images)["seg"][index])
    assert len(model.backbone.blocks) < len(whole.blocks)


REFUSED = {
    "a feature too many": ("det", {"features_only": True, "out_indices": (0, 3)}, "0: stride 8, 1: stride 16, 2: str"),
    "more than all": ("cls", {"features_only": True, "out_indices": 2}, "a cls architecture has the features 0: str"),
    "no feature": ("seg", {"features_only": True, "out_indices": ()}, r"out_indices \(\) do not fit"),
    "dilation": ("seg", {"features_only": True, "output_stride": 16}, "output_stride must be 32, not 16"),
    "no channel": ("seg", {"in_chans": 0}, "in_chans must be at least 1"),
    "unknown pool": ("cls", {"global_pool": "median"}, "global_pool must be one of 'avg', 'max', 'avgmax', ''"),
    "stochastic depth": (
        "cls",
        {"drop_path_rate": 0.1},
        "has no option drop_path_rate.* are num_classes, in_chans, global_pool, drop_rate, and",
    ),
    "no option": (
        "seg",
        {"features_only": True, "pool": 1, "drop": 0},
        "has no option drop, pool.* are out_indices, in_chans, and",
    ),
    "unpooled classes": ("cls", {"global_pool": ""}, "num_classes=3 does not go with global_pool=''"),
}


@pytest.mark.parametrize(("task", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_unsupported_options_are_refused(run: Path, task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(run, task, **options)


def test_an_image_of_an_odd_size_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="multiples of 32 high and wide, not 64x100"):
        create(run, "seg", features_only=True)(torch.randn(1, 3, 64, 100))


def test_a_classification_model_returns_the_outputs_of_its_network(run: Path) -> None:
    model, images = create(run, "cls", pretrained=True).eval(), torch.randn(2, 3, *RESOLUTION)
    (truth,) = load(run, "cls")(images)
    assert model.num_classes == 3
    torch.testing.assert_close(model(images), truth)
    assert torch.equal(model.forward_head(model.forward_features(images)), model(images))


def test_another_number_of_classes_keeps_all_but_the_last_layer(run: Path) -> None:
    network = load(run, "cls")
    model = create(run, "cls", pretrained=True, num_classes=7)
    assert model.get_classifier().out_features == 7
    assert torch.equal(model.head.hidden.weight, network.state_dict()["heads.cls.pooled.hidden.weight"])
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, network.backbone.state_dict()[name])


def test_the_classifier_can_be_replaced_and_removed(run: Path) -> None:
    model, images = create(run, "det", num_classes=5, drop_rate=0.2).eval(), torch.randn(2, 3, *RESOLUTION)
    assert model(images).shape == (2, 5)
    assert model.forward_head(model.forward_features(images), pre_logits=True).shape == (2, model.head_hidden_size)
    model.reset_classifier(9, "max")
    assert model(images).shape == (2, 9)
    model.reset_classifier(0)
    assert model(images).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(images).shape == (2, model.num_features, 2, 3)


def test_a_classifier_of_another_tasks_run_has_its_backbone(run: Path) -> None:
    model, images = create(run, "det", weights=run / "det.safetensors").eval(), torch.randn(1, 3, *RESOLUTION)
    assert model.num_classes == 1000
    assert torch.equal(model.forward_features(images), load(run, "det").backbone(images)["det"][-1])


def test_timm_loads_a_runs_file_and_its_own_checkpoints(run: Path, tmp_path: Path) -> None:
    images = torch.randn(1, 3, *RESOLUTION)
    model = create(run, "seg", features_only=True, checkpoint_path=run / "seg.safetensors").eval()
    assert torch.equal(model(images)[0], load(run, "seg").backbone(images)["seg"][0])
    classifier = create(run, "seg", num_classes=2).eval()
    torch.save(classifier.state_dict(), tmp_path / "own.pth")
    again = timm.create_model(
        "fbnetv5", arch=run / "seg.json", num_classes=2, checkpoint_path=str(tmp_path / "own.pth")
    )
    assert torch.equal(again.eval()(images), classifier(images))


def test_weights_of_another_network_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes((run / "seg.safetensors").read_bytes()[:1000])
    for name, message in (
        (run / "det.safetensors", "holds the weights of another network: .* names differ"),
        (tmp_path / "none.safetensors", "none.safetensors does not exist"),
        (tmp_path / "half.safetensors", "damaged or half-written"),
    ):
        with pytest.raises(UserError, match=message):
            create(run, "seg", features_only=True, weights=name)


def test_a_grey_image_has_the_outputs_of_its_copy_in_three_channels(run: Path) -> None:
    grey = torch.randn(2, 1, *RESOLUTION)
    rgb, model = (create(run, "seg", features_only=True, pretrained=True, in_chans=n).eval() for n in (3, 1))
    for feature, expected in zip(model(grey), rgb(grey.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(feature, expected)


def test_timm_prepares_images_as_this_project_does(run: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    transform = create_transform(**resolve_model_data_config(create(run, "seg")))
    height, width = RESOLUTION
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    expected = normalise(torch.from_numpy(resized.copy()).permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(transform(Image.fromarray(pixels)), expected, atol=1e-5, rtol=0)


def test_the_configuration_names_existing_modules(run: Path) -> None:
    model = create(run, "cls")
    assert model.default_cfg["input_size"] == (3, *RESOLUTION)
    assert model.get_submodule(model.default_cfg["first_conv"]).weight.shape[1] == 3
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
    assert "classifier" not in create(run, "cls", features_only=True).default_cfg


def test_timm_trains_the_classifier(run: Path) -> None:
    model, images, labels = create(run, "cls", num_classes=4), torch.randn(4, 3, 64, 64), torch.arange(4)
    average = ModelEmaV3(model, decay=0.5)
    assert falls(model, lambda: functional.cross_entropy(model(images), labels))
    before = average.module.classifier.weight.clone()
    average.update(model)
    assert not torch.equal(average.module.classifier.weight, before)


@pytest.fixture(scope="module")
def encoder(run: Path) -> str:
    register_architecture("fbnetv5_test", run / "seg.json")
    return "tu-fbnetv5_test"


@pytest.mark.parametrize("decoder", [smp.Unet, smp.FPN])
def test_segmentation_models_train_on_a_named_architecture(encoder: str, decoder: Any) -> None:
    torch.manual_seed(0)
    images, masks = torch.randn(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
    images[..., :32] += 2
    masks[..., :32] = 1
    model = decoder(encoder, encoder_weights=None, classes=2)
    assert model.encoder.out_channels == [3, 0, *WIDTHS.values()]
    assert falls(model, lambda: functional.cross_entropy(model(images), masks))


@pytest.mark.slow
def test_a_segmentation_model_has_the_runs_weights_and_exports(run: Path, encoder: str, tmp_path: Path) -> None:
    model, images = smp.Unet(encoder, encoder_weights=True, classes=2).eval(), torch.randn(2, 3, 64, 64)
    expected = load(run, "seg").backbone(images)["seg"]
    for feature, truth in zip(model.encoder(images)[2:], expected, strict=True):
        assert torch.equal(feature, truth)
    assert_exports(model, tmp_path / "unet.onnx", ["logits"])


def test_an_encoder_that_smp_cannot_use_is_refused_with_the_reason(run: Path, encoder: str) -> None:
    with pytest.raises(UserError, match="output_stride must be 32, not 8"):
        smp.DeepLabV3(encoder, encoder_weights=None)
    with pytest.raises(UserError, match="register_architecture gives it a name"):
        smp.Unet("tu-fbnetv5", encoder_weights=None, arch=str(run / "seg.json"))


class Pyramid(nn.Module):
    """The backbone that torchvision's detectors want, as docs/timm.md shows it."""

    def __init__(self, body: Any, out_channels: int = 32) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), out_channels)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(OrderedDict((str(n), x) for n, x in enumerate(self.body(images))))
        return features


def anchors(levels: int) -> AnchorGenerator:
    return AnchorGenerator(tuple((8 * 2**level,) for level in range(levels)), ((1.0,),) * levels)


def faster_rcnn(backbone: nn.Module) -> Any:
    pool = MultiScaleRoIAlign(featmap_names=["0", "1", "2"], output_size=3, sampling_ratio=2)
    return FasterRCNN(backbone, 3, min_size=64, max_size=64, rpn_anchor_generator=anchors(3), box_roi_pool=pool)


def fcos(backbone: nn.Module) -> Any:
    return FCOS(backbone, 3, min_size=64, max_size=64, anchor_generator=anchors(3))


def retina_net(backbone: nn.Module) -> Any:
    return RetinaNet(backbone, 3, min_size=64, max_size=64, anchor_generator=anchors(3))


@pytest.mark.parametrize("detector", [faster_rcnn, fcos, retina_net])
def test_torchvisions_detectors_train_on_the_features(run: Path, detector: Callable[[nn.Module], Any]) -> None:
    backbone = Pyramid(create(run, "det", features_only=True, pretrained=True))
    model, images = detector(backbone), list(torch.rand(2, 3, 64, 64))
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}

    def loss() -> Tensor:
        torch.manual_seed(0)  # Faster R-CNN trains on a random choice of its proposals
        return sum(model(images, [target, target]).values(), start=torch.zeros(()))

    assert falls(model, loss)
    boxes = model.eval()(images)[0]["boxes"]
    assert boxes.shape[1] == 4


def assert_exports(model: nn.Module, path: Path, names: Sequence[str]) -> None:
    """The ONNX file answers as the model does, at a size and a batch it was not traced at."""
    example, images = torch.randn(2, 3, 64, 64), torch.randn(1, 3, 96, 64)
    path.write_bytes(to_onnx_bytes(model, (example,), input_names=["images"], output_names=names, dynamic_size=True))
    answers = OrtRunner(path)({"images": images.numpy()})
    with torch.no_grad():
        expected = model.eval()(images)
    for name, truth in zip(names, expected if len(names) > 1 else [expected], strict=True):
        torch.testing.assert_close(torch.from_numpy(answers[name]), truth, atol=1e-3, rtol=1e-3)


def test_features_and_classifier_export_to_onnx(run: Path, tmp_path: Path) -> None:
    features = create(run, "seg", features_only=True, pretrained=True)
    assert_exports(features, tmp_path / "features.onnx", ["p4", "p8", "p16", "p32"])
    assert_exports(create(run, "cls", pretrained=True), tmp_path / "classifier.onnx", ["logits"])


@pytest.mark.slow
def test_a_whole_detector_exports_to_onnx(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = faster_rcnn(Pyramid(create(run, "det", features_only=True, pretrained=True))).eval()
    image, names = torch.rand(3, 64, 64), ["boxes", "labels", "scores"]
    path = tmp_path / "detector.onnx"
    with warnings.catch_warnings(action="ignore"):  # of torchvision's own branches, and of the choice of exporter
        torch.onnx.export(
            model, ([image],), path, dynamo=False, opset_version=17, input_names=["image"], output_names=names
        )
    answers, (expected,) = OrtRunner(path)({"image": image.numpy()}), model([image])
    assert len(expected["boxes"]) > 0
    for name in names:
        torch.testing.assert_close(torch.from_numpy(answers[name]), expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_lines_of_the_guide_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[4] / "docs" / "timm.md").read_text(encoding="utf-8")
    monkeypatch.chdir(run.parents[1])
    names: dict[str, Any] = {}
    for lines in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        exec(lines, names)
    levels = names["model"].backbone(torch.rand(2, 3, 64, 64))
    assert [tuple(x.shape) for x in levels.values()] == [(2, 256, side, side) for side in (8, 4, 2)]
