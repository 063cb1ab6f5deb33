import errno
import time
from pathlib import Path
from typing import NoReturn

import pytest

from export.errors import UserError
from latency import on_device
from latency.checksum import write_checksummed
from latency.on_device import BUNDLE_FILE, BUNDLE_SCHEMA, Bundle, BundledGraph, bundle_sha256, content_of, open_bundle

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
GRAPH = {
    "key": "a@8",
    "kind": "block",
    "file": "a.onnx",
    "sha256": SHA256_OF_ABC,
    "inputs": {"input0": [1, 3, 8, 8]},
    "blocks": {},
    "macs": 0,
    "task": "",
}
CONTENT = {
    "device": "cpu",
    "precision": "fp32",
    "batch": 1,
    "threads": 1,
    "timing": {},
    "graphs": [GRAPH, {**GRAPH, "key": "n@8", "kind": "network", "blocks": {"a@8": 2}, "macs": 7, "task": "n"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checksummed(tmp_path / BUNDLE_FILE, CONTENT, schema=BUNDLE_SCHEMA)
    (tmp_path / "a.onnx").write_bytes(b"abc")
    return tmp_path


def test_a_bundle_is_opened_with_its_graphs_by_kind(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle == Bundle(**CONTENT)  # type: ignore[arg-type]
    assert bundle.of_kind("block") == {"a@8": BundledGraph(**GRAPH)}  # type: ignore[arg-type]
    assert bundle.of_kind("network")["n@8"].blocks == {"a@8": 2}
    assert bundle.of_kind("reference") == {}
    assert content_of(folder, BundledGraph(**GRAPH)) == b"abc"  # type: ignore[arg-type]


def test_two_bundles_differ_by_their_sha256(folder: Path, tmp_path: Path) -> None:
    first = bundle_sha256(folder)
    write_checksummed(tmp_path / BUNDLE_FILE, {**CONTENT, "threads": 2}, schema=BUNDLE_SCHEMA)
    assert len(first) == 64
    assert bundle_sha256(tmp_path) != first


def test_a_changed_graph_is_refused(folder: Path) -> None:
    (folder / "a.onnx").write_bytes(b"abd")
    with pytest.raises(UserError, match=r"a\.onnx is not the file"):
        open_bundle(folder)
    (folder / "a.onnx").unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.onnx: No such file"):
        open_bundle(folder)


def test_inputs_are_normal_and_deterministic(folder: Path) -> None:
    first, again = (on_device._source(folder, BundledGraph(**GRAPH)) for _ in range(2))  # type: ignore[arg-type]
    inputs = first.inputs
    assert first.content == b"abc"
    assert first.size == 3
    assert inputs["input0"].shape == (1, 3, 8, 8)
    assert inputs["input0"].dtype == "float32"
    assert abs(inputs["input0"].std() - 1) < 0.2
    assert (inputs["input0"] == again.inputs["input0"]).all()


def test_progress_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    lines = on_device._ProgressLines()
    for done in range(1, 7):
        lines("measure", done, 6)
    assert capsys.readouterr().err.splitlines() == [
        "measure: 1 of 6, 0 s left",
        "measure: 4 of 6, 6 s left",  # 12 s later, of which each step took 3
        "measure: 6 of 6, 0 s left",
    ]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/b/x"), 2, "/b/x: Permission denied; this needs a folder"),
        (OSError("libcuda.so.1: cannot open shared object file"), 2, "libcuda.so.1: cannot open shared object file"),
        (ImportError("cannot import name 'x' from 'numpy'", name="numpy"), 3, "cannot import name 'x' from 'numpy'"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> NoReturn:
        raise error

    monkeypatch.setattr("latency.on_device.measure_bundle", fail)
    assert on_device.main([]) == code
    assert capsys.readouterr().err.startswith(f"error: {line}")
