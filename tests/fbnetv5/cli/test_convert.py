import json
from pathlib import Path

import pytest

from tests.command_line import assert_refused, document, fbnetv5

pytest.importorskip("pyarrow")


def test_a_folder_is_converted_and_recognised_as_shards(image_folder: Path, tmp_path: Path) -> None:
    printed = document("convert", str(image_folder), "-o", "shards", cwd=tmp_path)
    assert printed["folder"] == "shards"
    assert printed["images"] == sum(printed["splits"].values()) == 24
    assert printed["bytes"] == sum(path.stat().st_size for path in (tmp_path / "shards/data").iterdir())
    assert len(printed["targets"]) == 8
    assert document("convert", str(image_folder), "-o", "shards", cwd=tmp_path) == printed
    result = fbnetv5("convert", "shards", "-o", "again", cwd=tmp_path)
    assert result.returncode == 2
    assert "shards: read as Parquet shards" in result.stderr


def test_a_data_set_with_an_empty_split_is_refused_before_anything_is_written(
    image_folder: Path, tmp_path: Path
) -> None:
    document = json.loads((image_folder / "instances.json").read_text())
    document["images"], document["annotations"] = document["images"][:2], []
    (image_folder / "instances.json").write_text(json.dumps(document))
    for path in image_folder.glob("*/*.png"):
        if path.stem not in ("00", "01"):
            path.unlink()
    assert_refused(["convert", str(image_folder), "-o", "shards"], "each needs at least 1. Add images", cwd=tmp_path)
    assert not (tmp_path / "shards").exists()


def test_strict_data_refuses_a_source_with_notes(image_folder: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(image_folder), "-o", "shards"]
    assert_refused([*arguments, "--strict-data"], "or leave out --strict-data", cwd=tmp_path)
    assert not (tmp_path / "shards").exists()
    converted = fbnetv5(*arguments, cwd=tmp_path)
    assert converted.returncode == 0
    assert "24 images in 2 shards: " in converted.stdout


def test_wrong_input_is_one_line(image_folder: Path, tmp_path: Path) -> None:
    assert_refused(["convert", "nowhere", "-o", "shards"], "folder nowhere does not exist", cwd=tmp_path)
    assert_refused(["convert", str(image_folder), "-o", str(image_folder)], "name another folder with -o", cwd=tmp_path)
