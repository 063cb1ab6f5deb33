from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.training.change import changed_network, fitting_init


def changed(
    file: Path,
    *,
    task: str | None = None,
    variant: str | None = None,
    scale_to: str | None = None,
    lines: list[str] | None = None,
) -> Architecture:
    log = [] if lines is None else lines
    return changed_network(
        load_architecture(file), file, task=task, variant=variant, scale_to=scale_to, data=None, log=log.append
    )


def test_without_options_the_network_is_that_of_the_file(networks: Path) -> None:
    lines = list[str]()
    assert changed(networks / "cls.json", lines=lines) == load_architecture(networks / "cls.json")
    assert lines == []


def test_a_network_is_scaled_after_it_moved_to_another_task_and_variant(networks: Path) -> None:
    lines = list[str]()
    network = changed(networks / "seg.json", task="depth", variant="ac", scale_to="20M@64x64", lines=lines)
    assert network.space.label.startswith("variant ac of width ")
    assert 19e6 < network.cost.macs <= 20e6
    assert lines[0].startswith("depth in variant ac, with the topology of seg in variant a: ")
    assert lines[1].startswith("depth scaled from variant ac: ")
    assert network.provenance["transferred_from"]["task"] == "seg"


def test_a_network_of_several_tasks_is_left_whole(branched: Path) -> None:
    with pytest.raises(UserError, match=r"is one network for cls\+det\+seg, trained as a whole"):
        changed(branched, task="depth")
    with pytest.raises(UserError, match="only networks of one task, of the default and the strict space"):
        changed(branched, scale_to="9M")


def test_weights_that_do_not_fit_are_replaced_by_random_ones(networks: Path) -> None:
    old, lines = load_architecture(networks / "det.json"), list[str]()
    depth, larger = changed(networks / "det.json", task="depth"), changed(networks / "det.json", variant="c")
    assert fitting_init("inherited", old, depth, lines.append) == "inherited"
    assert fitting_init("weights.safetensors", old, larger, lines.append) == "weights.safetensors"
    assert not lines
    assert fitting_init("inherited", old, larger, lines.append) == "scratch"
    assert lines == ["the weights of variant a do not fit variant c: the training starts with random weights"]
