from pathlib import Path
from typing import get_args

import pytest

from export.errors import UserError
from fbnetv5.cli.options import Tasks, budgets_by_file
from fbnetv5.tasks import default_tasks
from tests.command_line import in_process


def test_help_names_the_default_tasks() -> None:
    (option,) = get_args(Tasks)[1:]
    assert default_tasks() == tuple(option.show_default.split(","))


@pytest.mark.parametrize("arguments", [["profile"], ["search", "--latency", "8ms"]])
def test_an_unavailable_device_is_exit_code_3(tmp_path: Path, arguments: list[str]) -> None:
    done = in_process(*arguments, "--device", "a100", cwd=tmp_path)
    assert done.returncode == 3
    line = " ".join(done.stderr.split())
    assert "device 'a100' is not here: no NVIDIA device or driver was found on this machine" in line
    assert "fbnetv5 profile bundle FOLDER --device a100" in line
    assert "fbnetv5 profile estimate --device a100" in line
    assert list(tmp_path.iterdir()) == []


def test_budgets_of_cost_files_are_grouped_by_file() -> None:
    values = ["energy.json=det=5,3", "traffic.json=9MB", "energy.json=4"]
    assert budgets_by_file(values) == {"energy.json": ["det=5,3", "4"], "traffic.json": ["9MB"]}
    assert budgets_by_file(None) == {}
    with pytest.raises(UserError, match=r"'=5' must be a file and its budget, such as energy\.json=5"):
        budgets_by_file(["=5"])
