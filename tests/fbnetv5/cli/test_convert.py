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


def test_wrong_input_is_one_line(image_folder: Path, tmp_path: Path) -> None:
    assert_refused(["convert", "nowhere", "-o", "shards"], "folder nowhere does not exist", cwd=tmp_path)
    assert_refused(["convert", str(image_folder), "-o", str(image_folder)], "name another folder with -o", cwd=tmp_path)
