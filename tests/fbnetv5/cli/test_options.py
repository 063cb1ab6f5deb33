import json
from pathlib import Path
from typing import get_args

import pytest

from export.errors import UnavailableError, UserError
from fbnetv5.cli.options import (
    Tasks,
    architecture_file,
    find_table,
    only_budget,
    print_layout,
    resolve_device,
    search_images,
    task_names,
)
from fbnetv5.costs.budgets import Budget
from fbnetv5.tasks import default_tasks
from tests.command_line import in_process


def test_task_names_keep_their_order_and_lose_their_spaces() -> None:
    assert task_names("seg, cls") == ("seg", "cls")


def test_help_names_the_default_tasks() -> None:
    (option,) = get_args(Tasks)[1:]
    assert task_names(None) == default_tasks() == tuple(option.show_default.split(","))


@pytest.mark.parametrize("tasks", ["", "cls,", "cls,det,cls"])
def test_a_list_with_empty_or_repeated_tasks_is_refused(tasks: str) -> None:
    with pytest.raises(UserError, match="is not a comma-separated list of different tasks, such as cls,det,seg"):
        task_names(tasks)


def test_a_network_is_named_by_its_file_or_by_its_task() -> None:
    assert architecture_file("det", None) == Path("runs/latest/det.json")
    assert architecture_file("det", Path("a.json")) == Path("a.json")
    with pytest.raises(UserError, match="name a network: --task det"):
        architecture_file(None, None)


def test_the_layout_of_a_folder_is_printed(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_layout(None)
    print_layout(image_folder)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith(
        "images: read as several tasks; classes of label that nothing is labelled with: 'shirt'\n"
    )


# data?, size, fit, tasks -> size and fit of the images, with budgets at 96x64 and 224x224.
IMAGES = {
    "demo": (False, None, None, ["det"], (64, 64), "stretch"),
    "demo of a size": (False, "96", None, ["det"], (96, 96), "stretch"),
    "boxes of a folder": (True, None, None, ["cls", "det"], (224, 224), "letterbox"),
    "maps of a folder": (True, None, None, ["cls", "seg"], (224, 224), "stretch"),
    "both given": (True, "64x32", "stretch", ["det"], (64, 32), "stretch"),
    "the other fit": (True, None, "letterbox", ["seg"], (224, 224), "letterbox"),
}


@pytest.mark.parametrize(("is_folder", "size", "fit", "tasks", "pixels", "used"), IMAGES.values(), ids=IMAGES)
def test_images_of_a_folder_have_the_size_of_the_largest_budget_and_are_announced(
    is_folder: bool,
    size: str | None,
    fit: str | None,
    tasks: list[str],
    pixels: tuple[int, int],
    used: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    budgets = [Budget(limit=1.0, unit="macs", resolution=resolution) for resolution in ((96, 64), (224, 224))]
    images = search_images(tmp_path if is_folder else None, size, fit, tasks=tasks, budgets=budgets)
    assert (images.size, images.fit) == (pixels, used)
    verb = {"stretch": "stretched", "letterbox": "letterboxed"}[used]
    line = f"{tmp_path}: images are {verb} to {pixels[0]}x{pixels[1]} (--fit, --size)"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert " ".join(printed.err.split()) == (line if is_folder else "")


def test_a_strict_data_set_has_nothing_to_note(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"read as several tasks; .*'shirt'\. Correct .* --strict-data"):
        print_layout(image_folder, strict=True)
    path = image_folder / "instances.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["labels"] = sorted({image["label"] for image in document["images"]})
    path.write_text(json.dumps(document), encoding="utf-8")
    print_layout(image_folder, strict=True)
    assert capsys.readouterr().err.endswith("images: read as several tasks\n")


def test_the_error_of_an_unavailable_device_names_the_other_ways() -> None:
    with pytest.raises(UnavailableError, match=r"profile bundle FOLDER --device a100 .* estimate --device a100"):
        resolve_device("a100")


@pytest.mark.parametrize("arguments", [["profile"], ["search", "--latency", "8ms"]])
def test_an_unavailable_device_is_exit_code_3(tmp_path: Path, arguments: list[str]) -> None:
    done = in_process(*arguments, "--device", "a100", cwd=tmp_path)
    assert done.returncode == 3
    line = " ".join(done.stderr.split())
    assert "device 'a100' is not here: no NVIDIA device or driver was found on this machine" in line
    assert "fbnetv5 profile bundle FOLDER --device a100" in line
    assert "fbnetv5 profile estimate --device a100" in line
    assert list(tmp_path.iterdir()) == []


def test_the_only_table_of_a_device_is_used_and_several_are_named(tmp_path: Path) -> None:
    (tmp_path / "orin-fp16-b1.json").write_text('{"kind": "measured"}')
    (tmp_path / "orin-int8-b1-estimated.json").write_text('{"kind": "estimated"}')
    assert find_table("orin", None, tmp_path) == tmp_path / "orin-fp16-b1.json"
    (tmp_path / "orin-int8-b1.json").write_text('{"kind": "measured"}')
    with pytest.raises(UserError, match=r"several latency tables of orin: .*fp16-b1.json, .*int8-b1.json; choose"):
        find_table("orin", None, tmp_path)
    (tmp_path / "orin-fp32-b1.json").touch()
    assert find_table("orin", None, tmp_path) == tmp_path / "orin-fp32-b1.json"


def test_the_only_budget_has_a_unit_and_a_latency_needs_a_table() -> None:
    assert only_budget("400M", None, has_table=False) == ("400M", "macs")
    assert only_budget(None, "8ms", has_table=True) == ("8ms", "ms")
    for flops, latency in ((None, None), ("400M", "8ms")):
        with pytest.raises(UserError, match="exactly one budget"):
            only_budget(flops, latency, has_table=False)
    with pytest.raises(UserError, match="needs a latency table"):
        only_budget(None, "8ms", has_table=False)
