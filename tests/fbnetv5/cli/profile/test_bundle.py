import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import SMALL, document

CLASSIFIERS = (*SMALL, "--resolution", "64", "--networks", "0", "--tasks", "cls")


@pytest.mark.slow
def test_a_remote_device_is_measured_through_a_bundle(tmp_path: Path) -> None:
    written = document("profile", "bundle", "b", *CLASSIFIERS, cwd=tmp_path)
    assert (written["device"], written["networks"]) == ("cpu", 0)
    assert "fbnetv5 profile import b" in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    subprocess.run([sys.executable, "b/measure.py"], cwd=tmp_path, check=True, capture_output=True)
    imported = document("profile", "import", "b", cwd=tmp_path)
    assert imported["table"] == "luts/cpu-fp32-b1.json"
    assert len(imported["latency_ms"]) == imported["measured"] - 1 == written["blocks"] - 1
    assert document("profile", *CLASSIFIERS, "--dry-run", cwd=tmp_path)["blocks"] == []
