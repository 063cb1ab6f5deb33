import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.costs.tables import Counter
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks

SPACE = Space(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "é"), "boxes": ("a", "b")}
RESOLUTION = (64, 96)
Document = dict[str, Any]


@cache
def example(task: str = "cls") -> Architecture:
    choices = np.random.default_rng(0).integers(0, 2, size=len(SPACE.slots))
    counter, tasks = Counter(RESOLUTION), make_tasks((task,), CLASSES)
    return Architecture(
        space=SPACE,
        task=task,
        classes=CLASSES,
        choices=tuple(choices.tolist()),
        resolution=RESOLUTION,
        macs=int(counter.table(SPACE, tasks[task], "macs").one(choices)),
        params=int(counter.table(SPACE, tasks[task], "params").one(choices)),
        latency_ms={"value": 1.5, "table": "cpu-fp32-b1"},
        provenance={"seed": 3},
    )


@pytest.mark.parametrize("task", ["cls", "det"])
def test_what_is_saved_is_loaded(task: str, tmp_path: Path) -> None:
    for architecture in (example(task), replace(example(task), latency_ms=None)):
        architecture.save(tmp_path / "runs" / "a.json")
        assert load_architecture(tmp_path / "runs" / "a.json") == architecture


def test_the_file_alone_rebuilds_the_network(tmp_path: Path) -> None:
    example().save(tmp_path / "a.json")
    network = load_architecture(tmp_path / "a.json").build().eval()
    assert network(torch.randn(2, 3, 64, 96))[0].shape == (2, 3)
    live = {step.name for step in SPACE.graph(example().choices_array, (32,)).steps}
    assert set(network.backbone.blocks) == live


def changed(**fields: Any) -> Callable[[Document], None]:
    return lambda document: document.update(fields)


def without(name: str) -> Callable[[Document], None]:
    def remove(document: Document) -> None:
        del document[name]

    return remove


def inside(outer: str, **fields: Any) -> Callable[[Document], None]:
    return lambda document: document[outer].update(fields)


def set_choice(value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["choices"][0] = value

    return change


REFUSED: dict[str, tuple[Callable[[Document], None], str]] = {
    "wrong schema": (changed(schema=3), "has schema 3; this version reads schema 1 and 2"),
    "no schema": (without("schema"), "has schema None"),
    "unknown field": (changed(color="red"), "missing or unknown: color"),
    "missing field": (without("classes"), "missing or unknown: classes"),
    "too few choices": (changed(choices=[1, 0]), "2 choices do not fit a space of 33 slots"),
    "choices no list": (changed(choices="1"), "choices is not a list"),
    "choice out of range": (set_choice(2), "slot s0_p4_1: choice must be 0 to 1, not 2"),
    "choice a boolean": (set_choice(True), "slot s0_p4_1: choice must be 0 to 1, not True"),
    "choice a fraction": (set_choice(1.0), "slot s0_p4_1: choice must be 0 to 1, not 1.0"),
    "unknown variant": (inside("space", variant="z"), "unknown variant 'z'; there are: a, c, f"),
    "space of more": (inside("space", width=2), "a space has the fields"),
    "unknown task": (changed(task="pose"), "unknown task 'pose'; there are: cls, det, seg, saliency, edges, depth"),
    "task no name": (changed(task=["cls"]), "task must be a name, not ['cls']"),
    "task without labels": (changed(task="seg"), "the images carry no labels for 'seg'"),
    "classes no object": (changed(classes=["a"]), "classes must hold the names of each target's classes"),
    "classes of less": (changed(classes={"mask": ["a"]}), "the images carry no labels for 'cls'"),
    "old classes of less": (changed(schema=1), "classes must hold labels, boxes, masks"),
    "no class": (changed(classes={"label": []}), "the images carry no labels for 'cls'"),
    "class no name": (inside("classes", label=[1]), "classes: label is not a list of names"),
    "edited macs": (inside("cost", macs=1), "it states 1 macs, but its choices make"),
    "edited params": (inside("cost", params=1), "it states 1 params, but its choices make"),
    "macs no number": (inside("cost", macs="1"), "macs must be a whole number, not '1'"),
    "cost of more": (inside("cost", joules=1), "cost must hold macs, params and latency_ms"),
    "latency no record": (inside("cost", latency_ms=1.5), "latency_ms must be null or hold value and table"),
    "latency no number": (
        inside("cost", latency_ms={"value": "1", "table": "x"}),
        "latency_ms: value must be a number",
    ),
    "other choices": (set_choice(0), "but its choices make"),
    "odd resolution": (changed(resolution=[64, 100]), "must be multiples of 32"),
    "huge resolution": (changed(resolution=[32 * 10**14] * 2), "must be multiples of 32 up to"),
    "one side": (changed(resolution=[64]), "must be multiples of 32"),
    "no resolution": (changed(resolution="64x64"), "resolution must be [height, width], not '64x64'"),
    "provenance no object": (changed(provenance=[]), "provenance is not an object"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_does_not_fit_is_refused(change: Callable[[Document], None], message: str, tmp_path: Path) -> None:
    document = example().to_json()
    assert document["choices"][0] == 1
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
