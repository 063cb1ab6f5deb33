from pathlib import Path

import pytest

from export.manifest import read_manifest
from export.validate import validate
from fbnetv5.deploy.export_folder import write_export_folder
from fbnetv5.deploy.export_model import ExportModel
from latency.runtimes.onnxruntime import cpu_name
from tests.fbnetv5.deploy.conftest import MakeExported


def test_the_folder_passes_validation_and_has_no_older_engine(
    make_exported: MakeExported, classifier: ExportModel, content: bytes, tmp_path: Path
) -> None:
    exported = make_exported(tmp_path)
    exported.folder.mkdir()
    (exported.folder / "model.engine").write_bytes(b"of another network")
    write_export_folder(exported, content, classifier.seeded((32, 32), 2))
    assert {path.name for path in exported.folder.iterdir()} == {"model.onnx", "reference.npz", "manifest.json"}
    assert validate(exported.folder, lambda line: None).passed


def test_an_export_that_fails_leaves_the_earlier_one_whole(
    make_exported: MakeExported,
    classifier: ExportModel,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported = make_exported(tmp_path)
    write_export_folder(exported, content, classifier.seeded((32, 32), 2))
    (exported.folder / "model.engine").write_bytes(b"of this network")
    before = {path.name: path.read_bytes() for path in exported.folder.iterdir()}

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fbnetv5.deploy.export_folder.block_values", fail)
    with pytest.raises(MemoryError):
        write_export_folder(exported, content, classifier.seeded((32, 32), 2))
    assert {path.name: path.read_bytes() for path in exported.folder.iterdir()} == before


def test_the_manifest_describes_the_network(
    make_exported: MakeExported, classifier: ExportModel, content: bytes, tmp_path: Path
) -> None:
    exported = make_exported(tmp_path)
    write_export_folder(exported, content, classifier.seeded((32, 32), 2))
    manifest = read_manifest(exported.folder)
    assert [(entry.name, entry.dtype) for entry in manifest.inputs] == [("images", "float32")]
    assert [entry.name for entry in manifest.outputs] == list(classifier.output_names)
    assert manifest.labels == {"cls": classifier.tasks["cls"].labels}
    assert manifest.architecture == {"cls": classifier.architectures["cls"].to_json()}
    assert manifest.preprocessing.resize == (32, 32)
    assert (manifest.latency_ms, manifest.machine) == ({"onnxruntime": 1.25}, cpu_name())
