"""README and docs: make targets and linked files exist, and no placeholder is left. ``tests/docs`` checks the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_placeholder(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^[A-Z]+(?:_[A-Z]+)+$", prose, flags=re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^# \S+\.py$", "", text, flags=re.MULTILINE)  # a file that an example makes
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for script in re.findall(r"(?<![\w/])(?:benchmarks|tools|fbnetv5|latency|export|docs)/[\w/]+\.(?:py|md)", text):
        assert (ROOT / script).exists(), script
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^ {4}make (\w+)", text, flags=re.MULTILINE)) <= targets
