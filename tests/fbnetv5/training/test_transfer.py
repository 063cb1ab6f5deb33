from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture, make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.training.transfer import describe_transfer, transfer


def moved(file: Path, task: str | None = None, variant: str | None = None) -> Architecture:
    return transfer(load_architecture(file), file, task=task, variant=variant, data=None)


def test_the_own_task_and_variant_change_nothing(networks: Path) -> None:
    architecture = load_architecture(networks / "det.json")
    assert transfer(architecture, networks / "det.json", task="det", variant="a", data=None) is architecture


def test_another_variant_has_its_own_blocks_and_cost(networks: Path) -> None:
    file = networks / "det.json"
    old, new = load_architecture(file), moved(file, variant="f")
    assert new.space == FourPathSpace(variant="f", stages=1, blocks_per_path=1)
    assert (new.name, new.resolution, new.classes) == ("det", old.resolution, old.classes)
    assert new.cost.macs > old.cost.macs
    assert new.provenance["transferred_from"] == {"file": str(file), "task": "det", "space": "variant a"}
    assert new.provenance["trained_at"] == old.provenance["trained_at"]
    assert "score" not in new.provenance
    line = describe_transfer(old, new)
    assert line.startswith("det in variant f, with the topology of det in variant a: ")
    assert f"{new.cost.macs / 1e6:.1f}M multiply-adds" in line


def test_another_task_has_the_same_choices_and_its_own_classes(networks: Path) -> None:
    old, new = load_architecture(networks / "det.json"), moved(networks / "det.json", task="depth")
    assert new.choices == {"depth": old.choices["det"]}
    assert new.space == old.space
    assert new.make_task().output_names == ("depth",)
    assert "det reads no feature at stride 4" in describe_transfer(old, new)
    assert "reads no feature" not in describe_transfer(load_architecture(networks / "seg.json"), new)


def test_task_and_variant_change_together(networks: Path) -> None:
    new = moved(networks / "seg.json", task="saliency", variant="c")
    assert (new.name, new.space.label) == ("saliency", "variant c")


WRONG = {
    "unknown task": ("pose", None, "unknown task 'pose'"),
    "unknown variant": (None, "q", "variant: must be 'a', 'c', 'f', 'ac' or 'a-lite', not 'q'"),
}


@pytest.mark.parametrize(("task", "variant", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused(networks: Path, task: str | None, variant: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        moved(networks / "det.json", task, variant)


def test_images_without_labels_of_the_task_are_refused(networks: Path, image_folder: Path) -> None:
    (image_folder / "depth").rename(image_folder.parent / "elsewhere")
    architecture = load_architecture(networks / "det.json")
    with pytest.raises(UserError, match="no labels for task 'depth'"):
        transfer(architecture, networks / "det.json", task="depth", variant=None, data=image_folder)


def test_a_space_without_variants_is_refused(tmp_path: Path) -> None:
    space = StageSpace(width=0.25)
    architecture = make_architecture(space, {"cls": space.empty()}, CLASSES, (32, 32), provenance={})
    with pytest.raises(UserError, match="only networks of the default and the strict space of fbnetv5 search"):
        transfer(architecture, tmp_path / "cls.json", task=None, variant="c", data=None)
