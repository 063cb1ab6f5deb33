"""The planted conflict, and the initial weights of trees."""

import torch

from benchmarks.branching_world import PLANTED, PlantedScenes, space_of, train, tree_network
from fbnetv5.data.scenes import Scenes

SCENES = Scenes("train", size=(32, 32), count=40)
LAYERS = len(space_of(("cls", "seg")).layers)


def test_the_planted_map_is_inverted_in_about_half_of_the_images_and_no_other_label_changes() -> None:
    planted = PlantedScenes(SCENES, 0)
    inverted = [not torch.equal(planted[i].targets[PLANTED], SCENES[i].targets[PLANTED]) for i in range(40)]
    assert 10 < sum(inverted) < 30
    first = inverted.index(True)
    assert torch.equal(planted[first].targets[PLANTED], 1 - SCENES[first].targets[PLANTED])
    assert torch.equal(planted[first].targets["mask"], SCENES[first].targets["mask"])


def test_blocks_of_one_layer_start_with_the_same_weights_in_every_tree() -> None:
    shared = tree_network(("cls", "seg"), [(0, 0)] * LAYERS, 1, None).backbone.blocks
    apart = tree_network(("cls", "seg"), [(0, 1)] * LAYERS, 1, None).backbone.blocks
    one = shared.get_submodule("layer3").state_dict()
    for name in ("layer3_of_cls", "layer3_of_seg"):
        two = apart.get_submodule(name).state_dict()
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def test_a_joint_training_repeats_itself() -> None:
    results = []
    for _ in range(2):
        network = tree_network(("cls", "seg"), [(0, 0)] * LAYERS, 1, None)
        trained = train(network, SCENES, steps=2, batch=4, lr=1e-3, seed=0)
        results.append(trained.state_dict())
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())
