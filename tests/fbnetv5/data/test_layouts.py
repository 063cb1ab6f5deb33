import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import LAYOUTS, layout_of, open_folder
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.scenes import CLASSES
from fbnetv5.data.splits import open_splits, targets_of
from fbnetv5.data.targets import IGNORE
from tests.fbnetv5.data.rearrange import SPLITS, as_ade20k, as_coco, as_image_folder, as_yolo, draw

SIZE = (64, 64)
Rearrange = Callable[[Path, Path], Path]
ARRANGED: dict[str, Rearrange] = {"COCO": as_coco, "ADE20K": as_ade20k, "ImageFolder": as_image_folder, "YOLO": as_yolo}
SAME = {"COCO": "boxes", "YOLO": "boxes", "ADE20K": "mask", "ImageFolder": "label"}


@pytest.mark.parametrize("name", ARRANGED)
def test_each_layout_is_recognised_and_gives_the_same_labels(image_folder: Path, tmp_path: Path, name: str) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    assert layout_of(root).name == name
    folder_images, original = open_folder(root), open_folder(image_folder)
    assert len(folder_images) == len(original) == 24
    for index, stem in enumerate(Path(image_name).stem for image_name in folder_images.names):
        sample, expected = folder_images.sample(index, SIZE), original.sample(int(stem), SIZE)
        assert torch.equal(sample.image, expected.image)
        ours, wanted = sample.targets[SAME[name]], expected.targets[SAME[name]]
        if name == "ADE20K":  # background, id 0, is nobody's there, and the others move down
            wanted = torch.where(wanted == 0, IGNORE, wanted - 1)
        if name == "ImageFolder":  # classes are in the order of their names there
            wanted = folder_images.targets["label"].classes.index(CLASSES["label"][wanted])
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ARRANGED)
def test_a_relative_path_gives_the_same_data_set(
    image_folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    expected = open_folder(root)
    monkeypatch.chdir(root)
    data = open_folder(Path())
    assert (data.names, data.test, data.notes) == (expected.names, expected.test, expected.notes)
    assert list(data.files()) == list(expected.files())


def test_classes_have_the_names_that_the_layout_gives_them(image_folder: Path, tmp_path: Path) -> None:
    assert targets_of(as_coco(image_folder, tmp_path / "c"))["boxes"].classes == CLASSES["boxes"]
    given = {image["label"] for image in json.loads((image_folder / "instances.json").read_text())["images"]}
    assert targets_of(as_image_folder(image_folder, tmp_path / "i"))["label"].classes == tuple(sorted(given))
    root = as_ade20k(image_folder, tmp_path / "a")
    assert targets_of(root)["mask"].classes == CLASSES["mask"][1:]
    (root / "objectInfo150.txt").unlink()
    assert targets_of(root)["mask"].classes == tuple(f"class {n}" for n in range(1, 11))


@pytest.mark.parametrize("name", ARRANGED)
def test_its_own_validation_split_is_the_test(image_folder: Path, tmp_path: Path, name: str) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    parts, original = open_splits(root, size=SIZE, targets=CLASSES), open_folder(image_folder)
    test = [parts.test[index].image for index in range(len(parts.test))]
    expected = [original.sample(number, SIZE).image for number in SPLITS["val"]]
    assert {image.numpy().tobytes() for image in test} == {image.numpy().tobytes() for image in expected}
    assert len(parts.weights) + len(parts.policies) == len(SPLITS["train"])
    assert len(parts.weights) > len(parts.policies) > 0


@pytest.mark.parametrize("name", ["COCO", "ImageFolder"])
def test_without_such_a_split_images_are_divided_by_name(image_folder: Path, tmp_path: Path, name: str) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    if name == "COCO":
        (root / "annotations/instances_val.json").unlink()
    else:
        for folder in sorted((root / "train").iterdir()):
            folder.rename(root / folder.name)
        shutil.rmtree(root / "train")
        shutil.rmtree(root / "val")
    parts = open_splits(root, size=SIZE, targets=CLASSES)
    assert all(len(part) for part in (parts.weights, parts.policies, parts.test))
    assert sum(len(part) for part in (parts.weights, parts.policies, parts.test)) == len(SPLITS["train"])


def test_a_box_without_area_is_passed_over_and_a_malformed_one_is_not(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "c")
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    first = document["annotations"][0]
    document["annotations"].append({**first, "bbox": [1, 1, 5, 0]})
    path.write_text(json.dumps(document))
    open_folder(root)
    document["annotations"].append({**first, "bbox": [1, 1, 5]})
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="must be four numbers"):
        open_folder(root)


def test_a_split_of_coco_without_annotations_is_left_out(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "c")
    document = json.loads((root / "annotations/instances_val.json").read_text())
    lacking = {"images": [{**document["images"][0], "file_name": "none.png"}]}
    for test in (lacking, {**lacking, "annotations": []}):
        (root / "annotations/instances_test.json").write_text(json.dumps(test))
        folder_images = open_folder(root)
        assert folder_images.test == {f"val/{number:02d}.png" for number in SPLITS["val"]}
        assert len(folder_images) == 24
    (root / "annotations/instances_val.json").unlink()
    parts = open_splits(root, size=SIZE, targets=CLASSES)
    assert sum(map(len, (parts.weights, parts.policies, parts.test))) == len(SPLITS["train"])


def test_an_image_that_two_files_list_is_refused(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "c")
    (root / "images").mkdir()
    for split in SPLITS:
        for path in (root / split).iterdir():
            path.rename(root / "images" / path.name)
        (root / split).rmdir()
    assert len(open_folder(root)) == 24
    shutil.copy(root / "annotations/instances_val.json", root / "annotations/instances_default.json")
    with pytest.raises(
        UserError, match=r"_default\.json and \S*_val\.json both list \S*images/18\.png.* Remove one of"
    ):
        open_folder(root)


def list_again(root: Path) -> None:
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    document["images"].append({**document["images"][0], "id": 1000, "file_name": "../val/18.png"})
    path.write_text(json.dumps(document))


def damage_categories(root: Path) -> None:
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    document["categories"][0]["name"] = "something else"
    path.write_text(json.dumps(document))


def remove_annotations(root: Path) -> None:
    for path in root.glob("annotations/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))


def remove_masks(root: Path, split: str = "*") -> None:
    for path in root.glob(f"annotations/{split}/*.png"):
        path.unlink()


def remove_training(root: Path) -> None:
    (root / "train").rename(root / "test")


def write_names(root: Path, *names: str, encoding: str = "utf-8") -> None:
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tName", *(f"1\t{name}" for name in names)]), encoding)


WRONG: dict[str, tuple[Rearrange, Callable[[Path], object], str]] = {
    "other categories": (as_coco, damage_categories, "have different categories"),
    "no images of a split": (as_coco, lambda root: shutil.rmtree(root / "val"), "which is in none of"),
    "a class of its own": (
        as_image_folder,
        lambda root: draw(root, "val/hat/0.png"),
        "is of a class that .*train has",
    ),
    "no training split": (
        as_image_folder,
        remove_training,
        "root/val looks like a split, but there is no training split. Put .* into .*root/train/CLASS",
    ),
    "an image twice": (as_coco, list_again, r"both list \S*/val/18\.png"),
    "no box at all": (as_coco, remove_annotations, "annotations has no box of any image"),
    "no mask at all": (as_ade20k, remove_masks, "has no mask of any"),
    "no mask to learn from": (
        as_ade20k,
        lambda root: remove_masks(root, "training"),
        "annotations/training has no mask of any",
    ),
    "names in another encoding": (
        as_ade20k,
        lambda root: write_names(root, "Möbel", encoding="latin-1"),
        r"objectInfo150\.txt is not text in UTF-8",
    ),
    "a name twice": (
        as_ade20k,
        lambda root: write_names(root, *CLASSES["mask"][1:], CLASSES["mask"][1]),
        rf"objectInfo150\.txt names {CLASSES['mask'][1]!r} twice",
    ),
}


@pytest.mark.parametrize(("arrange", "damage", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_in_a_folder_is_named(
    image_folder: Path, tmp_path: Path, arrange: Rearrange, damage: Callable[[Path], object], message: str
) -> None:
    root = arrange(image_folder, tmp_path / "root")
    damage(root)
    with pytest.raises(UserError, match=message):
        open_folder(root)


@pytest.mark.parametrize("name", ["COCO", "ADE20K"])
def test_a_folder_of_depth_beside_does_not_change_the_layout(image_folder: Path, tmp_path: Path, name: str) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    (root / "images").mkdir(exist_ok=True)
    shutil.copytree(image_folder / "depth", root / "depth")
    assert layout_of(root).name == name


@pytest.mark.parametrize(("name", "maps"), [("COCO", "masks"), ("YOLO", "masks"), ("YOLO", "depth")])
def test_maps_beside_images_that_hide_other_labels_are_refused(
    image_folder: Path, tmp_path: Path, name: str, maps: str
) -> None:
    root = ARRANGED[name](image_folder, tmp_path / name)
    (root / "images").mkdir(exist_ok=True)
    shutil.copytree(image_folder / maps, root / maps)
    with pytest.raises(UserError, match=rf"label maps beside images/.* is {name} too.* Move the maps away to read"):
        layout_of(root)
    (root / "instances.json").touch()
    assert layout_of(root).name == "several tasks"


def test_metadata_beside_images_and_masks_are_read(tmp_path: Path) -> None:
    draw(tmp_path, "images/0.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "masks/0.png")
    row = {"file_name": "images/0.png", "label": "cat", "mask_file_name": "masks/0.png"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert layout_of(tmp_path).name == "Hugging Face image folder"
    assert set(open_folder(tmp_path).targets) == {"label", "mask"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.csv", "file_name,camera\nimages/0.png,front\n"),
        ("images/metadata.jsonl", '{"file_name": "0.png", "text": "the label of a box"}\n'),
    ],
)
def test_metadata_without_labels_do_not_hide_masks(tmp_path: Path, file: str, text: str) -> None:
    draw(tmp_path, "images/0.png", "images/1.png")
    (tmp_path / "masks").mkdir()
    for number in range(2):
        Image.new("L", (8, 8), number).save(tmp_path / f"masks/{number}.png")
    (tmp_path / file).write_text(text)
    assert layout_of(tmp_path).name == "several tasks"
    assert set(open_folder(tmp_path).targets) == {"mask"}


@pytest.mark.parametrize("path", [".", "images/.."])
def test_a_folder_is_named_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    draw(tmp_path, "images/0.png", "images/1.png")
    rows = [{"file_name": f"images/{number}.png", "label": str(number)} for number in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    assert layout_of(Path(path)).name == "Hugging Face image folder"
    monkeypatch.chdir(tmp_path / "images")
    assert layout_of(Path("..")).name == "Hugging Face image folder"
    assert len(open_folder(Path(".."))) == 2


def test_a_path_up_from_a_link_leads_to_the_folder_of_its_target(tmp_path: Path) -> None:
    draw(tmp_path / "other", "cat/0.png", "dog/0.png", "images/0.png")
    draw(tmp_path / "here", "x/0.png", "y/0.png")
    (tmp_path / "here/link").symlink_to(tmp_path / "other/images")
    assert open_folder(tmp_path / "here/link/..").targets["label"].classes == ("cat", "dog", "images")


@pytest.mark.parametrize("name", ["saliency", "edges", "depth", "normals", "parts"])
def test_one_folder_of_maps_beside_images_is_enough(image_folder: Path, name: str) -> None:
    (image_folder / "instances.json").unlink()
    for other in {form.folder for form in FORMATS.values()} - {name}:
        shutil.rmtree(image_folder / other)
    assert list(targets_of(image_folder)) == [name]


@pytest.mark.parametrize("made", [[], ["images"], ["masks"], ["readme", "one"]])
def test_a_folder_without_layout_is_refused_with_a_list_of_layouts(tmp_path: Path, made: list[str]) -> None:
    for name in made:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError) as caught:
        layout_of(tmp_path)
    assert all(layout.looks_like in str(caught.value) for layout in LAYOUTS)
    with pytest.raises(UserError, match="does not exist"):
        layout_of(tmp_path / "nowhere")


def test_files_may_have_any_name_and_classes_only_those_in_utf_8(tmp_path: Path) -> None:
    names = ("a/\udcff.png", "é/0.png", "a/\N{GRINNING FACE}.png", "a/two\nlines.png")
    data = open_folder(draw(tmp_path, *names))
    assert (len(data), data.notes) == (4, ())
    assert data.sample(0, SIZE).image.shape == (3, *SIZE)
    draw(tmp_path, "\udcff/0.png")
    with pytest.raises(UserError, match=r"has a class '\\udcff', whose name is not UTF-8"):
        open_folder(tmp_path)
