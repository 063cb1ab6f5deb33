import json
from pathlib import Path
from unittest import mock

from fbnetv5.data import folder, layouts
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.opened import opened_once
from tests.command_line import in_process


def test_a_folder_is_read_once_within_the_context_alone(image_folder: Path) -> None:
    first = open_folder(image_folder)
    with opened_once():
        again = open_folder(image_folder)
        assert open_folder(image_folder) is again is not first
    assert open_folder(image_folder) is not again
    with opened_once():
        (image_folder / "images/00.png").unlink()
        document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
        document["images"] = [row for row in document["images"] if row["file_name"] != "00.png"]
        document["annotations"] = []
        (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
        for map_file in image_folder.glob("*/00.png"):
            map_file.unlink()
        assert len(open_folder(image_folder)) == len(first) - 1


def test_a_command_reads_its_data_set_once(image_folder: Path, tmp_path: Path, networks: Path) -> None:
    arguments = ("eval", "--arch", str(networks / "cls.json"), "--data", str(image_folder))
    with mock.patch.object(folder, "read_document", wraps=folder.read_document) as read:
        result = in_process(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("read as several tasks")) == (0, 1)
    assert read.call_count == 1
    assert layouts.open_folder(image_folder).notes
