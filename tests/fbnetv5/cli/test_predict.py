import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import assert_refused, document, in_process


def test_a_folder_of_images_is_drawn(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "images" / "x.png").write_bytes(b"no image")
    arguments = ["predict", str(networks / "seg.json"), str(image_folder / "images"), "-o", "out"]
    done = in_process(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out/predictions.json: 24 images, 1 left out; images/s: read ")
    assert "left out: cannot read" in done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 24


def test_boxes_are_counted(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(networks / "det.json"), str(image_folder / "images"), "-o", "out", "--no-draw"]
    every = document(*arguments, "--min-score", "0", cwd=tmp_path)
    boxes = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    assert every["boxes"] == len(boxes) > 2
    done = in_process(*arguments, cwd=tmp_path)
    highest = max(box["score"] for box in boxes)
    assert f"24 images, 0 boxes from a score of 0.3 on (highest {highest:.3g}); images/s: " in done.stdout


def test_true_labels_are_drawn_beside_the_predictions(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    options = [str(networks / "det.json"), str(image_folder), "-o", "out", "--truth", "--size", "64x64"]
    assert document("predict", *options, cwd=tmp_path)["images"] == 24
    assert Image.open(tmp_path / "out" / "00.png").width > 2 * 64


def test_without_drawings_only_maps_and_the_json_file_are_written(
    networks: Path, image_folder: Path, tmp_path: Path
) -> None:
    arguments = [str(networks / "seg.json"), str(image_folder / "images" / "00.png"), "-o", "out", "--no-draw"]
    assert document("predict", *arguments, cwd=tmp_path)["images"] == 1
    files = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")]
    assert sorted(files) == ["predictions.json", "seg/00.png.png"]


@pytest.mark.parametrize("output", [".", "out"])
def test_the_folder_of_the_images_is_no_place_for_the_results(output: str, networks: Path, tmp_path: Path) -> None:
    command = ["predict", str(networks / "cls.json"), ".", "-o", output]
    assert_refused(command, f"{output} is in the folder of the images: name another folder with -o", cwd=tmp_path)


def test_a_network_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert_refused(["predict", "shipped", "a.png"], "shipped is neither a folder with a manifest.json", cwd=tmp_path)


def test_an_exported_folder_needs_no_torch() -> None:
    modules = "command", "run", "models", "sources", "drawing"
    imports = ", ".join(f"fbnetv5.deploy.predict.{module}" for module in modules)
    code = f"import sys; sys.modules['torch'] = None; import fbnetv5.cli.predict, fbnetv5.api, {imports}"
    subprocess.run([sys.executable, "-c", code], check=True)
