"""The command line in a process of its own, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract.schemas import check_document


def fbnetv5(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "fbnetv5", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def document(*arguments: str, cwd: Path) -> Any:
    """The JSON document that a command prints: all it prints on stdout, and as the contract has it."""
    done = fbnetv5(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    check_document(arguments, printed)
    return printed
