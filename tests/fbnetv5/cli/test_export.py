import json
from pathlib import Path

import pytest

from export.manifest import read_manifest
from tests.command_line import assert_refused, document, in_process
from tests.contract.schemas import check_document

WRONG = {
    "no run": ([], "does not exist"),
    "unknown precision": (["--precision", "fp8"], "there is no precision 'fp8'"),
    "two sizes": (["--fixed-size", "--dynamic-size"], "exclude each other"),
    "engine of nms": (["--task", "det", "--head", "nms", "--engine"], "TensorRT cannot build an engine of it"),
    "head of all": (["--head", "decode"], "--head needs the task of a detector: add --task det"),
    "float of no int8": (["--keep-float", "/head/*"], "needs --precision int8"),
    "config of no engine": (["--engine-config", "e.json"], "it needs --engine"),
    "unknown fit": (["--fit", "crop"], "unknown fit 'crop'; there are: stretch, letterbox"),
    "repeated task": (["--task", "cls,cls"], "'cls,cls' is not a comma-separated list of different tasks"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["export", *options], message, cwd=tmp_path)


def test_a_run_is_exported_as_a_file_per_task_that_equals_torch(work: Path) -> None:
    results = document("export", cwd=work)["exported"]
    assert [exported["task"] for exported in results] == ["cls", "det", "seg"]
    for exported in results:
        assert (work / exported["folder"] / "model.onnx").exists()
        assert all(parity["error"] <= 1e-4 for parity in exported["parity"])
        assert exported["metric"]["onnxruntime"] == pytest.approx(exported["metric"]["torch"], abs=1e-3)


@pytest.mark.slow
def test_the_table_names_the_metric_and_its_size(work: Path, tmp_path: Path) -> None:
    done = in_process("export", "--task", "seg", "--output", str(tmp_path), cwd=work)
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert "predicted latency" in header
    assert "measured latency" in header
    assert "miou at 64x64" in row
    assert "torch 0." in row
    assert "fp32 0." in row


def test_an_engine_is_built_without_a_gpu_and_the_document_tells_that_it_was_not_run(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    exported = document("export", "--task", "seg", "--engine", "--precision", "fp16", cwd=work)
    assert (work / exported["engine"]).stat().st_size > 1_000_000
    assert exported["ran"] is False
    assert exported["precision"]["requested"] == "fp16"
    assert exported["precision"]["layers"]["HALF"] > exported["precision"]["layers"]["FLOAT"]
    stages = ["fp32 onnxruntime", "fp16 onnxruntime", "fp16 rounded"]
    assert list(dict.fromkeys(parity["stage"] for parity in exported["parity"])) == stages
    assert list(exported["metric"]["stages"]) == ["torch", "fp32", "fp16"]
    manifest = read_manifest(work / exported["folder"])
    assert manifest.engine is not None
    assert set(manifest.sha256) == {"model.onnx", "model.engine", "reference.npz"}


@pytest.mark.slow
def test_an_engine_that_cannot_be_built_leaves_the_onnx_file_and_no_older_engine(
    without_tensorrt: None, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "cls").mkdir()
    (tmp_path / "cls" / "model.engine").write_bytes(b"of another network")
    done = in_process("export", "--task", "cls", "--engine", "--output", str(tmp_path), "--json", cwd=work)
    assert done.returncode == 3
    assert "the ONNX files are written, but no engine was built: " in " ".join(done.stderr.split())
    assert "pip install 'fbnetv5[rtx]'" in done.stderr
    assert "--minShapes=images:1x3x64x64 --optShapes=images:1x3x64x64 --maxShapes=images:8x3x64x64" in done.stderr
    exported = json.loads(done.stdout)
    check_document(["export", "--task", "cls"], exported)
    assert exported["engine"] is None
    assert read_manifest(tmp_path / "cls").engine is None
    assert {path.name for path in (tmp_path / "cls").iterdir()} == {"model.onnx", "reference.npz", "manifest.json"}


@pytest.mark.slow
def test_a_joint_network_from_pixels_is_validated_in_another_folder(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    options = ["--precision", "fp16", "--pixels", "--engine", "--output", str(tmp_path)]
    exported = document("export", "--task", "cls,seg", *options, cwd=work)
    assert exported["precision"]["layers"]["HALF"] > 0
    assert exported["sharing"]["blocks_shared"] > 0
    for of_task in exported["tasks"].values():
        assert list(of_task["metric"]["stages"]) == ["torch", "fp32", "fp16"]
    folder = tmp_path / "cls+seg"
    manifest = read_manifest(folder)
    assert [entry.dtype for entry in manifest.inputs] == ["uint8"]
    assert [entry.name for entry in manifest.outputs] == ["cls_logits", "seg_logits"]
    assert document("validate", str(folder), cwd=tmp_path)["passed"]
    content = (folder / "reference.npz").read_bytes()
    (folder / "reference.npz").write_bytes(content[:-100])
    done = in_process("validate", str(folder), cwd=tmp_path)
    assert done.returncode == 2
    assert "reference.npz is damaged" in done.stderr


def test_a_metric_that_drops_too_far_fails_and_nothing_is_written(work: Path, tmp_path: Path) -> None:
    done = in_process("export", "--task", "cls", "--max-drop", "-0.5", "--output", str(tmp_path), cwd=work)
    assert done.returncode == 1
    assert "and at most -0.5 was allowed (--max-drop); nothing is written" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_detector_has_outputs_of_the_requested_form(work: Path, tmp_path: Path) -> None:
    topk = document("export", "--task", "det", "--output", str(tmp_path / "topk"), cwd=work)
    decode = document("export", "--task", "det", "--head", "decode", "--output", str(tmp_path), cwd=work)
    assert [entry.name for entry in read_manifest(tmp_path / "det").outputs] == ["boxes", "scores"]
    assert decode["metric"]["onnxruntime"] == pytest.approx(topk["metric"]["onnxruntime"], abs=1e-6)
    assert decode["metric"]["onnxruntime"] > 0
