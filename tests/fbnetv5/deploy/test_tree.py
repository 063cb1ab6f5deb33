import numpy as np

from fbnetv5.architecture import make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.tree import tree_lines
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace


def test_a_tree_is_drawn_by_runs_of_layers_with_the_same_groups() -> None:
    space = BranchingSpace(copies=3, width=0.25)
    layers = len(space.layers)
    choices = {
        "cls": [0] * layers,
        "det": [0] * 8 + [1] * (layers - 8),
        "seg": [0] * 8 + [1] + [2] * (layers - 9),
    }
    architecture = make_architecture(space, choices, CLASSES, (64, 64), provenance={})
    assert tree_lines(architecture) == [
        "layers 0 to 7: cls+det+seg",
        "layer 8: cls | det+seg",
        f"layers 9 to {layers - 1}: cls | det | seg",
    ]


def test_other_networks_have_no_tree() -> None:
    space = FourPathSpace(stages=1, blocks_per_path=1)
    choices = {"cls": np.zeros(len(space.variables), dtype=np.int64)}
    assert tree_lines(make_architecture(space, choices, CLASSES, (64, 64), provenance={})) == []
