"""docs/cli.md, the reference of the commands, is that of the code."""

import re
from pathlib import Path

from tests.command_line import in_process
from tools.write_cli_reference import PAGE, reference

SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## fbnetv5 ")[1:]


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python tools/write_cli_reference.py"


def test_the_page_has_the_options_that_help_prints(tmp_path: Path) -> None:
    for section in SECTIONS:
        printed = in_process(*section.partition("\n")[0].split(), "--help", cwd=tmp_path).stdout
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", printed.partition("Options:")[2], flags=re.MULTILINE)
        assert [*re.findall(r"^\| (?:`-\w[^`]*`, )?`(--[a-z-]+)", section, flags=re.MULTILINE), "--help"] == options
