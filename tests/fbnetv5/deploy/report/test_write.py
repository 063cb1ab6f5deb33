import json
import re
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.deploy.report import write
from fbnetv5.deploy.report.write import finish_with_report, report
from tests.contract.stored import stored_run
from tests.html_pages import Elements, mistakes_of


def test_the_page_is_one_valid_file_of_a_moderate_size(search_run: Path) -> None:
    page = report(search_run)
    assert page == search_run / "report.html"
    html = page.read_text(encoding="utf-8")
    assert mistakes_of(html) == []
    assert len(html.encode()) < 6_000_000
    assert not list(search_run.glob(".*.tmp"))


def test_a_run_of_an_earlier_version_has_a_page(tmp_path: Path) -> None:
    page = report(stored_run(tmp_path / "run"), output=tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert mistakes_of(page.read_text(encoding="utf-8")) == []


def test_names_of_users_are_escaped(search_run: Path) -> None:
    hostile = "</script><script>alert(1)</script><b>"
    for task in ("cls", "det"):
        file = search_run / f"{task}.json"
        document = json.loads(file.read_text(encoding="utf-8"))
        document["classes"] = {target: [hostile, *names[1:]] for target, names in document["classes"].items()}
        file.write_text(json.dumps(document), encoding="utf-8")
    renamed = search_run.rename(search_run.with_name("<script>alert(2)<&"))
    html = report(renamed).read_text(encoding="utf-8")
    assert mistakes_of(html) == []
    elements = Elements(html)
    assert elements.of("h1")[0].text == "<script>alert(2)<&"
    assert any(hostile in image.attributes["alt"] for image in elements.of("img"))
    assert not re.search(r"<script>alert", html)


def test_the_end_of_a_run_does_not_fail_with_its_page(search_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    (search_run / "history.jsonl").write_text("{\n{}\n", encoding="utf-8")
    finish_with_report(search_run, lines.append)
    assert len(lines) == 1
    assert "report.html was not written" in lines[0]
    assert "damaged in line 1" in lines[0]

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(write, "_write", fail)
    finish_with_report(search_run, lines.append)
    assert "was not written (ZeroDivisionError)" in lines[1]


@pytest.mark.parametrize("name", ["none", "networks"])
def test_other_folders_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "networks").mkdir()
    with pytest.raises(UserError, match=r"does not exist|is no run folder"):
        report(tmp_path / name)
