import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from export.manifest import Manifest, Preprocessing, TensorEntry, export_versions, read_manifest, write_manifest
from export.parity import OutputGroup
from export.trt.engine import Engine, ShapeRange

MANIFEST = Manifest(
    precision="fp16",
    inputs=(TensorEntry(name="image", shape=("batch", 3, 224, 224), dtype="float32"),),
    outputs=(TensorEntry(name="logits", shape=("batch", 10), dtype="float32"),),
    preprocessing=Preprocessing(resize=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    task_outputs={"cls": OutputGroup(outputs=("logits",))},
    labels={"cls": ("shirt", "bag")},
    architecture={"cls": {"task": "cls", "choices": [0, 1]}},
    versions={**export_versions(), "fbnetv5": "0.1.0"},
    parity=({"stage": "fp16 onnxruntime", "output": "logits", "error": 1e-4},),
    metrics={"cls": {"name": "top1", "stages": {"torch": 0.75, "fp16": 0.75}}},
)


def written(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"graph")
    write_manifest(folder, MANIFEST, files=["model.onnx"])
    return folder / "manifest.json"


def test_a_manifest_is_read_back(tmp_path: Path) -> None:
    written(tmp_path)
    expected = {"model.onnx": hashlib.sha256(b"graph").hexdigest()}
    assert read_manifest(tmp_path) == MANIFEST.changed(sha256=expected)


TRAINED = {"provenance": {"trained_at": [64, 96]}}
ANY_SIZE = (TensorEntry(name="image", shape=("batch", 3, "height", "width"), dtype="float32"),)


@pytest.mark.parametrize(
    ("architecture", "inputs", "expected"),
    [
        ({"cls": TRAINED}, ANY_SIZE, (64, 96)),
        ({"cls": TRAINED, "seg": TRAINED}, ANY_SIZE, (64, 96)),
        ({"cls": TRAINED, "seg": {"provenance": {"trained_at": [32, 32]}}}, ANY_SIZE, (224, 224)),
        ({"cls": {}}, ANY_SIZE, (224, 224)),
        ({"cls": TRAINED}, MANIFEST.inputs, (224, 224)),
    ],
    ids=["one task", "two tasks", "two sizes", "unknown", "fixed"],
)
def test_images_have_the_size_of_the_training_if_the_network_accepts_it(
    architecture: dict[str, Any], inputs: tuple[TensorEntry, ...], expected: tuple[int, int]
) -> None:
    assert MANIFEST.changed(architecture=architecture, inputs=inputs).image_size == expected


def test_an_engine_is_read_back_and_its_file_checked(tmp_path: Path) -> None:
    shapes = ShapeRange(name="image", smallest=(1, 3, 64, 64), typical=(1, 3, 224, 224), largest=(8, 3, 224, 224))
    engine = Engine(
        file="model.engine",
        runtime="tensorrt_rtx",
        version="1.7",
        precision="fp32",
        layers={"FLOAT": 9},
        shapes=(shapes,),
        ran=False,
    )
    (tmp_path / "model.engine").write_bytes(b"engine")
    write_manifest(tmp_path, MANIFEST.changed(engine=engine), files=["model.engine"])
    assert read_manifest(tmp_path).engine == engine
    (tmp_path / "model.engine").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.engine is not the file"):
        read_manifest(tmp_path)


def test_the_document_has_all_fields(tmp_path: Path) -> None:
    document = json.loads(written(tmp_path).read_text())
    assert document["schema"] == 3
    assert document["inputs"] == [{"name": "image", "shape": ["batch", 3, 224, 224], "dtype": "float32"}]
    assert document["preprocessing"]["order"] == "RGB"
    assert document["preprocessing"]["scale"] == pytest.approx(1 / 255)


def test_a_manifest_without_a_fit_stretches(tmp_path: Path) -> None:
    path = written(tmp_path)
    document = json.loads(path.read_text())
    assert (document["preprocessing"].pop("fit"), document["preprocessing"].pop("padding")) == ("stretch", None)
    path.write_text(json.dumps(document))
    assert read_manifest(tmp_path).preprocessing == MANIFEST.preprocessing


def test_a_swapped_file_is_detected(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.onnx is not the file its manifest was written for"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", None),
        ("preprocessing", {"crop": 1}),
        ("parity", [1]),
        ("precision", "fp8"),
        ("inputs", [{"name": "image", "shape": [1.5], "dtype": "float32"}]),
        ("task_outputs", {"cls": ["logits"]}),
        ("engine", {"file": "e"}),
        ("sha256", {"../model.onnx": "0"}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(tmp_path)


SCHEMA_2: dict[str, Any] = {
    "answers": {"cls": {"outputs": ["logits"], "ranked_by": None}},
    "parity": [{"rung": "fp16 onnxruntime", "output": "logits", "error": 1e-4}],
    "metrics": {"cls": {"name": "top1", "rungs": {"torch": 0.75, "fp16": 0.75}}},
    "engine": {
        "file": "model.engine",
        "runtime": "tensorrt",
        "version": "10.13",
        "precision": "fp16",
        "layers": {"HALF": 9},
        "shapes": [],
        "ran": True,
        "audited": "engine",
    },
}


def test_a_manifest_of_schema_2_is_read_under_the_new_names(tmp_path: Path) -> None:
    path = written(tmp_path)
    document = json.loads(path.read_text())
    del document["task_outputs"]
    path.write_text(json.dumps({**document, **SCHEMA_2, "schema": 2}))
    manifest = read_manifest(tmp_path)
    assert manifest.changed(sha256={}, engine=None) == MANIFEST
    assert manifest.engine is not None
    assert manifest.engine.layers_source == "engine"


@pytest.mark.parametrize("field", ["answers", "parity", "metrics", "engine"])
def test_a_damaged_manifest_of_schema_2_is_refused(tmp_path: Path, field: str) -> None:
    path = written(tmp_path)
    document = json.loads(path.read_text())
    del document["task_outputs"]
    path.write_text(json.dumps({**document, **SCHEMA_2, "schema": 2, field: 1}))
    with pytest.raises(UserError, match="is damaged") as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("schema", [1, 4])
def test_another_schema_is_refused(tmp_path: Path, schema: int) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(UserError, match=f"has schema {schema}; this version reads schema 2 and 3"):
        read_manifest(tmp_path)


def test_a_missing_file_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*model\.onnx"):
        write_manifest(tmp_path, MANIFEST, files=["model.onnx"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_exported_folders_names_them(tmp_path: Path) -> None:
    for name in "det", "cls":
        (tmp_path / name).mkdir()
        written(tmp_path / name)
    with pytest.raises(UserError, match=f"has exported folders: name one of {tmp_path}/cls, {tmp_path}/det"):
        read_manifest(tmp_path)
