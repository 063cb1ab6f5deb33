from pathlib import Path

import pytest

from tests.command_line import assert_refused


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--verify=t.json", "profile verify TABLE"),
        ("--bundle", "profile bundle FOLDER"),
        ("--import", "profile import FOLDER"),
        ("--estimate", "profile estimate"),
    ],
)
def test_the_error_of_a_former_flag_names_its_sub_command(tmp_path: Path, flag: str, command: str) -> None:
    message = f"{flag.partition('=')[0]} is a sub-command now: fbnetv5 {command}"
    assert_refused(["profile", "--device", "cpu", flag, "f"], message, cwd=tmp_path)
