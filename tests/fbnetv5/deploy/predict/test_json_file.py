import json
import tracemalloc
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.deploy.predict.json_file import PredictionsFile


def test_the_lists_have_their_places_and_the_rows_their_order(tmp_path: Path) -> None:
    file = PredictionsFile(tmp_path / "found" / "predictions.json")
    assert not (tmp_path / "found").exists()
    file.add({"id": 1, "file_name": "ä.png"}, [{"id": 1}, {"id": 2}])
    file.add({"id": 2}, [])
    assert file.boxes == 2
    file.finish({"schema": 1, "images": None, "categories": [{"id": 1}], "annotations": None, "left_out": []})
    document = json.loads((tmp_path / "found" / "predictions.json").read_text(encoding="utf-8"))
    assert list(document) == ["schema", "images", "categories", "annotations", "left_out"]
    assert document["images"] == [{"id": 1, "file_name": "ä.png"}, {"id": 2}]
    assert document["annotations"] == [{"id": 1}, {"id": 2}]
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["predictions.json"]


def test_an_empty_list_and_no_list_of_boxes(tmp_path: Path) -> None:
    file = PredictionsFile(tmp_path / "predictions.json")
    file.add({"id": 1}, [])
    file.finish({"images": None, "annotations": None})
    assert json.loads((tmp_path / "predictions.json").read_text())["annotations"] == []
    file = PredictionsFile(tmp_path / "predictions.json")
    file.add({"id": 2}, [])
    file.finish({"images": None})
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"images": [{"id": 2}]}


def test_an_interrupted_prediction_keeps_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("earlier", encoding="utf-8")
    file = PredictionsFile(tmp_path / "predictions.json")
    file.add({"id": 1}, [{"id": 1}])
    del file
    assert (tmp_path / "predictions.json").read_text(encoding="utf-8") == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    file, boxes = PredictionsFile(tmp_path / "predictions.json"), [{"id": 1, "bbox": [1.5, 2.5, 3.5, 4.5]}] * 100
    file.add({"id": 0}, boxes)
    tracemalloc.start()
    for number in range(300):
        file.add({"id": number}, boxes)
    file.finish({"images": None, "annotations": None})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "predictions.json").stat().st_size > 1 << 20
    assert most < 1 << 19


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*predictions\.json"):
        PredictionsFile(tmp_path / "file" / "predictions.json").add({}, [])
