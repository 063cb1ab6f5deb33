import json
import shutil
from pathlib import Path

import pytest

from fbnetv5.cli.validate import print_validation
from tests.command_line import assert_refused, document, fbnetv5
from tests.contract.stored import STORED


def test_a_changed_file_is_exit_code_1_and_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(STORED / "exported", tmp_path / "net"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["sha256"]["model.onnx"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = fbnetv5("validate", "net", cwd=tmp_path)
    assert done.returncode == 1
    assert "files: FAILED: model.onnx: not the files of the manifest" in done.stdout
    assert "net: files: model.onnx: not the files of the manifest" in " ".join(done.stderr.split())


def test_checks_and_latencies_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = document("validate", str(STORED / "exported"), cwd=tmp_path)
    print_validation(printed)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [finding["check"] for finding in printed["findings"]]
    median = printed["latency_ms"]["onnxruntime, 1 thread"]["median"]
    assert lines[-1].startswith(f"onnxruntime, 1 thread: {median:.3f} ms (median), ")


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert_refused(["validate", "nowhere"], "manifest file nowhere/manifest.json does not exist", cwd=tmp_path)
