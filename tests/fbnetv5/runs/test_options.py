from pathlib import Path

import pytest

from export.errors import UnavailableError, UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.folder import point_latest
from fbnetv5.runs.options import architecture_file, find_table, open_device, run_folder, search_images, without_link


def test_a_network_is_named_by_its_file_or_by_its_task() -> None:
    assert architecture_file("det", None) == Path("runs/latest/det.json")
    assert architecture_file("det", Path("a.json")) == Path("a.json")
    with pytest.raises(UserError, match="name a network: --task det"):
        architecture_file(None, None)


def test_a_run_without_a_network_of_the_task_names_those_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    latest = tmp_path / "runs" / "latest"
    latest.mkdir(parents=True)
    with pytest.raises(UserError, match=r"runs/latest has no network for 'det'; it has: none yet\. --resume continues"):
        architecture_file("det", None)
    for name in "cls.json", "cls.safetensors", "panel.safetensors":
        (latest / name).touch()
    assert architecture_file("cls", None) == Path("runs/latest/cls.json")
    with pytest.raises(UserError, match=r"it has: cls\. --resume"):
        architecture_file("det", None)


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
) -> None:
    budgets = [Budget(limit=1.0, unit="macs", resolution=resolution) for resolution in ((96, 64), (224, 224))]
    lines: list[str] = []
    folder = tmp_path if is_folder else None
    images = search_images(folder, size, fit, tasks=tasks, budgets=budgets, log=lines.append)
    assert (images.size, images.fit) == (pixels, used)
    verb = {"stretch": "stretched", "letterbox": "letterboxed"}[used]
    line = f"{tmp_path}: images are {verb} to {pixels[0]}x{pixels[1]} (--fit, --size)"
    assert lines == ([line] if is_folder else [])


def test_the_error_of_an_unavailable_device_names_the_other_ways() -> None:
    with pytest.raises(UnavailableError, match=r"profile bundle FOLDER --device a100 .* estimate --device a100"):
        open_device("a100")


def test_the_only_table_of_a_device_is_used_and_several_are_named(tmp_path: Path) -> None:
    (tmp_path / "orin-fp16-b1.json").write_text('{"kind": "measured"}')
    (tmp_path / "orin-int8-b1-estimated.json").write_text('{"kind": "estimated"}')
    lines: list[str] = []
    assert find_table("orin", None, tmp_path, lines.append) == tmp_path / "orin-fp16-b1.json"
    assert lines == [f"latency table: {tmp_path / 'orin-fp16-b1.json'}"]
    (tmp_path / "orin-int8-b1.json").write_text('{"kind": "measured"}')
    with pytest.raises(UserError, match=r"several latency tables of orin: .*fp16-b1.json, .*int8-b1.json; choose"):
        find_table("orin", None, tmp_path, lines.append)
    (tmp_path / "orin-fp32-b1.json").touch()
    assert find_table("orin", None, tmp_path, lines.append) == tmp_path / "orin-fp32-b1.json"
    for pattern in ("ori?", "**", "/dev/nvidia0"):
        with pytest.raises(UserError, match="there is no device"):
            find_table(pattern, None, tmp_path, lines.append)


def test_a_table_and_a_device_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"instead of the table of --device cpu: leave out one of them"):
        find_table("cpu", tmp_path / "table.json", tmp_path, pytest.fail)


def test_a_run_is_a_folder_in_the_folder_of_runs() -> None:
    assert run_folder("runs", "one") == Path("runs/one")
    assert run_folder("runs", None).parent == Path("runs")
    with pytest.raises(UserError, match="--name 'latest' is not the name of a folder in --runs"):
        run_folder("runs", "latest")


def test_a_path_through_the_link_stays_with_its_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "added").mkdir(parents=True)
        point_latest(tmp_path / name, pytest.fail)
        assert without_link(tmp_path / "latest") == tmp_path / name
        assert without_link(tmp_path / "latest" / "added") == tmp_path / name / "added"
    assert without_link(tmp_path / "one") == tmp_path / "one"
    (tmp_path / "link").symlink_to("one")
    assert without_link(tmp_path / "link") == tmp_path / "link"
