"""A folder in which ``fbnetv5 profile`` and ``fbnetv5 search`` have run, made once per test run."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from latency.protocol import Timing
from tests.command_line import QUICK, SMALL, document


@contextmanager
def brief_timing() -> Iterator[None]:
    """Commands in this process measure for a fiftieth of the default time: no test compares latencies."""
    brief = {"repetitions": 2, "warmup_ms": 1.0, "min_ms": 7.0, "reference_ms": 2.0}
    with mock.patch.dict(Timing.__init__.__kwdefaults__, brief):
        yield


@pytest.fixture(autouse=True)
def _brief_timing() -> Iterator[None]:
    with brief_timing():
        yield


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for this process, of a folder with a latency table in ``luts`` and a run in ``runs/one``.

    The documents that the two commands printed are in ``profile.json`` and ``search.json``. With pytest-xdist, the
    first process that needs the folder makes it while the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "work.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "work" / "search.json").exists():
            shutil.rmtree(shared / "work", ignore_errors=True)
            with brief_timing():
                profile_and_search(shared / "work")
    return Path(shutil.copytree(shared / "work", tmp_path_factory.mktemp("copy") / "work", symlinks=True))


def profile_and_search(folder: Path) -> None:
    """Make the folder and run both commands in it."""
    folder.mkdir()
    profile = ["profile", *SMALL, "--resolution", "64", "--networks", "9"]
    search = ["search", "--flops", "15M@64x64", "--device", "cpu", "--config", str(QUICK), "--name", "one", *SMALL]
    for arguments in (profile, search):
        printed = document(*arguments, cwd=folder)
        (folder / f"{arguments[0]}.json").write_text(json.dumps(printed), encoding="utf-8")
