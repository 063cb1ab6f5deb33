import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import Architecture, Latency, load_architecture, make_architecture
from fbnetv5.costs.tables import Counter
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "é"), "boxes": ("a", "b")}
RESOLUTION = (64, 96)
RNG = np.random.default_rng
Document = dict[str, Any]


def changed(**fields: Any) -> Callable[[Document], None]:
    return lambda document: document.update(fields)


def without(name: str) -> Callable[[Document], None]:
    def remove(document: Document) -> None:
        del document[name]

    return remove


def inside(outer: str, **fields: Any) -> Callable[[Document], None]:
    return lambda document: document[outer].update(fields)


LATENCY = Latency(value=1.5, table="cpu-fp32-b1")


@cache
def example(*tasks: str) -> Architecture:
    """A network of random choices, other ones for each task."""
    choices = {task: RNG(seed).integers(0, 2, size=len(SPACE.variables)) for seed, task in enumerate(tasks or ["cls"])}
    return make_architecture(SPACE, choices, CLASSES, RESOLUTION, latency_ms=LATENCY, provenance={"seed": 3})


@pytest.mark.parametrize("tasks", [("cls",), ("det",), ("cls", "det")], ids="+".join)
def test_a_saved_architecture_is_loaded(tasks: tuple[str, ...], tmp_path: Path) -> None:
    architecture = example(*tasks)
    for each in (architecture, architecture.changed(cost=architecture.cost.changed(latency_ms=None))):
        each.save(tmp_path / "runs" / "a.json")
        assert load_architecture(tmp_path / "runs" / "a.json") == each


def test_the_file_alone_rebuilds_the_network(tmp_path: Path) -> None:
    example().save(tmp_path / "a.json")
    network = load_architecture(tmp_path / "a.json").build().eval()
    assert network(torch.randn(2, 3, 64, 96))[0].shape == (2, 3)
    live = {step.name for step in SPACE.graph(example().choices_array, {"cls": (32,)}).steps}
    assert set(network.backbone.blocks) == live


def test_the_files_of_a_branched_network_of_several_tasks_have_its_name() -> None:
    space = BranchingSpace(width=0.25)
    groups = [0] * len(space.variables)
    for tasks, name in ((("cls",), "cls"), (("cls", "det"), "branched")):
        architecture = make_architecture(space, dict.fromkeys(tasks, groups), CLASSES, (64, 64), provenance={})
        assert architecture.file_name == name
    assert example("cls", "det").file_name == "cls+det"


def test_a_network_of_several_tasks_runs_shared_blocks_once() -> None:
    both, alone = example("cls", "det"), {task: example(task) for task in ("cls", "det")}
    network = both.build().eval()
    assert both.name == "cls+det"
    assert network(torch.randn(2, 3, 64, 96))[0].shape == (2, 3)
    shared = {step.node for step in both.graph.shared}
    assert shared
    assert shared < {step.name for step in alone["cls"].graph.steps}
    counter = Counter(RESOLUTION)
    saved = sum(counter.block(step.block, step.stride).macs for step in both.graph.shared)
    det_alone = make_architecture(SPACE, {"det": both.choices["det"]}, CLASSES, RESOLUTION, provenance={})
    assert both.cost.macs == alone["cls"].cost.macs + det_alone.cost.macs - saved
    with pytest.raises(UserError, match=r"one network for cls\+det; a network of one task is needed"):
        both.make_task()


def test_equal_choices_share_all_blocks_that_both_tasks_read() -> None:
    choices = RNG(0).integers(0, 2, size=len(SPACE.variables))
    both = make_architecture(SPACE, {"cls": choices, "det": choices}, CLASSES, RESOLUTION, provenance={})
    together = SPACE.graph(choices, {name: task.paths for name, task in both.make_tasks().items()})
    assert {step.node: step.tasks for step in both.graph.steps} == {step.node: step.tasks for step in together.steps}


def of_schema(schema: int) -> Document:
    """The example's document as schema 1 or 2 had it, with an estimated latency."""
    document = example().to_json()
    del document["kind"], document["space"]["kind"], document["cost"]["latency_ms"]["estimated"]
    document |= {"schema": schema, "task": "cls", "choices": document["choices"]["cls"]}
    document["cost"]["latency_ms"]["table"] = "h100-fp16-b1-estimated"
    if schema == 1:
        classes = document["classes"]
        document["classes"] = {"labels": classes["label"], "boxes": classes["boxes"], "masks": []}
    return document


@pytest.mark.parametrize("schema", [1, 2])
def test_files_of_earlier_schemas_are_read(schema: int, tmp_path: Path) -> None:
    document = of_schema(schema)
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    expected = Latency(value=1.5, table="h100-fp16-b1-estimated", estimated=True)
    architecture = example()
    assert load_architecture(tmp_path / "a.json") == architecture.changed(
        cost=architecture.cost.changed(latency_ms=expected)
    )


OLDER: dict[str, tuple[int, Callable[[Document], object], str]] = {
    "old classes of less": (1, changed(classes={}), "classes must have labels, boxes, masks"),
    "no task": (2, without("task"), "unknown task 'None'"),
    "task no name": (2, changed(task=["cls"]), "unknown task"),
    "no choices": (2, without("choices"), "choices.cls: must be a valid tuple, not None"),
    "no cost": (2, changed(cost=None), "cost: must be"),
    "latency no object": (2, inside("cost", latency_ms=3), "latency_ms: must be"),
    "classes no object": (1, changed(classes=[]), "classes: must be a valid dictionary"),
}


@pytest.mark.parametrize(("schema", "damage", "message"), OLDER.values(), ids=OLDER)
def test_damaged_files_of_earlier_schemas_are_refused(
    schema: int, damage: Callable[[Document], object], message: str, tmp_path: Path
) -> None:
    document = of_schema(schema)
    damage(document)
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_architecture(tmp_path / "a.json")
    assert message in str(caught.value)
    assert str(tmp_path / "a.json") in str(caught.value)


def test_weights_of_a_network_with_a_single_head_are_loaded(tmp_path: Path) -> None:
    state = example().build().state_dict()
    old = {name.replace("heads.cls.", "head."): tensor for name, tensor in state.items()}
    assert set(old) != set(state)
    save_tensors(tmp_path / "a.safetensors", old)
    loaded = example().load(tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def set_choice(value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["choices"]["cls"][0] = value

    return change


def of_task(name: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["choices"] = {name: document["choices"]["cls"]}

    return change


REFUSED: dict[str, tuple[Callable[[Document], None], str]] = {
    "wrong schema": (changed(schema=4), "has schema 4; this version reads schema 1 and 2 and 3"),
    "no schema": (without("schema"), "has schema None"),
    "other kind": (changed(kind="recipe"), "it is a file of kind 'recipe'"),
    "unknown field": (changed(color="red"), "there is no field 'color'; there are: space, choices"),
    "missing field": (without("classes"), "classes is missing"),
    "too few choices": (changed(choices={"cls": [1, 0]}), "2 choices do not fit a space of 33 variables"),
    "choices no object": (changed(choices=[1, 0]), "choices: must be a valid dictionary"),
    "no task": (changed(choices={}), "choices: Dictionary should have at least 1 item"),
    "choice out of range": (set_choice(2), "variable s0_p4_1: choice must be 0 to 1, not 2"),
    "choice a boolean": (set_choice(True), "choices.cls.0: must be a valid integer, not True"),
    "choice a fraction": (set_choice(1.0), "choices.cls.0: must be a valid integer, not 1.0"),
    "unknown variant": (inside("space", variant="z"), "variant: must be 'a', 'c', 'f', 'ac' or 'a-lite', not 'z'"),
    "space of more": (inside("space", width=2), "space: there is no field 'width'"),
    "unknown space": (inside("space", kind="ring"), "unknown kind of space 'ring'"),
    "unknown task": (
        of_task("pose"),
        "unknown task 'pose'; there are: cls, det, seg, saliency, edges, depth, normals, parts",
    ),
    "task without labels": (of_task("seg"), "the data set has no labels for task 'seg'"),
    "classes no object": (changed(classes=["a"]), "classes: must be a valid dictionary"),
    "classes of less": (changed(classes={"mask": ["a"]}), "the data set has no labels for task 'cls'"),
    "no class": (changed(classes={"label": []}), "the data set has no labels for task 'cls'"),
    "class no name": (inside("classes", label=[1]), "classes.label.0: must be a valid string, not 1"),
    "edited macs": (inside("cost", macs=1), "it states 1 macs, but its choices cost"),
    "edited params": (inside("cost", params=1), "it states 1 params, but its choices cost"),
    "macs no number": (inside("cost", macs="1"), "macs: must be a valid integer, not '1'"),
    "cost of more": (inside("cost", joules=1), "there is no field 'joules'"),
    "latency no record": (inside("cost", latency_ms=1.5), "latency_ms: must be"),
    "latency no number": (
        inside("cost", latency_ms={"value": "1", "table": "x"}),
        "value: must be a valid number, not '1'",
    ),
    "other choices": (set_choice(0), "but its choices cost"),
    "odd resolution": (changed(resolution=[64, 100]), "must be multiples of 32"),
    "huge resolution": (changed(resolution=[32 * 10**14] * 2), "must be multiples of 32 up to"),
    "one side": (changed(resolution=[64]), "resolution.1 is missing"),
    "no resolution": (changed(resolution="64x64"), "resolution: must be a valid tuple, not '64x64'"),
    "provenance no object": (changed(provenance=[]), "provenance: must be a valid dictionary"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_does_not_fit_is_refused(change: Callable[[Document], None], message: str, tmp_path: Path) -> None:
    document = example().to_json()
    assert document["choices"]["cls"][0] == 1
    change(document)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_architecture(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^architecture file .*nowhere\.json does not exist$"):
        load_architecture(tmp_path / "nowhere.json")


def test_a_half_written_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    example().save(path)
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    with pytest.raises(UserError, match="damaged or half-written"):
        load_architecture(path)
