import os
import subprocess
import sys
from pathlib import Path

from tests.export.tiny import Tiny, exported


def test_onnx_runtime_reports_nothing_and_writes_nothing_to_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(exported(Tiny()))
    (tmp_path / "home").mkdir()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    environment["HOME"] = str(tmp_path / "home")
    code = "import sys; from export.runners import OrtRunner; OrtRunner(open(sys.argv[1], 'rb').read())"
    command = [sys.executable, "-c", code, str(tmp_path / "tiny.onnx")]
    subprocess.run(command, env=environment, check=True)
    assert list((tmp_path / "home").iterdir()) == []
