from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.architecture import Architecture, make_architecture
from fbnetv5.costs.counting import count
from fbnetv5.deploy.show import show, show_architecture
from fbnetv5.networks.backbone import task_network
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices

PUBLISHED = {
    "fbnetv3-a": (356_598_280, 8_542_224, [224, 6, 6]),
    "fbnetv3-b": (461_550_136, 8_542_224, [224, 7, 7]),
    "fbnetv3-g": (2_129_656_384, 16_513_648, [288, 10, 10]),
}
SPACE = FourPathSpace(stages=2, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}


def architecture(task: str, choices: Choices) -> Architecture:
    return make_architecture(SPACE, {task: choices}, CLASSES, (64, 96), provenance={"seed": 1})


def assert_rows_add_up(document: dict[str, Any]) -> None:
    for unit in ("macs", "params"):
        assert type(document[unit]) is int
        assert sum(row[unit] for row in document["blocks"]) == document[unit]
    assert document["macs_conv"] + document["macs_pool"] == document["macs"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_show_their_published_figures(name: str) -> None:
    document = show(name).to_json()
    macs, params, last = PUBLISHED[name]
    assert (document["macs"], document["params"]) == (macs, params)
    assert document["blocks"][-2]["output"] == last
    assert_rows_add_up(document)


@pytest.mark.parametrize("letter", "abcdefg")
def test_the_blocks_of_every_published_network_add_up(letter: str) -> None:
    assert_rows_add_up(show(f"fbnetv3-{letter}").to_json())


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_an_architecture_file_shows_its_live_blocks(task: str, tmp_path: Path) -> None:
    choices = np.random.default_rng(4).integers(0, 2, size=len(SPACE.variables))
    shown = architecture(task, choices)
    shown.save(tmp_path / "a.json")
    document = show(str(tmp_path / "a.json")).to_json()
    network = count(lambda: task_network(shown.make_task(), SPACE, choices), [(3, 64, 96)])
    assert (document["macs"], document["params"], document["macs_pool"]) == (
        network.macs,
        network.params,
        network.macs_pool,
    )
    assert_rows_add_up(document)
    steps = SPACE.graph(choices, {task: shown.make_task().paths}).steps
    assert [row["name"] for row in document["blocks"]] == [*(step.name for step in steps), "head"]


def test_kept_blocks_without_a_reader_are_not_live() -> None:
    choices = SPACE.empty()
    names = [node.name for node in SPACE.variables]
    choices[[names.index("s2_p4_0"), names.index("s1_p32_0"), names.index("s1_p32_from_p16")]] = 1
    document = show_architecture(architecture("cls", choices)).to_json()
    assert document["skippable"] == {"all": len(names), "live": 2}
    assert document["paths"] == [32]


def test_paths_that_a_later_stage_works_on_are_shown() -> None:
    choices = SPACE.empty()
    names = [node.name for node in SPACE.variables]
    choices[[names.index("s1_p16_0"), names.index("s2_p32_from_p16")]] = 1
    assert show_architecture(architecture("cls", choices)).to_json()["paths"] == [16, 32]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("fbnetv3-h", r"unknown network 'fbnetv3-h'; there are: fbnetv3-a, "),
        ("resnet50", r"unknown network 'resnet50'"),
        ("nowhere.json", r"architecture file nowhere\.json does not exist"),
        ("", r"architecture file"),
    ],
)
def test_an_unknown_network_is_refused(network: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        show(network)
