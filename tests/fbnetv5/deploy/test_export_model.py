"""Networks of a run as they are handed to the exporter: one task, several joined, or one network for several."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import UserError
from export.runners import TorchRunner
from fbnetv5.architecture import Architecture, load_architecture, make_architecture
from fbnetv5.blocks.specs import initialise
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.deploy.export import export_tasks
from fbnetv5.deploy.export_model import INPUT, ExportModel, load_export_model, load_network
from fbnetv5.deploy.export_options import ExportOptions
from fbnetv5.evaluate import evaluate_network
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.folder import networks_of
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.scaling import scale
from tests.contract.stored import STORED

IMAGES = Scenes("test", size=(32, 32), count=12)
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
SIZE = (64, 64)
TASKS = ("cls", "det")


def save_network(folder: Path, architecture: Architecture) -> None:
    """An architecture file with weights; these are random, so that every block matters and no scores are equal."""
    torch.manual_seed(0)
    network = architecture.build()
    initialise(network)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.normal_(norm.bias, std=0.3)
    architecture.save(folder / f"{architecture.name}.json")
    save_tensors(folder / f"{architecture.name}.safetensors", network.state_dict())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that made one network for two tasks, which part in stage 0."""
    folder = tmp_path_factory.mktemp("runs") / "shared"
    folder.mkdir()
    budgets: dict[str, tuple[Budget, ...]] = {
        task: (Budget(limit=4e8, unit="macs", resolution=SIZE),) for task in TASKS
    }
    SearchConfig(budgets=budgets, space=SPACE, data=DataConfig(size=SIZE, scenes=(16, 8, 8))).save(folder)
    choices = {
        task: (np.arange(len(SPACE.variables)) >= first).astype(int) for task, first in zip(TASKS, (12, 6), strict=True)
    }
    save_network(folder, make_architecture(SPACE, choices, CLASSES, SIZE, provenance={}))
    return folder


def test_a_run_has_one_network_per_task_or_one_for_all(networks: Path, shared: Path, tmp_path: Path) -> None:
    assert networks_of(shared) == [["cls", "det"]]
    config = SearchConfig(budgets={task: (Budget(limit=4e8, unit="macs"),) for task in TASKS})
    config.save(tmp_path)
    assert networks_of(tmp_path) == [["cls"], ["det"]]


def test_one_network_for_several_tasks_is_handed_over_whole(shared: Path) -> None:
    model = load_export_model(shared, TASKS)
    assert model.output_names == ("cls_logits", "det_boxes", "det_scores", "det_labels")
    assert list(model.architectures) == list(TASKS)
    whole = load_architecture(shared / "cls+det.json")
    assert model.sharing is not None
    assert model.sharing.macs_joint == whole.cost.macs
    assert model.sharing.macs_separate == sum(model.architectures[task].cost.macs for task in TASKS)
    assert model.sharing.blocks_shared == len(whole.graph.shared) > 0


def test_one_network_for_several_tasks_is_exported_and_verified(shared: Path, tmp_path: Path) -> None:
    exported = export_tasks(shared, TASKS, tmp_path / "out", ExportOptions(), print)
    assert exported.max_error < 1e-4
    described = exported.to_json()
    assert described["task"] == "cls,det"
    assert set(described["tasks"]) == set(TASKS)
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("encoder", ["fbnetv3-a", "mobilenetv2", "efficientnet-lite0", "resnet50"])
def test_a_branched_network_of_every_kind_of_encoder_is_exported_and_verified(tmp_path: Path, encoder: str) -> None:
    budget, data = Budget(limit=1e9, unit="macs", resolution=SIZE), DataConfig(size=SIZE, scenes=(16, 8, 8))
    config = BranchConfig(budget=budget, task_names=("cls", "seg"), encoder=encoder, width=0.25, data=data)
    config.save(tmp_path)
    layers = len(config.space.layers)
    choices = {"cls": [0] * layers, "seg": [0] * 5 + [1] * (layers - 5)}
    save_network(tmp_path, make_architecture(config.space, choices, CLASSES, SIZE, provenance={}))
    exported = export_tasks(tmp_path, ("cls", "seg"), tmp_path / "out", ExportOptions(), print)
    assert exported.max_error < 1e-4


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_a_network_of_variant_ac_is_exported_and_verified(tmp_path: Path, task: str) -> None:
    space, budget = FourPathSpace(variant="ac"), Budget(limit=1e9, unit="macs", resolution=SIZE)
    SearchConfig(budgets={task: (budget,)}, space=space, data=DataConfig(size=SIZE, scenes=(16, 8, 8))).save(tmp_path)
    choices = np.random.default_rng(0).integers(2, size=len(space.variables))
    save_network(tmp_path, make_architecture(space, {task: choices}, CLASSES, SIZE, provenance={}))
    assert export_tasks(tmp_path, (task,), tmp_path / "out", ExportOptions(), print).max_error < 1e-4


def test_a_scaled_network_is_exported_and_verified(tmp_path: Path) -> None:
    SearchConfig(
        budgets={"det": (Budget(limit=1e9, unit="macs"),)}, data=DataConfig(size=SIZE, scenes=(16, 8, 8))
    ).save(tmp_path)
    choices = np.random.default_rng(0).integers(2, size=len(SPACE.variables))
    network = make_architecture(SPACE, {"det": choices}, CLASSES, SIZE, provenance={})
    save_network(tmp_path, scale(network, tmp_path / "small.json", "60M"))
    assert export_tasks(tmp_path, ("det",), tmp_path / "out", ExportOptions(), print).max_error < 1e-4


def test_weights_of_one_network_are_those_of_its_file(shared: Path) -> None:
    _, network = load_network(shared, ["cls", "det"])
    model = load_export_model(shared, TASKS)
    images = torch.from_numpy(model.seeded(SIZE, 2)[INPUT])
    with torch.no_grad():
        for output, expected in zip(model.module(images), network(images), strict=True):
            assert torch.equal(output, expected)


@pytest.mark.parametrize("tasks", [("cls",), ("det", "cls"), ("cls", "seg")], ids="+".join)
def test_other_tasks_of_such_a_run_are_refused(shared: Path, tasks: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"has no network for '\w+'; it has: cls\+det"):
        load_export_model(shared, tasks)


def test_one_task_has_the_outputs_of_its_task(classifier: ExportModel) -> None:
    assert (classifier.name, classifier.resolution, classifier.max_images) == ("cls", (32, 32), None)
    assert classifier.output_names == classifier.tasks["cls"].output_names
    assert classifier.sharing is None
    assert not classifier.module.training


def test_a_joint_network_shares_equal_blocks_and_prefixes_its_outputs(networks: Path) -> None:
    model = load_export_model(networks, ["cls", "det"])
    assert model.name == "cls+det"
    assert model.output_names == tuple(f"{name}_{o}" for name, task in model.tasks.items() for o in task.output_names)
    assert model.task_outputs["det"].ranked_by == f"det_{model.tasks['det'].ranked_by}"
    assert model.sharing is not None
    assert model.sharing.macs_joint < model.sharing.macs_separate


def test_preprocessing_is_in_the_network_or_in_the_input(networks: Path, classifier: ExportModel) -> None:
    from_pixels = load_export_model(networks, ["cls"], from_pixels=True)
    images = torch.stack([IMAGES[index].image for index in range(3)])
    np.testing.assert_array_equal(classifier.feed(images)[INPUT], normalise(images).numpy())
    assert from_pixels.feed(images)[INPUT].dtype == np.uint8
    outputs = [
        TorchRunner(model.module, [INPUT], model.output_names)(model.feed(images))
        for model in (classifier, from_pixels)
    ]
    for name in classifier.output_names:
        np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=1e-4, atol=1e-5)
    assert (classifier.preprocessing.scale, from_pixels.preprocessing.scale) == (1 / 255, 1.0)


def test_noise_is_the_same_at_every_call(classifier: ExportModel) -> None:
    first, second = (classifier.seeded((32, 64), 2)[INPUT] for _ in range(2))
    assert first.shape == (2, 3, 32, 64)
    np.testing.assert_array_equal(first, second)


def test_metrics_are_those_of_the_evaluation(classifier: ExportModel) -> None:
    network = classifier.module
    assert isinstance(network, Network)
    runner = TorchRunner(network, [INPUT], classifier.output_names)
    expected = evaluate_network(network, IMAGES, size=(32, 32))["cls"].value
    assert classifier.metrics(runner, IMAGES, max_batch=5) == {"cls": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("tasks", "head", "message"),
    [
        (["depth"], None, "has no network for 'depth'; it has: cls, det, seg"),
        (["cls"], "topk", "cls has one form of outputs: leave out --head"),
        (["det"], "raw", "det has no outputs of form 'raw'"),
    ],
)
def test_wrong_tasks_and_heads_are_refused(networks: Path, tasks: list[str], head: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_export_model(networks, tasks, head=head)


def test_the_tasks_of_a_run_are_in_its_order() -> None:
    assert networks_of(STORED / "run") == [["cls"], ["det"], ["seg"]]
