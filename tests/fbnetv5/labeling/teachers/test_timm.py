"""Classifiers of timm, with random weights in a file."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from export.errors import UnavailableError, UserError
from fbnetv5.labeling.teachers.families import open_teacher

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    save_file(timm.create_model(NAME, num_classes=3).state_dict(), file)
    return file


def test_the_logits_are_those_of_timm_itself(weights: Path) -> None:
    torch.manual_seed(1)
    teacher = open_teacher("cls", f"timm:{NAME}@{weights}", class_names=("a", "b", "c"), device="cpu")
    peer = timm.create_model(NAME, num_classes=3, checkpoint_path=str(weights)).eval()
    prepare = create_transform(**resolve_model_data_config(peer), is_training=False)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 12), scale_factor=40.0, mode="bicubic").clamp(0, 1)
    pixels = (image[0] * 255).to(torch.uint8)
    with torch.inference_mode():
        expected = peer(prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()))[None])
    torch.testing.assert_close(teacher.class_logits(pixels[None]), expected, atol=0.02, rtol=0.02)
    assert teacher.classes == ("a", "b", "c")
    assert teacher.preparation.crop_share == peer.pretrained_cfg["crop_pct"] < 1


def test_an_image_is_squashed_where_timm_squashes_it(tmp_path: Path) -> None:
    name = "convnextv2_nano.fcmae_ft_in22k_in1k_384"
    network = timm.create_model(name, num_classes=2)
    assert resolve_model_data_config(network)["crop_mode"] == "squash"
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    teacher = open_teacher("cls", f"timm:{name}@{tmp_path / 'w.safetensors'}", class_names=("a", "b"), device="cpu")
    prepare = create_transform(**resolve_model_data_config(network), is_training=False)
    pixels = (torch.rand(3, 40, 90).repeat_interleave(8, 1).repeat_interleave(8, 2) * 255).to(torch.uint8)
    expected = prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    torch.testing.assert_close(teacher.preparation(pixels[None])[0], expected, atol=0.05, rtol=0)


def test_mistakes_are_one_line(weights: Path) -> None:
    with pytest.raises(UserError, match=r"timm has no network 'resnet1'; similar names: .*resnet18"):
        open_teacher("cls", "timm:resnet1")
    with pytest.raises(UserError, match="has the weights of another network"):
        open_teacher("cls", f"timm:{NAME}@{weights}")
    with pytest.raises(UnavailableError, match=f"the weights of timm:{NAME} are not on this machine"):
        open_teacher("cls", f"timm:{NAME}")


def test_published_networks_have_the_names_of_imagenet(tmp_path: Path) -> None:
    save_file(timm.create_model(NAME).state_dict(), tmp_path / "w.safetensors")
    classes = open_teacher("cls", f"timm:{NAME}@{tmp_path / 'w.safetensors'}").classes
    assert classes[1].startswith("goldfish")
    assert len(set(classes)) == 1000
