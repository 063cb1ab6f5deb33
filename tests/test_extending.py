"""The examples of docs/extending.md work: they run in order, in one namespace, as the page shows them."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fbnetv5.blocks
import fbnetv5.data
import fbnetv5.labeling.teachers
import fbnetv5.spaces
import fbnetv5.tasks
import latency
from fbnetv5.data import layouts
from fbnetv5.labeling.teachers import families

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
PACKAGES = (fbnetv5.blocks, fbnetv5.data, fbnetv5.labeling.teachers, fbnetv5.spaces, fbnetv5.tasks, latency)
"""The packages that examples add a file to."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, in which each package has a folder of further modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layouts, "LAYOUTS", layouts.LAYOUTS)
    monkeypatch.setattr(families, "LIBRARIES", families.LIBRARIES)
    for package in PACKAGES:
        further = tmp_path / package.__name__.replace(".", "/")
        further.mkdir(parents=True)
        package.__path__.append(str(further))
    modules = set(sys.modules)
    yield tmp_path
    for package in PACKAGES:
        package.__path__.pop()
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            parent, _, child = name.rpartition(".")
            delattr(sys.modules[parent], child)
            del sys.modules[name]


def test_the_examples_of_the_page_run_in_order(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "example"}
    files = 0
    for example in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        code = example[1]
        if path := re.match(r"# (\S+\.py)\n", code):
            (folder / path[1]).write_text(code, encoding="utf-8")
            files += 1
        else:
            skipped = "\n" * text.count("\n", 0, example.start(1))  # so that a traceback has the page's line
            exec(compile(skipped + code, PAGE, "exec"), namespace)
    assert files == len(PACKAGES)
