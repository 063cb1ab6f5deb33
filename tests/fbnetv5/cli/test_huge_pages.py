import os
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv5.cli.huge_pages import KERNEL_SETTING, VALUE, VARIABLE, are_given_on_request

SCRIPT = f"""
import os, sys
from fbnetv5.cli.huge_pages import restart_in_huge_pages
restart_in_huge_pages()
print(os.getpid(), os.environ.get("{VARIABLE}"), *sys.argv[1:])
"""


def run(folder: Path, *arguments: str, name: str = "fbnetv5", **environment: str) -> list[str]:
    """The words that a script prints which restarts itself, but for its number, which a restart keeps."""
    file = folder / name
    file.write_text(SCRIPT)
    variables = {name: value for name, value in os.environ.items() if name != VARIABLE} | environment
    command = [sys.executable, "-X", "utf8", str(file), *arguments]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        number, *words = process.communicate()[0].split()
    assert (process.returncode, int(number)) == (0, process.pid)
    return words


@pytest.mark.skipif(not are_given_on_request(KERNEL_SETTING), reason="this kernel does not give huge pages on request")
def test_a_training_runs_in_huge_pages_with_its_arguments(tmp_path: Path) -> None:
    assert run(tmp_path, "search", "--flops", "400M") == [VALUE, "search", "--flops", "400M"]


def test_other_commands_and_a_set_variable_change_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, "profile", "--device", "cpu") == ["None", "profile", "--device", "cpu"]
    assert run(tmp_path) == ["None"]
    assert run(tmp_path, "search", name="other") == ["None", "search"]
    assert run(tmp_path, "train", **{VARIABLE: "glibc.malloc.hugetlb=0"}) == ["glibc.malloc.hugetlb=0", "train"]


@pytest.mark.parametrize(
    ("text", "given"), [("always [madvise] never\n", True), ("[always] madvise never\n", False), (None, False)]
)
def test_the_kernels_setting_decides(text: str | None, given: bool, tmp_path: Path) -> None:
    file = tmp_path / "enabled"
    if text is not None:
        file.write_text(text)
    assert are_given_on_request(file) is given
