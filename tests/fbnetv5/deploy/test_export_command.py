from pathlib import Path

import pytest

from fbnetv5 import api
from fbnetv5.runs.folder import networks_of, point_latest
from tests.contract.schemas import check_document
from tests.contract.stored import stored_run
from tests.fbnetv5.cli.conftest import brief_timing


def test_networks_of_a_run_are_exported(tmp_path: Path) -> None:
    run, lines = stored_run(tmp_path / "run"), list[str]()
    with brief_timing():
        (exported,) = api.export(run, ["cls"], output=tmp_path / "out", log=lines.append)
    check_document(["export", "--task", "cls"], exported.to_json())
    assert lines[0] == "cls: exporting"
    assert api.load(exported.folder).tasks == ("cls",)
    for options, message in (
        ({"head": "nms"}, "--head needs the task of a detector"),
        ({"engine_options": {"level": 3}}, "it needs --engine"),
        ({"precision": "fp8"}, "precision"),
    ):
        with pytest.raises(api.UserError, match=message):
            api.export(run, **options)


def test_without_tensorrt_the_files_are_written_and_the_error_has_them(without_tensorrt: None, tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run")
    with brief_timing(), pytest.raises(api.IncompleteExportError, match="no engine was built") as caught:
        api.export(run, "cls", output=tmp_path / "out", engine=True)
    (exported,) = caught.value.exported
    assert (exported.folder / "model.onnx").exists()
    assert exported.engine is None


def test_the_link_to_the_newest_run_is_read_once(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run")
    point_latest(run, pytest.fail)
    with brief_timing():
        (exported,) = api.export(tmp_path / "latest", "cls")
    assert exported.folder == run / "export" / "cls"


def test_a_network_that_fails_does_not_keep_the_others_from_being_exported(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run")
    first = networks_of(run)[0][0]
    (run / f"{first}.safetensors").write_bytes(b"damaged")
    with brief_timing(), pytest.raises(api.IncompleteExportError, match=rf"{first}\.safetensors is damaged") as caught:
        api.export(run, output=tmp_path / "out")
    exported = [one.model.name for one in caught.value.exported]
    assert exported == [name for (name,) in networks_of(run)[1:]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(exported)
    assert caught.value.exit_code == 2


def test_a_failed_check_decides_the_exit_code() -> None:
    failures = [
        api.UnavailableError("no TensorRT"),
        api.VerificationError("too far"),
        api.UnavailableError("no TensorRT"),
    ]
    error = api.IncompleteExportError((), failures)
    assert (str(error), error.exit_code) == ("no TensorRT; too far", 1)
