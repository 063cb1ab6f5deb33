import json
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from export import validate as module
from export.cuda import GpuInfo
from export.errors import UserError, VerificationError
from export.manifest import (
    Manifest,
    Preprocessing,
    TensorEntry,
    export_versions,
    read_unverified_manifest,
    write_manifest,
)
from export.parity import OutputGroup
from export.precision import Precision, to_half, to_int8
from export.precision_pipeline import block_values
from export.reference import NAME as REFERENCE
from export.reference import Reference, sample, write_reference
from export.runners import OrtRunner
from export.trt import bindings
from export.trt.engine import NAME as ENGINE
from export.trt.engine import Engine, ShapeRange, build_engine
from export.trt.options import EngineOptions
from export.validate import ONNX, Finding, Validation, validate
from tests.bare_python import bare_python
from tests.export.tiny import Tiny, exported, images, sabotaged
from tests.tensorrt_marks import with_tensorrt

ROOT = Path(__file__).parent.parent.parent


@cache
def content_of(precision: Precision) -> bytes:
    """The network's ONNX file."""
    content = exported(Tiny())
    if precision == "int8":
        return to_int8(content, [images()])
    return to_half(content) if precision == "fp16" else content


@cache
def reference_of(precision: Precision) -> Reference:
    """The values in the network's blocks and outputs for two images."""
    content, inputs = content_of(precision), images(2)
    blocks = {name: sample(values) for name, values in block_values(content, content, inputs).items()}
    return Reference(inputs=inputs, outputs=OrtRunner(content)(inputs), blocks=blocks)


def folder_of(folder: Path, precision: Precision) -> Path:
    """An exported folder as the command writes it."""
    (folder / ONNX).write_bytes(content_of(precision))
    runner = OrtRunner(content_of(precision))
    write_reference(folder, reference_of(precision))
    manifest = Manifest(
        precision=precision,
        inputs=tuple(map(TensorEntry.of, runner.inputs)),
        outputs=tuple(map(TensorEntry.of, runner.outputs)),
        task_outputs={"cls": OutputGroup(outputs=("logits",))},
        preprocessing=Preprocessing(resize=(32, 32), mean=(0.0,), std=(1.0,)),
        labels={"cls": ()},
        architecture={"cls": {}},
        versions=export_versions(),
        parity=(),
        metrics={"cls": {}},
    )
    write_manifest(folder, manifest, files=[ONNX, REFERENCE])
    return folder


def validated(folder: Path) -> Validation:
    return validate(folder, lambda line: None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_untouched_folder_passes(tmp_path: Path, precision: Precision) -> None:
    document = validated(folder_of(tmp_path, precision)).to_json()
    assert document["passed"]
    assert {finding["check"]: finding["passed"] for finding in document["findings"]} == {
        "files": True,
        "versions": None,
        "onnx": True,
        "engine": None,
    }
    assert [row["error"] for row in document["parity"]] == [0.0]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_block_with_other_weights_is_detected_and_named(tmp_path: Path, precision: Precision) -> None:
    path = folder_of(tmp_path, precision) / ONNX
    path.write_bytes(sabotaged(path.read_bytes(), "backbone/last", 3.0))
    findings = {finding.check: finding for finding in validated(tmp_path).findings}
    assert findings["files"].passed is False
    assert findings["files"].detail == "model.onnx: not the files of the manifest"
    assert findings["onnx"].passed is False
    assert "the faulty block is backbone/last" in findings["onnx"].detail


@pytest.mark.parametrize("other", ["cut off", "another network"])
def test_an_onnx_file_that_does_not_run_or_has_other_outputs_is_a_finding(tmp_path: Path, other: str) -> None:
    path = folder_of(tmp_path, "fp32") / ONNX
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if other == "cut off" else exported(Tiny(best=True), ["logits", "k"]))
    findings = {finding.check: finding for finding in validated(tmp_path).findings}
    assert findings["files"].passed is False
    assert findings["onnx"].passed is False
    assert ("refuses the ONNX graph" if other == "cut off" else "'logits' is float32 [2, 2]") in findings["onnx"].detail


@pytest.mark.parametrize(
    ("field", "value"), [("precision", "fp8"), ("task_outputs", {}), ("engine.runtime", "os"), ("engine.file", "../e")]
)
def test_a_manifest_with_unknown_values_is_damaged(tmp_path: Path, field: str, value: object) -> None:
    path = folder_of(tmp_path, "fp32") / "manifest.json"
    document = json.loads(path.read_text())
    engine = Engine(
        file="model.engine", runtime="tensorrt", version="1", precision="fp32", layers={}, shapes=(), ran=False
    )
    document["engine"] = engine.to_json()
    name, _, inner = field.partition(".")
    document[name] = {**document[name], inner: value} if inner else value
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is damaged"):
        validated(tmp_path)


def test_other_versions_are_listed_and_are_no_failure(tmp_path: Path) -> None:
    folder_of(tmp_path, "fp32")
    manifest = read_unverified_manifest(tmp_path).changed(versions={"onnxruntime": "0.1", "abacus": "9"})
    write_manifest(tmp_path, manifest, files=[ONNX, REFERENCE])
    validation = validated(tmp_path)
    assert validation.passed
    (detail,) = (finding.detail for finding in validation.findings if finding.check == "versions")
    assert detail.startswith("onnxruntime 0.1 there, ")
    assert detail.endswith("abacus 9 there, none here")


@pytest.mark.parametrize("name", [ONNX, REFERENCE, "manifest.json"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path, "fp32") / name).unlink()
    with pytest.raises(UserError, match=name):
        validated(tmp_path)


@with_tensorrt
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_run_and_an_engine_of_another_machine_is_rebuilt(tmp_path: Path, precision: Precision) -> None:
    folder_of(tmp_path, precision)
    smallest, largest = (1, 3, 32, 32), (4, 3, 32, 32)
    shapes = [ShapeRange(name="images", smallest=smallest, typical=smallest, largest=largest)]
    engine = build_engine(tmp_path / ONNX, tmp_path / ENGINE, shapes, precision=precision)
    write_manifest(tmp_path, read_unverified_manifest(tmp_path).changed(engine=engine), files=[ONNX, REFERENCE, ENGINE])
    assert validated(tmp_path).passed_check("engine")
    (tmp_path / ENGINE).write_bytes(b"an engine of another machine")
    engine = engine.changed(gpu="another GPU")
    write_manifest(tmp_path, read_unverified_manifest(tmp_path).changed(engine=engine), files=[ONNX, REFERENCE, ENGINE])
    validation = validated(tmp_path)
    assert validation.passed_check("engine")
    assert any("rebuilt" in finding.detail for finding in validation.findings)
    assert validated(tmp_path).passed


ENGINE_HERE = Engine(
    file=ENGINE,
    runtime="tensorrt",
    version="1",
    precision="fp32",
    layers={},
    shapes=(),
    ran=True,
    gpu="Tesla T4",
    options={"level": 5},
)


def engine_finding(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """The finding on a machine with the GPU and the TensorRT of ``ENGINE_HERE``, where engines do not load or build."""

    def refuse(*_: object, **options: object) -> NoReturn:
        raise VerificationError(f"fails with {options.get('options')}")

    gpu = GpuInfo(name="Tesla T4", compute_capability=(7, 5), memory_mb=15000)
    monkeypatch.setattr(module, "find_gpus", lambda: (gpu,))
    monkeypatch.setattr(bindings, "load_variant", lambda _: SimpleNamespace(name="tensorrt", version="1"))
    monkeypatch.setattr(module, "open_engine", refuse)
    monkeypatch.setattr(module, "build_engine", refuse)
    folder_of(folder, "fp32")
    (folder / ENGINE).write_bytes(b"engine")
    write_manifest(folder, read_unverified_manifest(folder).changed(engine=engine), files=[ONNX, REFERENCE, ENGINE])
    (finding,) = (finding for finding in validated(folder).findings if finding.check == "engine")
    return finding


def test_only_an_engine_of_another_gpu_is_rebuilt_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = engine_finding(tmp_path, ENGINE_HERE, monkeypatch)
    assert (finding.passed, finding.detail) == (False, "fails with None")
    finding = engine_finding(tmp_path, ENGINE_HERE.changed(gpu="Tesla P4"), monkeypatch)
    assert finding.passed is False
    assert finding.detail.startswith("rebuilt, because")
    assert finding.detail.endswith(f"fails with {EngineOptions(level=5)}")


def test_an_engine_with_code_for_the_cpu_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = engine_finding(tmp_path, ENGINE_HERE.changed(options={"version_compatible": True}), monkeypatch)
    assert finding.passed is None
    assert "not run: model.engine was built version compatible" in finding.detail


def run_bare(python: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """``fbnetv5 validate FOLDER --json`` by an interpreter that has a part of the packages."""
    code = f"import sys; sys.path.append({str(ROOT)!r}); from fbnetv5.cli import main; main()"
    command = [python, "-P", "-c", code, "validate", str(folder), "--json"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, check=False)


def test_another_result_is_a_failure_without_onnx_too(tmp_path: Path) -> None:
    python = bare_python(tmp_path / "venv", "onnxruntime", "pydantic", "typer", "rich")
    assert subprocess.run([python, "-P", "-c", "import onnx"], capture_output=True, check=False).returncode == 1
    (tmp_path / "net").mkdir()
    path = folder_of(tmp_path / "net", "fp32") / ONNX
    assert run_bare(python, tmp_path / "net").returncode == 0
    path.write_bytes(sabotaged(path.read_bytes(), "backbone/last", 3.0))
    done = run_bare(python, tmp_path / "net")
    assert done.returncode == 1
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "onnx"]
    assert finding["passed"] is False


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    python = bare_python(tmp_path / "venv", "onnxruntime", "onnx", "pydantic", "typer", "rich")
    assert subprocess.run([python, "-P", "-c", "import torch"], capture_output=True, check=False).returncode == 1
    (tmp_path / "net").mkdir()
    folder_of(tmp_path / "net", "fp16")
    done = run_bare(python, tmp_path / "net")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"]
    assert document["latency_ms"]["onnxruntime, 1 thread"]["median"] > 0
    assert "torch 2" in next(finding["detail"] for finding in document["findings"] if finding["check"] == "versions")
