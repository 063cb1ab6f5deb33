"""Pages of tiny runs of every kind, written by the commands as users get them; and a browser."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.browser import Browser, find_chromium
from tests.command_line import QUICK, SMALL, document
from tests.fbnetv5.cli.conftest import brief_timing
from tests.fbnetv5.cli.test_nars import QUICK as NARS
from tests.fbnetv5.cli.test_nars import SMALL as SMALL_NARS
from tests.fbnetv5.labeling.labelled_scenes import write_images
from tests.fbnetv5.labeling.teachers.onnx_files import classifier, segmenter

BRANCH = {"steps": 4, "batch": 4, "scenes": [24, 24, 8], "width": 0.25, "score_images": 8, "routing_every": 2}
TRAIN = {"scenes": [24, 12, 8], "steps": 4, "batch": 4, "evaluate_every": 2, "held_out": 8, "warmup_steps": 1}
PAGES = {
    "search": "runs/search/report.html",
    "branch": "runs/branch/report.html",
    "nars": "runs/n/report.html",
    "train": "trained/report.html",
    "label": "labelled/report.html",
    "unfinished": "unfinished/report.html",
    "profile": "luts/cpu-fp32-b1.html",
}
"""By name: the page in the folder of ``work``."""


def make_pages(work: Path) -> None:
    """Run every command that writes a page, in a new folder."""
    for name, fields in {"quick": NARS, "branch": BRANCH, "train": TRAIN}.items():
        (work / f"{name}.json").write_text(json.dumps(fields), encoding="utf-8")
    document("profile", *SMALL, "--resolution", "64", "--networks", "9", cwd=work)
    search = ("--device", "cpu", "--config", str(QUICK), "--name", "search", *SMALL)
    document("search", "--flops", "15M@64x64", *search, cwd=work)
    document("export", "--run", "runs/search", "--task", "cls", cwd=work)
    document("report", "runs/search", cwd=work)
    five = ("--tasks", "cls,det,seg,depth,edges", "--config", "branch.json", "--name", "branch")
    document("branch", "--flops", "20M@64x64", *five, cwd=work)
    document("nars", *SMALL_NARS, "--name", "n", cwd=work)
    document("train", "--arch", "runs/search/cls.json", "--config", "train.json", "--output", "trained", cwd=work)
    write_images(work / "all", 6)
    classifier(work / "cls.onnx")
    segmenter(work / "seg.onnx", size=[96, 96])
    teachers = ("--teacher", "cls=cls.onnx", "--teacher", "seg=seg.onnx", "--derive", "edges=seg")
    document("label", "all/0", *teachers, "-o", "labelled", cwd=work)
    shutil.copytree(
        work / "runs" / "search", work / "unfinished", ignore=shutil.ignore_patterns("pareto.json", "det.*")
    )
    document("report", "unfinished", cwd=work)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name. With pytest-xdist, the first process that needs them makes them while the others wait."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    work = shared / "pages"
    with (shared / "pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (work / PAGES["unfinished"]).exists():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            with brief_timing():
                make_pages(work)
    return {name: work / page for name, page in PAGES.items()}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests skip, and fail where CI is set."""
    found = find_chromium()
    if isinstance(found, str):
        if os.environ.get("CI"):
            pytest.fail(f"{found}; `make browser` installs it")
        pytest.skip(found)
    opened = Browser(*found)
    yield opened
    opened.quit()
