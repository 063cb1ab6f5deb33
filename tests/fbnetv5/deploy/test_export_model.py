from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from export.runners import TorchRunner
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import Scenes
from fbnetv5.deploy.export_model import INPUT, ExportModel, load_export_model, tasks_of
from fbnetv5.evaluate import evaluate_network
from fbnetv5.networks.backbone import Network
from tests.contract.stored import STORED

IMAGES = Scenes("test", size=(32, 32), count=12)


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
    expected = evaluate_network(network, IMAGES, size=(32, 32)).value
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
    assert tasks_of(STORED / "run") == ["cls", "det", "seg"]
