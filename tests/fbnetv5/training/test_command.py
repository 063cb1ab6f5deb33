from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5 import api
from fbnetv5.architecture import load_architecture
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.training.config import TrainConfig
from tests.contract.schemas import check_document

TINY: dict[str, Any] = {"scenes": [24, 12, 16], "steps": 2, "batch": 4, "held_out": 8, "warmup_steps": 1}


def test_a_network_is_trained_and_resumed(networks: Path, tmp_path: Path) -> None:
    config, before = dict(TINY), dict(TINY)
    trained = api.train(arch=networks / "cls.json", output=tmp_path / "cls", config=config)
    assert config == before
    check_document(["train"], trained.to_json())
    assert api.resume_train(trained.folder).to_json() == trained.to_json()


def test_a_training_is_not_resumed_on_images_of_other_classes(networks: Path, tmp_path: Path) -> None:
    folder = api.train(arch=networks / "cls.json", output=tmp_path / "cls", config=TINY).folder
    architecture = load_architecture(folder / "cls.json")
    classes = {**architecture.classes, "label": tuple(reversed(architecture.classes["label"]))}
    architecture.changed(classes=classes).save(folder / "cls.json")
    with pytest.raises(UserError, match=r"the network has 10 \(.*\) classes, the images have 10"):
        api.resume_train(folder)


def test_a_topology_is_trained_for_another_task_on_the_same_blocks(networks: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    config = {**TINY, "steps": 1, "lr": 1e-12}
    trained = api.train("depth", arch=networks / "seg.json", output=tmp_path / "depth", config=config, log=lines.append)
    assert list(trained.test) == ["depth"]
    assert lines[0].startswith("depth in variant a, with the topology of seg in variant a: ")
    weights, source = (
        load_tensors(file) for file in (trained.folder / "depth.safetensors", networks / "seg.safetensors")
    )
    name = "backbone.blocks.s0_p16_0.expand.0.weight"
    assert name in source
    assert torch.allclose(weights[name], source[name], atol=1e-6)
    assert api.resume_train(trained.folder).to_json() == trained.to_json()


def test_a_topology_is_trained_in_another_variant_from_random_weights(networks: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"arch": networks / "cls.json", "variant": "c", "output": tmp_path / "c", "config": TINY}
    trained = api.train(**options, log=lines.append)
    assert trained.architecture.space.label == "variant c"
    assert "the weights of variant a do not fit variant c" in lines[1]
    assert TrainConfig.load(trained.folder).init == "scratch"


def test_a_scaled_network_is_trained_from_random_weights_and_resumed(networks: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"arch": networks / "cls.json", "scale_to": "20M@64x64", "output": tmp_path / "c"}
    trained = api.train(**options, config=TINY, log=lines.append)
    assert 18e6 < trained.architecture.cost.macs <= 20e6
    assert lines[0].startswith("cls scaled from variant a: ")
    assert TrainConfig.load(trained.folder).init == "scratch"
    assert trained.test["cls"].size == (64, 64)
    assert api.resume_train(trained.folder).to_json() == trained.to_json()


def test_a_network_of_several_tasks_has_no_other_task_or_variant(branched: Path, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"task": "depth"}, {"variant": "c"}]
    for change in changes:
        with pytest.raises(api.UserError, match=r"is one network for cls\+det\+seg, trained as a whole"):
            api.train(arch=branched, output=tmp_path / "t", config=TINY, **change)
    assert not (tmp_path / "t").exists()
