from pathlib import Path

import torch
from torch import nn

from fbnetv5.labeling.teachers.named import NamedTeacher, OneOutput, distinct


def test_repeated_names_get_their_id() -> None:
    assert distinct(("crane", "", "crane", "", "ox")) == ("crane", "", "crane 2", "", "ox")


def test_the_text_is_the_name_without_the_file() -> None:
    named = NamedTeacher(
        library="timm",
        name="resnet18",
        weights=Path("w.pth"),
        class_names=None,
        device=torch.device("cpu"),
        download=False,
    )
    assert named.text == "timm:resnet18"


def test_a_network_runs_in_eval_mode() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.Flatten())
    (output,) = OneOutput(network, torch.device("cpu"))(torch.ones(2, 3, 4, 4))
    assert torch.equal(output, torch.ones(2, 48))
