"""Tests that need a GPU are collected on machines without a GPU, so that no test is lost when files move."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTS = 36
"""Number of tests that need a GPU; raise it with every test that is added."""


def test_no_gpu_test_is_lost() -> None:
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len([line for line in done.stdout.splitlines() if "::" in line]) == TESTS
